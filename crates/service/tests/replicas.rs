//! Calls to several programs that stand for one.

use std::time::Duration;

use netloom_service::replicas::PATIENCE;
use netloom_service::server::serve_when;
use netloom_service::{Channel, Connector, Shutdown, Whom};
use tokio::time::Instant;
use tokio_util::sync::DropGuard;
use tonic::service::Routes;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const SERVICE: &str = "netloom.test.v1.Test";

/// A program that stands by until it is told.
struct Program {
    leads: tokio::sync::watch::Sender<bool>,
    _end: DropGuard,
}

async fn program(connector: &Connector, at: &str) -> Program {
    let listener = connector.listen(&at.parse().unwrap()).await.unwrap();
    let (leads, told) = tokio::sync::watch::channel(false);
    let end = Shutdown::new();
    let served = serve_when(
        listener,
        Routes::default(),
        SERVICE,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        told,
        end.clone(),
    );
    // Ends at once, as a process does that is killed.
    tokio::spawn(end.clone().run_until_cancelled_owned(served));
    Program { leads, _end: end.drop_guard() }
}

async fn asked(channel: &Channel) -> Result<(), tonic::Status> {
    let asked = HealthCheckRequest { service: SERVICE.to_owned() };
    let answer = HealthClient::new(channel.clone()).check(asked).await?;
    assert_eq!(answer.get_ref().status(), ServingStatus::Serving, "it went to one that leads");
    Ok(())
}

#[tokio::test]
async fn calls_go_to_the_one_that_leads_and_wait_for_the_next_one() {
    let connector = Connector::default();
    let (a, b) = (program(&connector, "mem:a").await, program(&connector, "mem:b").await);
    b.leads.send_replace(true);
    let channel = connector.channel_to(&"mem:nobody,mem:a,mem:b".parse().unwrap(), Whom::Serving(SERVICE));
    asked(&channel).await.unwrap();
    drop(b);
    let takes_over = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        a.leads.send_replace(true);
    };
    // What was under way may be lost; what comes after it waits.
    let (answer, ()) = tokio::join!(
        async {
            match asked(&channel).await {
                Err(_) => asked(&channel).await,
                answered => answered,
            }
        },
        takes_over
    );
    answer.unwrap();
}

#[tokio::test]
async fn when_nobody_leads_the_call_says_what_each_one_said_and_only_the_first_waits() {
    let connector = Connector::default();
    let _a = program(&connector, "mem:a").await;
    let channel = connector.channel_to(&"mem:a,mem:b".parse().unwrap(), Whom::Serving(SERVICE));
    let begun = Instant::now();
    let said = format!("{:?}", asked(&channel).await.unwrap_err());
    assert!(
        said.contains("mem:a stands by") && said.contains("mem:b cannot be asked: nothing listens"),
        "{said}"
    );
    let waited = begun.elapsed();
    assert!(waited >= PATIENCE, "{waited:?}");
    asked(&channel).await.unwrap_err();
    assert!(begun.elapsed() - waited < PATIENCE / 2, "the next one is told at once");
}

#[tokio::test]
async fn whichever_takes_the_connection_will_do_where_none_leads() {
    let connector = Connector::default();
    let b = program(&connector, "mem:b").await;
    b.leads.send_replace(true);
    let channel = connector.channel_to(&"mem:a,mem:b".parse().unwrap(), Whom::Any);
    asked(&channel).await.unwrap();
    let a = program(&connector, "mem:a").await;
    a.leads.send_replace(true);
    drop(b);
    if asked(&channel).await.is_err() {
        asked(&channel).await.unwrap();
    }
}

/// One that led said for ever that it serves, so callers that came later went to it.
#[tokio::test]
async fn a_program_that_does_not_lead_any_more_says_so() {
    let connector = Connector::default();
    let program = program(&connector, "mem:a").await;
    let health = HealthClient::new(connector.channel(&"mem:a".parse().unwrap()));
    for (leads, says) in [(true, ServingStatus::Serving), (false, ServingStatus::NotServing)] {
        program.leads.send_replace(leads);
        netloom_service::testing::eventually("it says so", Duration::from_secs(10), || {
            let (mut health, asked) = (health.clone(), HealthCheckRequest { service: SERVICE.to_owned() });
            async move { health.check(asked).await.is_ok_and(|answer| answer.get_ref().status() == says) }
        })
        .await;
    }
}
