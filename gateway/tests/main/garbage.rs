//! Requests that make no sense are refused: none of them is answered with a fault of the gateway's own.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::rig::Rig;

/// Paths that are nearly right: pieces of real ones in any order, and anything else.
fn path() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("v1".to_owned()),
        Just("labs".to_owned()),
        Just("labs:import".to_owned()),
        Just("mixed".to_owned()),
        Just("mixed:apply".to_owned()),
        Just("mixed:watch".to_owned()),
        Just("nodes".to_owned()),
        Just("r1:exec".to_owned()),
        Just("links".to_owned()),
        Just("operations".to_owned()),
        Just("images".to_owned()),
        Just("%2e%2e".to_owned()),
        Just("%ff".to_owned()),
        Just(String::new()),
        "[!-~&&[^#?\"<>\\\\^`{|}]]{0,12}",
    ];
    let query = prop_oneof![Just(String::new()), "\\?[a-z_.]{0,10}=[!-~&&[^#\"<>\\\\^`{|}]]{0,10}"];
    (proptest::collection::vec(piece, 1..6), query).prop_map(|(p, q)| format!("/v1/{}{q}", p.join("/")))
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let json = prop_oneof![
        Just("{}".to_owned()),
        Just("null".to_owned()),
        Just("{\"spec\":null}".to_owned()),
        Just("{\"spec\":{\"nodes\":[null]}}".to_owned()),
        Just("{\"spec\":{\"links\":[{}]}}".to_owned()),
        Just("{\"text\":1}".to_owned()),
        Just("{\"timeout\":\"9999999999999999s\"}".to_owned()),
        Just("{\"command\":[\"x\"],\"stdin\":\"*\"}".to_owned()),
        Just(format!("{}{}", "[".repeat(5000), "]".repeat(5000))),
        "\\{\"[a-zA-Z]{1,8}\":[0-9\\[\\]{}\",]{0,20}",
    ];
    prop_oneof![json.prop_map(String::into_bytes), proptest::collection::vec(any::<u8>(), 0..200)]
}

#[test]
fn nonsense_is_refused() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let rig = runtime.block_on(Rig::new());
    let verb =
        prop_oneof![Just("GET"), Just("POST"), Just("PATCH"), Just("DELETE"), Just("PUT"), Just("HEAD")];
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let run = runner.run(&(verb, path(), body()), |(verb, path, body)| {
        let status = runtime.block_on(async {
            // A watch that the nonsense happens to spell never ends: its status is enough.
            rig.send(verb, &path, &[("grpc-timeout", "5S")], body).await.status().as_u16()
        });
        prop_assert!(status < 500 || [501, 503, 504].contains(&status), "{} {} gave {}", verb, path, status);
        Ok(())
    });
    run.unwrap();
    assert_eq!(runtime.block_on(rig.get("/v1/labs")).status, 200, "it still answers");
    runtime.shutdown_background();
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused_over_grpc() {
    let rig = Rig::new().await;
    for method in [
        "LabService/ApplyLab",
        "LabService/ImportLab",
        "NodeService/OpenConsole",
        "NodeService/OpenShell",
        "OperationService/WaitOperation",
    ] {
        for frame in [
            &b""[..],
            b"\0",
            b"\0\0\0\0\x05ab",
            b"\x01\0\0\0\0",
            b"\0\xff\xff\xff\xff",
            b"\0\0\0\0\x03\xff\xff\xff",
            b"garbage garbage",
        ] {
            let answer = rig.raw_grpc(method, &[], frame.to_vec()).await;
            let code = answer.get("grpc-status").map(|c| c.to_str().unwrap().to_owned());
            assert!(!matches!(code.as_deref(), None | Some("0" | "2")), "{method} {frame:?}: {answer:?}");
            assert!(answer.contains_key("grpc-status-details-bin"), "{method} {frame:?}: {answer:?}");
        }
    }
}
