//! host and quota: what is asked, and what is shown.

use crate::fake::{Fake, Script};

fn calls(fake: &Fake) -> Vec<String> {
    fake.script().calls.iter().map(|c| format!("{} {}", c.method, c.what)).collect()
}

#[tokio::test]
async fn a_token_is_shown_as_what_is_to_be_typed() {
    let fake = Fake::start(Script::default()).await;
    let said = fake.run(&["host", "token", "--ttl", "10m"]).await.expect(0).out;
    assert!(said.contains("\n  sudo netloom-host join https://10.0.0.1:7601 secret.print\n"), "{said}");
    assert!(said.contains("\nWith - in place of the token it reads it from standard input"), "{said}");
    assert!(said.contains("This machine is also https://ctl:7601\n"), "{said}");
    assert_eq!(fake.script().calls[0].what, "600");
    let json = fake.run(&["host", "token", "--format", "json"]).await.expect(0).out;
    assert!(json.contains("\"token\": \"secret.print\""), "{json}");
    assert_eq!(fake.script().calls[1].what, "3600", "an hour, unless it is said");
}

#[tokio::test]
async fn hosts_are_cordoned_and_removed_by_name() {
    let fake = Fake::start(Script::default()).await;
    let said = fake.run(&["host", "cordon", "rack2"]).await.expect(0).out;
    assert!(said.contains("New nodes        no: it is cordoned\n"), "{said}");
    assert!(said.contains("Labels           rack=2\n"), "{said}");
    let said = fake.run(&["host", "uncordon", "rack2"]).await.expect(0).out;
    assert!(said.contains("New nodes        yes\n"), "{said}");
    fake.run(&["host", "show", "rack2"]).await.expect(0);
    let said = fake.run(&["host", "remove", "rack2", "--force"]).await.expect(0).out;
    assert_eq!(said, "Removed host rack2\n");
    assert_eq!(
        calls(&fake),
        [
            "CordonHost hosts/rack2",
            "UncordonHost hosts/rack2",
            "GetHost hosts/rack2",
            "DeleteHost hosts/rack2 true"
        ]
    );
}

#[tokio::test]
async fn what_is_said_of_a_host_is_changed_key_by_key() {
    let fake = Fake::start(Script::default()).await;
    let said = fake.run(&["host", "taint", "rack2", "gpu=a100", "slow"]).await.expect(0).out;
    assert!(said.contains("Labels           rack=2\nTaints           gpu=a100, slow\n"), "{said}");
    fake.run(&["host", "label", "rack2", "disk=nvme", "zone-"]).await.expect(0);
    let set =
        ["host", "set", "rack2", "--cpu-overcommit", "4", "--system-cpu", "1.5", "--system-memory", "2GiB"];
    let said = fake.run(&set).await.expect(0).out;
    assert!(said.contains("Left to the host 1.5 CPU, 2.0 GiB memory\n"), "{said}");
    fake.run(&["host", "set", "rack2"]).await.expect(2);
    assert_eq!(
        calls(&fake),
        [
            "UpdateHost hosts/rack2 [\"taints.gpu\", \"taints.slow\"] [{}, {\"gpu\": \"a100\", \"slow\": \"\"}]",
            "UpdateHost hosts/rack2 [\"labels.disk\", \"labels.zone\"] [{\"disk\": \"nvme\"}, {}]",
            "UpdateHost hosts/rack2 [\"cpu_overcommit\", \"system_cpu_millis\", \"system_memory_bytes\"] [{}, {}]",
        ]
    );
}

#[tokio::test]
async fn quotas_are_set_as_a_whole_and_shown_with_what_is_used() {
    let fake = Fake::start(Script::default()).await;
    let said = fake.run(&["quota", "list"]).await.expect(0).out;
    let lines: Vec<String> =
        said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        lines,
        [
            "PROJECT LABS NODES CPU MEMORY DISK",
            "course-9 2 14 1.45 2.0 GiB 0 B",
            "course-10 2 14 of 20 1.45 2.0 GiB 0 B",
        ]
    );
    fake.run(&["quota", "set", "course-9", "--cpu", "16", "--memory", "32GiB"]).await.expect(0);
    let json = fake.run(&["quota", "show", "course-9", "--format", "json"]).await.expect(0).out;
    assert!(json.contains("\"name\": \"quotas/course-9\""), "{json}");
    let said = fake.run(&["quota", "remove", "course-9"]).await.expect(0).out;
    assert_eq!(said, "Removed the quota of project course-9\n");
    assert_eq!(
        calls(&fake),
        [
            "ListQuotas ",
            "UpdateQuota quotas/course-9 None Some(16000) Some(34359738368)",
            "GetQuota quotas/course-9",
            "DeleteQuota quotas/course-9",
        ]
    );
}
