//! What needs no server: validate, doctor, version, usage.

use std::path::Path;

use crate::fake::{Fake, Script, command, finish};

const GOOD: &str = "name: x\nmgmt: {}\ntopology:\n  nodes:\n    a: {kind: linux, image: a:1}\n";
const BAD: &str = "name: x\ntopology:\n  nodez:\n    a: {kind: linux, image: a:1}\n";

async fn run(directory: &Path, args: &[&str]) -> crate::fake::Ended {
    finish(command(directory, args), b"").await
}

#[tokio::test]
async fn validate_tells_good_from_bad() {
    let dir = tempfile::tempdir().unwrap();
    let none = run(dir.path(), &["validate"]).await.expect(2);
    assert!(none.err.contains("-t"), "{}", none.err);
    std::fs::write(dir.path().join("good.clab.yml"), GOOD).unwrap();
    let good = run(dir.path(), &["validate"]).await.expect(0);
    assert_eq!(good.out, "good.clab.yml is valid: lab x, 1 node, 0 links\n");

    let without_mgmt = GOOD.replace("mgmt: {}\n", "");
    std::fs::write(dir.path().join("good.clab.yml"), without_mgmt).unwrap();
    let quiet = run(dir.path(), &["validate"]).await.expect(0);
    assert_eq!(quiet.out, good.out, "what merely informs is not shown");
    let verbose = run(dir.path(), &["validate", "-v"]).await.expect(0);
    assert!(verbose.out.contains("[NO_MGMT]"), "{}", verbose.out);

    std::fs::write(dir.path().join("bad.yml"), BAD).unwrap();
    let bad = run(dir.path(), &["validate", "bad.yml"]).await.expect(1);
    assert!(bad.out.contains("bad.yml:3:3: error: ") && bad.out.contains("\n   |   ^\n"), "{}", bad.out);
    let json = run(dir.path(), &["validate", "bad.yml", "--format", "json"]).await.expect(1);
    let value: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(value["valid"], false);
    let codes: Vec<&str> =
        value["diagnostics"].as_array().unwrap().iter().filter_map(|d| d["code"].as_str()).collect();
    assert!(codes.contains(&"UNKNOWN_KEY"), "{codes:?}");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_not_valid_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("latin.clab.yml"), b"name: x\n\xff\n").unwrap();
    let made = std::process::Command::new("mkfifo").arg(dir.path().join("pipe.clab.yml")).status().unwrap();
    assert!(made.success());
    for (file, part) in [
        ("latin.clab.yml", "not UTF-8"),
        ("missing.clab.yml", "cannot be read"),
        ("pipe.clab.yml", "is no file"),
    ] {
        let json = run(dir.path(), &["validate", file, "--format", "json"]).await.expect(1);
        let value: serde_json::Value = serde_json::from_str(&json.out).unwrap();
        assert_eq!((&value["valid"], &value["file"]), (&false.into(), &file.into()), "{value}");
        assert_eq!(value["diagnostics"][0]["code"], "FILE_UNREADABLE", "{value}");
        assert!(value["diagnostics"][0]["message"].as_str().unwrap().contains(part), "{value}");
        let text = run(dir.path(), &["validate", file]).await.expect(1);
        assert!(text.out.contains(part) && text.out.contains("[FILE_UNREADABLE]"), "{}", text.out);
    }
}

#[tokio::test]
async fn validate_looks_at_the_nodes_that_the_filter_names() {
    let dir = tempfile::tempdir().unwrap();
    let text = "name: x\ntopology:\n  nodes:\n    a: {kind: frr}\n    b: {kind: nothing}\n  links:\n    - endpoints: [a:eth1, b:eth1]\n";
    std::fs::write(dir.path().join("x.clab.yml"), text).unwrap();
    run(dir.path(), &["validate"]).await.expect(1);
    let good = run(dir.path(), &["validate", "--node-filter", "a"]).await.expect(0);
    assert!(good.out.contains("1 node, 0 links"), "{}", good.out);
    let bad = run(dir.path(), &["validate", "--node-filter", "a,c", "--format", "json"]).await.expect(1);
    let said: serde_json::Value = serde_json::from_str(&bad.out).unwrap();
    assert_eq!(said["diagnostics"][0]["code"], "NODE_FILTER", "{said}");
}

#[tokio::test]
async fn validate_knows_kinds_of_ones_own() {
    let dir = tempfile::tempdir().unwrap();
    let text = GOOD.replace("kind: linux", "kind: mine");
    std::fs::write(dir.path().join("x.clab.yml"), text).unwrap();
    run(dir.path(), &["validate"]).await.expect(1);
    let kind = "name = \"mine\"\ndescription = \"d\"\nruntime = \"docker\"\nverified = false\nsource = \"s\"\n\
                [interfaces]\npattern = \"eth{n}\"\nfirst = 1\nmax = 4\n";
    std::fs::create_dir(dir.path().join("kinds")).unwrap();
    std::fs::write(dir.path().join("kinds/mine.toml"), kind).unwrap();
    run(dir.path(), &["validate", "--kinds-dir", "kinds"]).await.expect(0);
    run(dir.path(), &["validate", "--kinds-dir", "nowhere"]).await.expect(5);
}

#[tokio::test]
async fn doctor_looks_where_the_configuration_has_its_data_and_its_server() {
    let fake = Fake::start(Script::default()).await;
    let data = fake.dir.path().join("data");
    let text = format!("data_dir = {data:?}\nrun_dir = {:?}\n", fake.dir.path());
    let config = fake.write("netloom.toml", &text);
    let mut command =
        fake.command(&["doctor", "--format", "json", "--config", config.to_str().unwrap(), "disk", "server"]);
    command.env_remove("NETLOOM_ENDPOINT");
    let ended = finish(command, b"").await;
    let value: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    let checks = value["checks"].as_array().unwrap();
    let evidence = |name: &str| {
        let check = checks.iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("{name}"));
        check["evidence"].as_str().unwrap().to_owned()
    };
    assert!(evidence("disk").contains(data.to_str().unwrap()), "{}", evidence("disk"));
    let server = evidence("server");
    assert!(server.contains("Docker does not answer") || server.contains(&fake.endpoint), "{server}");
    let wrong = fake.write("wrong.toml", "[netwrok]\n");
    let ended = fake.run(&["doctor", "--config", wrong.to_str().unwrap()]).await.expect(5);
    assert!(ended.err.contains("wrong.toml:1: there is no key netwrok. Did you mean"), "{}", ended.err);
}

#[tokio::test]
async fn doctor_fails_where_docker_is_missing_and_says_what_to_do() {
    let fake = Fake::start(Script::default()).await;
    let missing = fake.dir.path().join("docker.sock");
    let config = fake.write("netloom.toml", &format!("[compute]\ndocker_socket = {missing:?}\n"));
    let args = ["doctor", "--format", "json", "--config", config.to_str().unwrap()];
    let args = [&args[..], &["docker", "datapath", "capabilities", "veth", "disk", "lvm", "server"]].concat();
    let ended = fake.run(&args).await.expect(1);
    let value: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(value["ok"], false);
    let checks = value["checks"].as_array().unwrap();
    let check = |name: &str| checks.iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("{name}"));
    assert_eq!(check("docker")["status"], "FAIL");
    assert!(check("docker")["evidence"].as_str().unwrap().contains(missing.to_str().unwrap()));
    assert!(check("docker")["fix"].as_str().unwrap().contains("install"));
    assert_eq!(check("server")["status"], "WARN");
    assert!(check("server")["evidence"].as_str().unwrap().contains("Docker does not answer"));
    for check in checks {
        assert_eq!(check["status"] == "OK", check["fix"] == "", "{check}");
    }
}

#[tokio::test]
async fn version_says_what_answers() {
    let fake = Fake::start(Script::default()).await;
    let ended = fake.run(&["version"]).await.expect(0);
    let expected = format!(
        "netloom {}\nserver: answers at {}\nhost local: \n",
        env!("CARGO_PKG_VERSION"),
        fake.endpoint
    );
    assert_eq!(ended.out, expected);
    let dir = tempfile::tempdir().unwrap();
    let endpoint = format!("unix:{}/none.sock", dir.path().display());
    let ended = run(dir.path(), &["version", "--endpoint", &endpoint]).await.expect(0);
    assert!(ended.out.ends_with("server: none answers\n"), "{}", ended.out);
}

#[tokio::test]
async fn wrong_usage_is_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &["deplyo"]).await.expect(2);
    run(dir.path(), &[]).await.expect(2);
    run(dir.path(), &["--help"]).await.expect(0);
}
