//! Packet capture, as tshark and tcpdump read it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netloom_model::failure::Code;
use netloom_proto::network::v1 as pb;
use netloom_service::status::from_status;
use netloom_service::testing::eventually;
use netloom_service::ticket;
use tokio::task::JoinHandle;
use tonic::Status;

use crate::frames::{Port, marked};
use crate::harness::{
    BOUND, Host, KEY, Node, On, Slice, host_end, nic, on_a_host, on_both_planes, run, with_machines,
};

on_both_planes!(
    both_directions_of_several_nics_are_one_stream_that_tshark_reads,
    a_capture_that_is_ended_says_what_it_received,
    a_tag_that_the_kernel_took_off_is_back_and_filtered_by,
    a_capture_goes_on_after_a_restart_and_ends_with_its_nic_or_its_time,
    a_caller_that_does_not_read_slows_nothing_and_what_it_missed_is_counted,
);
with_machines!(
    both_directions_of_several_nics_are_one_stream_that_tshark_reads,
    a_tag_that_the_kernel_took_off_is_back_and_filtered_by,
);

fn sign(wires: &[u64]) -> String {
    let uid = ticket::capture_uid(wires.iter().copied());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    ticket::sign(&KEY, &uid, "capture", now + 60)
}

fn request(nics: &[(u64, &str)]) -> pb::CaptureRequest {
    let wires: Vec<u64> = nics.iter().map(|(wire, _)| *wire).collect();
    let nic = |(wire_id, name): &(u64, &str)| pb::CaptureNic { wire_id: *wire_id, name: (*name).to_owned() };
    pb::CaptureRequest {
        ticket: sign(&wires),
        nics: nics.iter().map(nic).collect(),
        lab: "test".to_owned(),
        ..pb::CaptureRequest::default()
    }
}

/// A capture that runs; ends with the whole stream.
struct Running(JoinHandle<Vec<u8>>);

impl Running {
    /// Returns when nothing is missed any more.
    async fn start(host: &Host, request: pb::CaptureRequest) -> Result<Running, Status> {
        let mut stream = host.client.clone().capture(request).await?.into_inner();
        let mut bytes = stream.message().await?.expect("a header").data;
        Ok(Running(tokio::spawn(async move {
            while let Ok(Some(part)) = stream.message().await {
                bytes.extend(part.data);
            }
            bytes
        })))
    }

    async fn end(self, host: &Host, name: &str) -> PathBuf {
        let bytes = tokio::time::timeout(BOUND, self.0).await.expect("it ends").unwrap();
        let path = host.dir.path().join(format!("{name}.pcapng"));
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

/// Fields of each packet that tshark reads.
fn tshark(file: &Path, fields: &[&str]) -> Vec<String> {
    let mut args = vec!["-n", "-r", file.to_str().unwrap(), "-T", "fields"];
    fields.iter().for_each(|field| args.extend(["-e", field]));
    run("tshark", &args).lines().map(str::to_owned).collect()
}

fn pair(host: &Host, slice: &mut Slice) -> ([Node; 2], [u64; 2], u64) {
    let nodes = [host.node(), host.node()];
    let nics = [0, 1].map(|n| {
        let (mac, address) = (format!("02:00:00:00:00:0{}", n + 1), format!("10.4.0.{}/24", n + 1));
        slice.nic_as(&nodes[n], "eth1", &mac, &[&address])
    });
    let wire = slice.wire(nic(nics[0]), nic(nics[1]));
    (nodes, nics, wire)
}

fn both_directions_of_several_nics_are_one_stream_that_tshark_reads(on: On) {
    on_a_host("both_directions_of_several_nics_are_one_stream_that_tshark_reads", || async move {
        let host = Host::start_on(on).await;
        let mut slice = Slice::default();
        let ([a, b], nics, wire) = pair(&host, &mut slice);
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        b.until_running("eth1").await;
        a.run("ping", &["-c", "1", "-W", "5", "10.4.0.2"]);
        let order = pb::CaptureRequest {
            filter: "icmp".to_owned(),
            packet_count: 8,
            ..request(&[(nics[0], "r1:eth1"), (nics[1], "r2:eth1")])
        };
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let running = Running::start(&host, order).await.unwrap();
        a.run("ping", &["-c", "3", "-i", "0.05", "-W", "5", "-s", "1000", "10.4.0.2"]);
        let file = running.end(&host, "both").await;
        let fields = ["frame.interface_name", "frame.packet_flags_direction", "icmp.type", "frame.len"];
        let read = tshark(&file, &fields);
        assert_eq!(read.len(), 8, "{read:?}");
        // A question leaves r1 and comes to r2, an answer the other way round.
        for line in &read {
            let fields: Vec<&str> = line.split('\t').collect();
            let outbound = matches!((fields[0], fields[2]), ("r1:eth1", "8") | ("r2:eth1", "0"));
            assert_eq!(fields[1], if outbound { "0x00000002" } else { "0x00000001" }, "{line}");
            assert_eq!(fields[3], "1042");
        }
        let time: f64 = tshark(&file, &["frame.time_epoch"])[0].parse().unwrap();
        assert!((before..before + 60.0).contains(&time), "{time} is not about {before}");
        let said = run("capinfos", &[file.to_str().unwrap()]);
        for words in ["Capture application: netloom", "lab test", "nanoseconds", "Number of stat entries = 1"]
        {
            assert!(said.contains(words), "no {words:?} in {said}");
        }
        assert!(run("tcpdump", &["-n", "-r", file.to_str().unwrap()]).contains("ICMP echo request"));
    });
}

fn a_capture_that_is_ended_says_what_it_received(on: On) {
    on_a_host("a_capture_that_is_ended_says_what_it_received", || async move {
        let host = Host::start_on(on).await;
        let mut slice = Slice::default();
        let ([a, b], nics, wire) = pair(&host, &mut slice);
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        b.until_running("eth1").await;
        let order = pb::CaptureRequest {
            capture_id: "one".to_owned(),
            filter: "icmp".to_owned(),
            ..request(&[(nics[0], "r1:eth1"), (nics[1], "r2:eth1")])
        };
        let running = Running::start(&host, order.clone()).await.unwrap();
        a.run("ping", &["-c", "2", "-i", "0.05", "-W", "5", "10.4.0.2"]);
        let taken = Running::start(&host, order).await.err().expect("the id is taken");
        assert_eq!(from_status(&taken).violations[0].field, "capture_id");
        let end = |nic: u64, id: &str| {
            let asked =
                pb::EndCaptureRequest { ticket: sign(&[nic]), nics: vec![nic], capture_id: id.to_owned() };
            let mut client = host.client.clone();
            async move { client.end_capture(asked).await }
        };
        for (nic, id) in [(nics[0], "two"), (nics[1] + 1_000, "one")] {
            let refused = end(nic, id).await.unwrap_err();
            assert_eq!(from_status(&refused).reason, "CAPTURE_NOT_FOUND", "{id}");
        }
        end(nics[1], "one").await.unwrap();
        let file = running.end(&host, "ended").await;
        assert_eq!(tshark(&file, &["icmp.type"]).len(), 8);
        let said = run("capinfos", &[file.to_str().unwrap()]);
        assert_eq!(said.matches("Number of stat entries = 1").count(), 2, "{said}");
        eventually("the id is free", BOUND, || async { end(nics[0], "one").await.is_err() }).await;
    });
}

fn a_tag_that_the_kernel_took_off_is_back_and_filtered_by(on: On) {
    on_a_host("a_tag_that_the_kernel_took_off_is_back_and_filtered_by", || async move {
        let host = Host::start_on(on).await;
        let mut slice = Slice::default();
        let ([a, b], nics, wire) = pair(&host, &mut slice);
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        for node in [&a, &b] {
            node.until_running("eth1").await;
        }
        let order = |filter: &str| pb::CaptureRequest {
            filter: filter.to_owned(),
            ..request(&[(nics[0], "r1:eth1"), (nics[1], "r2:eth1")])
        };
        let tagged = Running::start(&host, order("vlan 100 and ether proto 0x88b5")).await.unwrap();
        let plain = Running::start(&host, order("ether proto 0x88b5")).await.unwrap();
        let short = pb::CaptureRequest { snap_length: 20, ..order("vlan") };
        let short = Running::start(&host, short).await.unwrap();
        let port = Port::open(&a, "eth1");
        let far = Port::open(&b, "eth1");
        let mut frame = marked("tagged;");
        frame.splice(12..12, [0x81, 0, 0x60, 100]);
        port.send(&marked("plain;"));
        port.send(&frame);
        let mut heard = Vec::new();
        eventually("both frames arrive", BOUND, || {
            heard.extend(far.drain());
            let done = heard.len() >= 2;
            async move { done }
        })
        .await;
        host.remove(slice.ids()).await;
        let file = tagged.end(&host, "tagged").await;
        assert_eq!(tshark(&file, &["vlan.id", "vlan.priority"]), ["100\t3", "100\t3"]);
        let file = plain.end(&host, "plain").await;
        assert_eq!(
            tshark(&file, &["eth.type"]),
            ["0x88b5", "0x88b5"],
            "one at each end, without the tagged one"
        );
        let file = short.end(&host, "short").await;
        let length = format!("20\t{}", frame.len());
        assert_eq!(tshark(&file, &["frame.cap_len", "frame.len"]), [length.clone(), length]);
    });
}

fn a_capture_goes_on_after_a_restart_and_ends_with_its_nic_or_its_time(on: On) {
    on_a_host("a_capture_goes_on_after_a_restart_and_ends_with_its_nic_or_its_time", || async move {
        let host = Host::start_on(on).await;
        let mut slice = Slice::default();
        let ([a, mut b], nics, wire) = pair(&host, &mut slice);
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        let order = || pb::CaptureRequest { filter: "icmp".to_owned(), ..request(&[(nics[1], "r2:eth1")]) };
        let running = Running::start(&host, order()).await.unwrap();
        let timed = pb::CaptureRequest { duration_seconds: 1, ..order() };
        let timed = Running::start(&host, timed).await.unwrap();
        let ping = |times: &str| a.run("ping", &["-c", times, "-i", "0.05", "-W", "5", "10.4.0.2"]);
        b.until_running("eth1").await;
        ping("2");
        timed.end(&host, "timed").await;
        b.restart();
        host.until("the new NIC is there", |t| t.nics[&nics[1]].start_id == b.start).await;
        host.until_up(&[wire]).await;
        b.until_running("eth1").await;
        // The new host end is captured from the moment that it is heard of; the first pings may come before.
        let captured = || async {
            let sockets = std::fs::read_to_string("/proc/thread-self/net/packet").unwrap();
            let index = run("cat", &[&format!("/proc/thread-self/net/dev_snmp6/{}", host_end(nics[1]))]);
            let index = index.lines().next().unwrap().split_whitespace().last().unwrap().to_owned();
            let all = sockets.lines().filter(|line| line.split_whitespace().nth(4) == Some(index.as_str()));
            // Open vSwitch listens too.
            all.count() > usize::from(on == On::Ovs)
        };
        eventually("the new host end is listened to", BOUND, captured).await;
        ping("3");
        host.remove(vec![nics[1]]).await;
        let file = running.end(&host, "restarted").await;
        let count = tshark(&file, &["icmp.type"]).len();
        assert_eq!(count, 10, "questions and answers of five pings");
        assert!(run("capinfos", &[file.to_str().unwrap()]).contains("Number of interfaces in file: 1"));
    });
}

fn a_caller_that_does_not_read_slows_nothing_and_what_it_missed_is_counted(on: On) {
    on_a_host("a_caller_that_does_not_read_slows_nothing_and_what_it_missed_is_counted", || async move {
        let host = Host::start_on(on).await;
        let mut slice = Slice::default();
        let ([a, b], nics, wire) = pair(&host, &mut slice);
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        for node in [&a, &b] {
            node.until_running("eth1").await;
        }
        let order = request(&[(nics[0], "r1:eth1")]);
        let mut stream = host.client.clone().capture(order).await.unwrap().into_inner();
        let mut bytes = stream.message().await.unwrap().unwrap().data;
        let (port, far) = (Port::open(&a, "eth1"), Port::open(&b, "eth1"));
        let frame = marked(&"x".repeat(1_400));
        for _ in 0..20_000 {
            let _ = port.try_send(&frame);
            far.drain();
        }
        // The wire itself is as quick as ever: a frame behind them all crosses.
        crate::frames::cross(&port, &far, &marked("behind;"), "a frame behind");
        host.remove(slice.ids()).await;
        while let Ok(Some(part)) = stream.message().await {
            bytes.extend(part.data);
        }
        let file = host.dir.path().join("slow.pcapng");
        std::fs::write(&file, bytes).unwrap();
        let dropped = statistics(&std::fs::read(&file).unwrap());
        let written = tshark(&file, &["frame.number"]).len() as u64;
        let (received, dropped) = dropped.expect("statistics at the end");
        assert!(dropped > 0, "nothing was lost of {received}");
        assert_eq!(written, received - dropped);
        // No socket is left behind by a caller that goes.
        let order = request(&[]);
        assert!(host.client.clone().capture(order).await.is_err());
    });
}

/// Packets received and dropped, from the last block.
fn statistics(bytes: &[u8]) -> Option<(u64, u64)> {
    let length = u32::from_le_bytes(bytes[bytes.len() - 4..].try_into().unwrap()) as usize;
    let block = &bytes[bytes.len() - length..];
    let mut at = 20;
    let (mut received, mut dropped) = (None, None);
    assert_eq!(block[..4], 5u32.to_le_bytes(), "the last block is one of statistics");
    while let Some(code) = block.get(at..at + 2) {
        let size = u16::from_le_bytes(block[at + 2..at + 4].try_into().unwrap()) as usize;
        match u16::from_le_bytes(code.try_into().unwrap()) {
            0 => break,
            4 => received = Some(u64::from_le_bytes(block[at + 4..at + 12].try_into().unwrap())),
            5 => dropped = Some(u64::from_le_bytes(block[at + 4..at + 12].try_into().unwrap())),
            _ => {}
        }
        at += 4 + size.next_multiple_of(4);
    }
    Some((received?, dropped?))
}

#[test]
fn a_capture_needs_its_ticket_and_a_sound_request() {
    on_a_host("a_capture_needs_its_ticket_and_a_sound_request", || async {
        let host = Host::start().await;
        let mut slice = Slice::default();
        let (_nodes, nics, _) = pair(&host, &mut slice);
        let both = [(nics[0], "r1:eth1"), (nics[1], "r2:eth1")];
        let refused = async |request: pb::CaptureRequest| {
            let Err(status) = host.client.clone().capture(request).await else { panic!("it was taken") };
            from_status(&status)
        };
        assert_eq!(refused(request(&both)).await.reason, "TICKET_INVALID", "no key was told yet");
        host.sync(&slice).await;
        let other = pb::CaptureRequest { ticket: sign(&nics[..1]), ..request(&both) };
        assert_eq!(refused(other).await.reason, "TICKET_INVALID");
        let old = pb::CaptureRequest {
            ticket: ticket::sign(&KEY, &nics[0].to_string(), "capture", 9),
            ..request(&both[..1])
        };
        assert_eq!(refused(old).await.reason, "TICKET_EXPIRED");
        let wrong = pb::CaptureRequest { filter: "icmp andd".to_owned(), ..request(&both) };
        let failure = refused(wrong).await;
        assert_eq!((failure.code, failure.reason.as_str()), (Code::InvalidArgument, "FILTER_INVALID"));
        assert!(failure.message.contains("syntax error"), "{}", failure.message);
        assert_eq!(refused(request(&[(999_999, "x")])).await.reason, "NIC_NOT_FOUND");
        let long = pb::CaptureRequest { snap_length: 300_000, ..request(&both) };
        assert_eq!(refused(long).await.code, Code::InvalidArgument);
        assert_eq!(refused(request(&[])).await.code, Code::InvalidArgument);

        // A caller that goes leaves no socket behind.
        let sockets = || {
            let all = std::fs::read_to_string("/proc/thread-self/net/packet").unwrap();
            // Those that listen to every protocol: Open vSwitch's one for sending does not.
            all.lines().filter(|line| line.split_whitespace().nth(3) == Some("0003")).count()
        };
        host.until("NICs are plugged", |t| t.nics.len() == 2 && t.nics.values().all(|n| n.present)).await;
        host.until_up(&[slice.0.wires[0].wire_id]).await;
        let before = sockets();
        let stream = host.client.clone().capture(request(&both)).await.unwrap();
        assert_eq!(sockets(), before + 2);
        drop(stream);
        eventually("they are closed", BOUND, || async { sockets() == before }).await;
        // One that runs does not keep the service from ending.
        let running = Running::start(&host, request(&both)).await.unwrap();
        let mut host = host;
        tokio::time::timeout(Duration::from_secs(20), host.stop_service()).await.expect("it ends");
        let file = running.end(&host, "shutdown").await;
        assert!(statistics(&std::fs::read(file).unwrap()).is_some());
    });
}
