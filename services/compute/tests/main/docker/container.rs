//! What a container is like inside.

use bollard::query_parameters::InspectNetworkOptions;
use netloom_model::observed::{ExecPhase, Phase};
use netloom_model::slice::{HostEntry, Network};
use netloom_model::spec::{Bind, BindSource, MgmtSpec};
use netloom_model::state::{Runtime, Wanted};
use netloom_proto::compute::v1 as p;
use netloom_service::testing::eventually;

use crate::rig::{BOUND, Rig, connect, file, rehash};

#[tokio::test(flavor = "multi_thread")]
async fn it_is_as_asked_for() {
    let Some(rig) = Rig::docker("it_is_as_asked_for").await else { return };
    let mut one = rig.instance("r1");
    one.spec.env.insert("GREETING".into(), "a b=c".into());
    one.spec.sysctls.insert("net.ipv4.ip_forward".into(), "1".into());
    one.spec.sysctls.insert("net.ipv4.conf.all.rp_filter".into(), "2".into());
    one.spec.user = "1000:1000".into();
    one.spec.cap_add = vec!["NET_ADMIN".into()];
    one.spec.memory_limit_bytes = 32 << 20;
    one.spec.cpu_limit_millis = 250;
    one.spec.hostname = "router-1".into();
    one.host_entries = vec![HostEntry { address: "10.0.0.2".into(), names: vec!["r2".into()] }];
    rehash(&mut one);
    let running = rig.run(&one).await;
    let inside = async |script: &str| rig.sh(one.uid, script).await.0.trim().to_owned();
    assert_eq!(inside("echo $GREETING").await, "a b=c");
    assert_eq!(
        inside("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/all/rp_filter").await,
        "1\n2"
    );
    assert_eq!(inside("id -u").await, "1000");
    assert_eq!(inside("hostname").await, "router-1");
    assert_eq!(
        inside("cat /proc/1/cmdline").await,
        "/bin/sleep\x001000000\0",
        "the wait has become the program"
    );
    let hosts = inside("cat /etc/hosts").await;
    for line in ["127.0.0.1\tlocalhost", "127.0.1.1\trouter-1", "10.0.0.2\tr2"] {
        assert!(hosts.contains(line), "{line} in {hosts}");
    }
    let limits = connect()
        .await
        .unwrap()
        .inspect_container(&running.instance_id, None)
        .await
        .unwrap()
        .host_config
        .unwrap();
    assert_eq!((limits.memory, limits.nano_cpus), (Some(32 << 20), Some(250_000_000)));

    // Another neighbour reaches the running node, without a restart.
    one.host_entries[0].address = "10.0.0.22".into();
    rig.ensure(std::slice::from_ref(&one)).await;
    let changed = || async { rig.sh(one.uid, "cat /etc/hosts").await.0.contains("10.0.0.22\tr2") };
    eventually("the new address is inside", BOUND, changed).await;
    assert_eq!(rig.view.borrow().instances[&one.uid].start_id, running.start_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_lab_are_mounted_and_links_are_not_followed() {
    let Some(rig) = Rig::docker("files_of_the_lab_are_mounted_and_links_are_not_followed").await else {
        return;
    };
    let mut one = rig.instance("r1");
    one.files = vec![file("r1/conf", b"hello")];
    let bind = |path: &str, target: &str, read_only| Bind {
        source: BindSource::Bundle(path.into()),
        target: target.into(),
        read_only,
    };
    one.spec.binds = vec![bind("r1", "/etc/dir", false), bind("r1/conf", "/etc/one:file", true)];
    rehash(&mut one);
    rig.sync(std::slice::from_ref(&one)).await;
    let early = rig.until_phase(one.uid, Phase::Failed).await;
    assert!(early.detail.contains("not among the lab's files"), "{}", early.detail);
    let part = p::PutFilesRequest {
        lab_uid: rig.lab_uid.to_string(),
        file: Some(one.files[0].clone().into()),
        content: b"hello".to_vec(),
        term: 1,
        deploys: 0,
    };
    rig.client.clone().put_files(tokio_stream::once(part)).await.unwrap();
    rig.until_phase(one.uid, Phase::Running).await;
    let script = "cat /etc/dir/conf /etc/one:file; (echo x > /etc/one:file) 2>/dev/null || echo read-only; echo edited > /etc/dir/conf";
    let (text, code) = rig.sh(one.uid, script).await;
    assert!(text.contains("hellohello") && text.contains("read-only\n") && code == 0, "{text}");

    // A node that puts a link where its file was does not get the host's file at its next start.
    rig.sh(one.uid, "rm /etc/dir/conf; ln -s /etc/shadow /etc/dir/conf").await;
    let stop = |instance: &netloom_model::slice::Instance, wanted| {
        let mut changed = instance.clone();
        changed.wanted = wanted;
        changed
    };
    rig.ensure(&[stop(&one, Wanted::Stopped)]).await;
    rig.until_phase(one.uid, Phase::Stopped).await;
    rig.ensure(&[stop(&one, Wanted::Running)]).await;
    let failed = rig.until_phase(one.uid, Phase::Failed).await;
    assert!(failed.detail.contains("symbolic link"), "{}", failed.detail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_put_in_place_of_what_another_node_mounts_gets_nothing_of_the_host() {
    let test = "a_link_put_in_place_of_what_another_node_mounts_gets_nothing_of_the_host";
    let Some(rig) = Rig::docker(test).await else { return };
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&secret, "of the host").unwrap();
    let bind = |path: &str, target: &str| Bind {
        source: BindSource::Bundle(path.into()),
        target: target.into(),
        read_only: false,
    };
    let (mut one, mut two) = (rig.instance("r1"), rig.instance("r2"));
    one.spec.binds = vec![bind("d", "/d")];
    two.spec.binds = vec![bind("d/x", "/x"), bind("d", "/d")];
    let entry = file("d/x", b"of the lab");
    for node in [&mut one, &mut two] {
        node.files = vec![entry.clone()];
        rehash(node);
    }
    let part = p::PutFilesRequest {
        lab_uid: rig.lab_uid.to_string(),
        file: Some(entry.into()),
        content: b"of the lab".to_vec(),
        term: 1,
        deploys: 0,
    };
    rig.client.clone().put_files(tokio_stream::once(part)).await.unwrap();
    rig.sync(&[one.clone(), two.clone()]).await;
    rig.until_phase(one.uid, Phase::Running).await;
    let first = rig.until_phase(two.uid, Phase::Running).await;
    assert_eq!(rig.sh(two.uid, "cat /x").await.0, "of the lab");
    // The swap comes after netloom has looked, and before Docker opens what it was told to mount.
    let swap = format!("mv /d/x /d/y && ln -s {} /d/x", secret.path().display());
    assert_eq!(rig.sh(one.uid, &swap).await, (String::new(), 0));
    connect().await.unwrap().restart_container(&first.instance_id, None).await.unwrap();
    let anew =
        |o: &netloom_model::observed::Observed| o.phase == Phase::Running && o.start_id != first.start_id;
    rig.until_node(two.uid, "started anew", anew).await;
    assert_eq!(rig.sh(two.uid, "cat /x").await.0, "of the lab");
    // One that is in place when netloom looks is refused.
    two.wanted = Wanted::Stopped;
    rig.ensure(&[two.clone()]).await;
    rig.until_phase(two.uid, Phase::Stopped).await;
    two.wanted = Wanted::Running;
    rig.ensure(&[two.clone()]).await;
    let failed = rig.until_phase(two.uid, Phase::Failed).await;
    assert!(failed.detail.contains("symbolic link"), "{}", failed.detail);
    assert!(rig.remove(&[], &[rig.lab_uid]).await.is_empty());
    let left = std::fs::read_dir(rig.run_dir().join("binds")).unwrap().count();
    assert_eq!(left, 0, "nothing is held for nodes that are gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_never_ends_is_named() {
    let Some(rig) = Rig::docker("a_command_that_never_ends_is_named").await else { return };
    let mut one = rig.instance("r1");
    one.spec.exec = vec!["/bin/true".into(), "/bin/sleep 1000000".into()];
    let started = rig.run(&one).await;
    rig.settle(&started).await;
    let named = |o: &netloom_model::observed::Observed| {
        o.exec_phase == ExecPhase::Running
            && o.detail.starts_with("runs its exec command \"/bin/sleep 1000000\" since 20")
    };
    rig.until_node(one.uid, "names its command", named).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_not_there_is_told_as_a_shell_tells_it() {
    let Some(rig) = Rig::docker("a_command_that_is_not_there_is_told_as_a_shell_tells_it").await else {
        return;
    };
    let mut one = rig.instance("r1");
    one.spec.exec = vec!["nosuch --at-start".into()];
    rehash(&mut one);
    let started = rig.run(&one).await;
    for (program, why, code) in [
        ("nosuch", "r1: command not found: nosuch", 127),
        ("./nosuch", "r1: command not found: ./nosuch", 127),
        ("/etc/hosts", "r1: not executable: /etc/hosts", 126),
        ("/etc", "r1: not executable: /etc", 126),
    ] {
        assert_eq!(rig.exec(one.uid, &[program, "x"], false).await, (format!("{why}\n"), code));
        assert_eq!(rig.exec(one.uid, &[program, "x"], true).await, (format!("{why}\r\n"), code));
    }
    // What a command itself says stays as it is, however it looks.
    let (said, code) = rig.sh(one.uid, "echo 'OCI runtime exec failed: by me'; exit 126").await;
    assert_eq!((said.as_str(), code), ("OCI runtime exec failed: by me\n", 126));
    rig.settle(&started).await;
    let told = |o: &netloom_model::observed::Observed| {
        o.exec_error.contains("\"nosuch --at-start\" was not run: command not found: nosuch")
    };
    rig.until_node(one.uid, "says which command is not there", told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_paths_need_to_be_allowed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "from the host").unwrap();
    let config = format!("allowed_host_paths = [{:?}]\n", dir.path());
    let Some(rig) = Rig::docker_with("host_paths_need_to_be_allowed", &config).await else { return };
    let with = |node: &str, path: &str| {
        let mut one = rig.instance(node);
        one.spec.binds =
            vec![Bind { source: BindSource::Host(path.into()), target: "/f".into(), read_only: true }];
        rehash(&mut one);
        one
    };
    let allowed = with("r1", dir.path().join("f").to_str().unwrap());
    let (secret, socket) = (with("r2", "/etc/hostname"), with("r3", "/var/run/docker.sock"));
    rig.sync(&[allowed.clone(), secret.clone(), socket.clone()]).await;
    rig.until_phase(allowed.uid, Phase::Running).await;
    assert_eq!(rig.sh(allowed.uid, "cat /f").await.0, "from the host");
    for refused in [secret, socket] {
        let failed = rig.until_phase(refused.uid, Phase::Failed).await;
        assert!(failed.detail.contains("allowed_host_paths"), "{}", failed.detail);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_management_network_comes_with_the_first_node_and_goes_with_the_lab() {
    let Some(rig) = Rig::docker("a_management_network_comes_with_the_first_node_and_goes_with_the_lab").await
    else {
        return;
    };
    let name = format!("nltest-{}", rig.lab);
    // Of the range for documentation (RFC 5737), cut small so that tests side by side do not meet.
    let third = rig.owner.to_string().bytes().map(u32::from).sum::<u32>() % 32 * 8;
    let spec = MgmtSpec { ipv4_subnet: format!("203.0.113.{third}/29"), mtu: 1400, ..MgmtSpec::default() };
    let nodes: Vec<_> = [("r1", format!("203.0.113.{}", third + 5)), ("r2", String::new())]
        .into_iter()
        .map(|(node, address)| {
            let mut one = rig.instance(node);
            one.network = Some(Network { name: name.clone(), spec: spec.clone(), ..Network::default() });
            one.spec.mgmt_ipv4 = address;
            rehash(&mut one);
            one
        })
        .collect();
    rig.sync(&nodes).await;
    let fixed = rig.until_phase(nodes[0].uid, Phase::Running).await;
    let given = rig.until_phase(nodes[1].uid, Phase::Running).await;
    assert_eq!(fixed.mgmt_ipv4, nodes[0].spec.mgmt_ipv4);
    assert!(given.mgmt_ipv4.starts_with("203.0.113."), "{}", given.mgmt_ipv4);
    let link = rig.sh(nodes[0].uid, "ip link show eth0").await.0;
    assert!(link.contains("mtu 1400"), "{link}");
    let docker = connect().await.unwrap();
    assert!(docker.inspect_network(&name, None::<InspectNetworkOptions>).await.is_ok());
    assert!(rig.remove(&[], &[rig.lab_uid]).await.is_empty());
    assert!(docker.inspect_network(&name, None::<InspectNetworkOptions>).await.is_err(), "it is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_such_a_program_is_told_with_dockers_words() {
    let Some(rig) = Rig::docker("an_image_without_such_a_program_is_told_with_dockers_words").await else {
        return;
    };
    let mut one = rig.instance("r1");
    one.spec.entrypoint = vec!["/no/such/program".into()];
    one.spec.skip_interface_wait = true;
    rehash(&mut one);
    rig.sync(std::slice::from_ref(&one)).await;
    let failed = rig.until_phase(one.uid, Phase::Failed).await;
    assert!(failed.detail.contains("/no/such/program"), "{}", failed.detail);
    assert_eq!(failed.exec_phase, ExecPhase::None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_nothing_serves_fails_alone() {
    let Some(rig) = Rig::docker("a_runtime_that_nothing_serves_fails_alone").await else { return };
    let (mut machine, one) = (rig.instance("vm"), rig.instance("r1"));
    machine.runtime = Runtime::Libvirt;
    rig.sync(&[machine.clone(), one.clone()]).await;
    rig.until_phase(one.uid, Phase::Running).await;
    let failed = rig.until_phase(machine.uid, Phase::Failed).await;
    assert!(failed.detail.contains("libvirt"), "{}", failed.detail);
    assert!(rig.remove(&[machine.uid], &[]).await.is_empty());
    rig.until("gone", |v| !v.instances.contains_key(&machine.uid)).await;
}

/// What a node saves in its files was lost for good by a deploy that was cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_finds_its_edits_of_a_file_when_the_former_content_comes_back() {
    let Some(rig) = Rig::docker("a_node_finds_its_edits_of_a_file_when_the_former_content_comes_back").await
    else {
        return;
    };
    let mut one = rig.instance("r1");
    one.files = vec![rig.put("d/a.conf", b"one").await, rig.put("d/b.conf", b"b").await];
    let bind = |path: &str, target: &str| Bind {
        source: BindSource::Bundle(path.into()),
        target: target.into(),
        read_only: false,
    };
    one.spec.binds = vec![bind("d/a.conf", "/a.conf"), bind("d", "/d")];
    rehash(&mut one);
    rig.run(&one).await;
    let sh = async |script: &str| rig.sh(one.uid, script).await.0;
    sh("echo edited > /a.conf; chmod 600 /a.conf; echo own > /d/own").await;
    rig.put("d/a.conf", b"two").await;
    assert_eq!(sh("cat /a.conf /d/a.conf").await, "twotwo");
    let remove = p::RemoveFilesRequest {
        term: 1,
        lab_uid: rig.lab_uid.to_string(),
        directories: vec!["d".into()],
        files: vec!["d/a.conf".into()],
        deploys: 0,
    };
    let removed = rig.client.clone().remove_files(remove).await.unwrap().into_inner().removed;
    assert_eq!((removed, sh("ls /d").await), (1, "a.conf\nown\n".to_owned()));
    rig.put("d/a.conf", b"one").await;
    assert_eq!(
        sh("cat /a.conf; stat -c %a /a.conf").await,
        "edited\n600\n",
        "in place, in the mount of the file itself"
    );
}
