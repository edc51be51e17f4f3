//! Server-sent events: what a browser's EventSource is told, and how it goes on after it lost its stream.

use std::time::Duration;

use netloom_service::testing::eventually;
use serde_json::Value;

use crate::fake::heartbeat;
use crate::fixture::DONE;
use crate::rig::{BOUND, Rig, reason};

const EVENTS: (&str, &str) = ("accept", "text/event-stream");

/// One event: its id, its name, its data.
#[derive(Debug, Default, PartialEq)]
struct Event {
    id: Option<String>,
    name: Option<String>,
    data: String,
}

/// Events as the standard reads them: fields of lines, ended by an empty one.
fn read(lines: &[String]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut event = Event::default();
    for line in lines {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "" if line.is_empty() => events.push(std::mem::take(&mut event)),
            "id" => event.id = Some(value),
            "event" => event.name = Some(value),
            "data" => event.data = value,
            "" => {}
            other => panic!("{other} is not a field of an event"),
        }
    }
    events
}

async fn events(rig: &Rig, path: &str, more: &[(&str, &str)], count: usize) -> Vec<Event> {
    let headers: Vec<(&str, &str)> = [EVENTS].into_iter().chain(more.iter().copied()).collect();
    let response = rig.send("GET", path, &headers, Vec::new()).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    let lines = rig.lines(response, count).await;
    read(&lines)
}

#[tokio::test]
async fn events_have_a_name_and_a_number_to_go_on_from() {
    let rig = Rig::new().await;
    // 14 of the snapshot with 3 lines, its end and 4 changes with 4.
    let events = events(&rig, "/v1/labs/mixed:watch", &[], 14 * 3 + 5 * 4).await;
    assert_eq!(events.len(), 19, "{events:#?}");
    for event in &events[..14] {
        assert_eq!(
            (event.name.as_deref(), &event.id),
            (Some("snapshot"), &None),
            "a snapshot cannot be gone on from"
        );
    }
    let told: Vec<_> =
        events[14..].iter().map(|e| (e.name.as_deref().unwrap(), e.id.as_deref().unwrap())).collect();
    assert_eq!(
        told,
        [("snapshot_end", "41"), ("changed", "42"), ("changed", "43"), ("changed", "44"), ("deleted", "45")]
    );
    let last: Value = serde_json::from_str(&events[18].data).unwrap();
    assert_eq!(last["result"]["sequence"], "45");
}

#[tokio::test]
async fn a_page_goes_on_after_the_last_event_it_has_seen() {
    let rig = Rig::new().await;
    // The address still says what the page began with.
    for path in ["/v1/labs:watch", "/v1/labs:watch?since=1", "/v1/labs/mixed:watch?since=42"] {
        let events = events(&rig, path, &[("last-event-id", "43")], 8).await;
        let ids: Vec<_> = events.iter().map(|e| e.id.as_deref().unwrap()).collect();
        assert_eq!(ids, ["44", "45"], "{path}");
    }
    let answer = rig.http("GET", "/v1/labs:watch", &[EVENTS, ("last-event-id", "x")], "").await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (400, "INVALID_REQUEST"));
    // Without events the header means nothing.
    let answer = rig.send("GET", "/v1/labs:watch", &[("last-event-id", "43")], Vec::new()).await;
    let first: Value = serde_json::from_str(&rig.lines(answer, 1).await[0]).unwrap();
    assert_eq!(first["result"]["type"], "WATCH_EVENT_TYPE_SNAPSHOT");
}

#[tokio::test]
async fn a_number_that_is_too_old_is_told_as_an_event_and_forgotten() {
    let rig = Rig::new().await;
    let events = events(&rig, "/v1/labs:watch", &[("last-event-id", "1")], usize::MAX).await;
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].name.as_deref(), events[0].id.as_deref()), (Some("error"), Some("")));
    let told: Value = serde_json::from_str(&events[0].data).unwrap();
    assert_eq!((&told["error"]["code"], reason(&told["error"]).as_str()), (&11.into(), "RELIST_NEEDED"));
    // What cannot be mended by beginning anew fails the request.
    let answer = rig.http("GET", "/v1/labs/none:watch", &[EVENTS], "").await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (404, "LAB_NOT_FOUND"));
}

#[tokio::test]
async fn a_failure_later_is_an_event_too() {
    let rig = Rig::new().await;
    let body = r#"{"command":["fail"]}"#;
    let answer = rig.http("POST", "/v1/labs/mixed/nodes/r1:exec", &[EVENTS], body).await;
    let lines: Vec<String> = answer.text.lines().map(str::to_owned).collect();
    let events = read(&lines);
    let last = events.last().unwrap();
    assert_eq!((last.name.as_deref(), &last.id), (Some("error"), &None));
    let told: Value = serde_json::from_str(&last.data).unwrap();
    assert_eq!(reason(&told["error"]), "RUNTIME_REFUSED");
    // Messages without a type are events without a name.
    let answer = rig.http("GET", &format!("/v1/operations/{DONE}:watch"), &[EVENTS], "").await;
    let lines: Vec<String> = answer.text.lines().map(str::to_owned).collect();
    let events = read(&lines);
    assert_eq!((events.len(), &events[0].name, &events[0].id), (1, &None, &None));
    assert!(events[0].data.starts_with("{\"result\":{\"name\":"), "{}", events[0].data);
}

#[tokio::test]
async fn heartbeats_of_the_log_are_events() {
    let rig = Rig::new().await;
    let response = rig.send("GET", "/v1/labs:watch?since=45", &[EVENTS], Vec::new()).await;
    eventually("it watches", BOUND, || async { rig.world.events.receiver_count() > 0 }).await;
    rig.world.events.send(heartbeat(47)).unwrap();
    let events = read(&rig.lines(response, 4).await);
    assert_eq!((events[0].name.as_deref(), events[0].id.as_deref()), (Some("heartbeat"), Some("47")));
}

#[tokio::test]
async fn a_silent_stream_of_events_says_that_it_lives() {
    let rig = Rig::new().await;
    let transcoder = rig.transcoder().with_heartbeat(Duration::from_millis(20));
    let path = "/v1/labs/mixed/nodes/r1:logs?follow=true";
    let request = http::Request::get(path).header("accept", "text/event-stream");
    let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    let response = transcoder.call(request).await;
    let mut body = response.into_body();
    let mut text = String::new();
    let reading = async {
        while text.matches(": still here\n\n").count() < 2 {
            let frame = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
    };
    tokio::time::timeout(BOUND, reading).await.unwrap();
    assert!(text.starts_with("data: {\"result\":"), "{text}");
}
