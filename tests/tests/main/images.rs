//! Images: pushed, looked at, used, removed; by the command line and over HTTP.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use netloom_tests::{Mode, Sandbox, container, eventually, run};
use serde_json::json;

const BOUND: Duration = Duration::from_secs(40);

/// A raw disk of this many MiB, with a partition table, and bytes in it that are those of no other.
fn disk(sandbox: &Sandbox, name: &str, mib: usize, fill: u8) -> PathBuf {
    let mut disk = vec![fill; mib << 20];
    disk[446..510].fill(0);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let path = sandbox.path().join(name);
    std::fs::write(&path, disk).unwrap();
    path
}

fn image(sandbox: &Sandbox, name: &str) -> serde_json::Value {
    sandbox.get(&format!("/v1/images/{name}")).map_or(serde_json::Value::Null, |r| r.body)
}

fn images_come_and_go(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let file = disk(&sandbox, "vyos-1.4.0.img", 3, 1);
    let path = file.to_str().unwrap();
    // What the file's name suggests is offered; where nobody can be asked it has to be said.
    let asked = sandbox.netloom(&["image", "push", path]);
    let offered = format!("netloom image push {path} vyos:1.4.0 --kind vyos");
    assert!(!asked.ok() && asked.stderr.contains(&offered), "{}", asked.stderr);
    let pushed =
        sandbox.netloom(&["image", "push", path, "-y", "--preferred", "--kind", "vyos=1.4.0"]).must();
    assert!(pushed.stdout.starts_with("Pushed vyos:1.4.0, raw: 3.0 MiB in "), "{}", pushed.stdout);
    let again = sandbox.netloom(&["image", "push", path, "router:1"]).must();
    assert!(again.stdout.contains("the store had its bytes already"), "{}", again.stdout);

    let listed = sandbox.netloom(&["image", "list"]).must().stdout;
    assert!(listed.lines().any(|l| l.starts_with("vyos:1.4.0") && l.contains("raw")), "{listed}");
    let shown = sandbox.netloom(&["image", "inspect", "vyos:1.4.0", "--verify"]).must().stdout;
    for part in ["Format          raw", "For kind        vyos 1.4.0, preferred", "Size            3.0 MiB"] {
        assert!(shown.contains(part), "{shown}");
    }

    let wrong = disk(&sandbox, "packed.img", 1, 2);
    std::fs::write(&wrong, b"\x1f\x8b\x08 packed").unwrap();
    let refused = sandbox.netloom(&["image", "push", wrong.to_str().unwrap(), "bad:1"]);
    assert!(
        refused.stderr.contains("IMAGE_NOT_SUPPORTED") && refused.stderr.contains("gunzip"),
        "{}",
        refused.stderr
    );
    let whole = sandbox.netloom(&["image", "push", sandbox.path().to_str().unwrap(), "bad:1"]);
    assert!(whole.stderr.contains("is a directory") && whole.stderr.contains("tar -C"), "{}", whole.stderr);
    std::fs::write(&wrong, vec![7; 4096]).unwrap();
    let unclear = sandbox.netloom(&["image", "push", wrong.to_str().unwrap(), "bad:1"]);
    assert!(
        unclear.stderr.contains("IMAGE_FORMAT_UNKNOWN") && unclear.stderr.contains("--content raw"),
        "{}",
        unclear.stderr
    );
    let missing = sandbox.netloom(&["image", "push", "/no/such/file", "bad:1"]);
    assert!(missing.stderr.contains("there is no file /no/such/file"), "{}", missing.stderr);

    let kept = sandbox.netloom(&["image", "gc", "--unused"]).must().stdout;
    assert!(kept.contains("images/router:1") && kept.contains("say --yes"), "{kept}");
    sandbox.netloom(&["image", "rm", "router:1"]).must();
    assert!(image(&sandbox, "vyos:1.4.0")["stored"].is_object(), "another image has the same bytes");
    let gone = sandbox.netloom(&["image", "gc", "--unused", "-y"]).must().stdout;
    assert!(gone.contains("images/vyos:1.4.0") && gone.contains("makes 3.0 MiB of room"), "{gone}");
    let nothing = sandbox.netloom(&["image", "gc"]).must().stdout;
    assert_eq!(nothing, "There is nothing that nothing needs\n");
}

fn an_image_that_a_lab_uses_stays(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("uses");
    sandbox.deploy(&crate::line(&lab, 1));
    sandbox.netloom(&["image", "push", crate::IMAGE]).must();
    let stored = image(&sandbox, crate::IMAGE)["stored"].clone();
    assert_eq!(stored["format"], "IMAGE_FORMAT_DOCKER_ARCHIVE", "{stored}");
    let refused = sandbox.netloom(&["image", "rm", crate::IMAGE]);
    assert!(refused.stderr.contains("IMAGE_IN_USE") && refused.stderr.contains(&lab), "{}", refused.stderr);
    sandbox.netloom(&["image", "gc", "--unused", "-y"]).must();
    assert!(image(&sandbox, crate::IMAGE)["stored"].is_object());
    sandbox.netloom(&["destroy", &lab, "-y"]).must();
    sandbox.netloom(&["image", "rm", crate::IMAGE]).must();
}

/// A name in Docker's store, gone with the value.
struct Tag(String);

impl Drop for Tag {
    fn drop(&mut self) {
        run("docker", &["rmi", &self.0]);
    }
}

/// A node without an image gets the one that stands for its kind, which the lab then uses as one that it names.
fn an_image_stands_for_its_kind(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("stands");
    let tag = Tag(format!("nltest-{lab}:1"));
    let name = tag.0.as_str();
    sandbox.netloom(&["image", "push", crate::IMAGE, name, "--kind", "linux", "--preferred"]).must();
    sandbox.deploy(&format!("name: {lab}\ntopology:\n  nodes:\n    n1: {{kind: linux}}\n"));
    let node = sandbox.get(&format!("/v1/labs/{lab}/nodes/n1")).expect("the node").body;
    let ids = image(&sandbox, name)["stored"]["imageIds"].clone();
    sandbox.netloom(&["destroy", &lab, "-y"]).must();
    assert_eq!(node["image"], name, "{node}");
    assert_eq!(ids[0], node["imageDigest"], "{node}");
}

/// An image comes to a host when a node is placed there, not when the node may begin at last.
fn an_image_comes_when_its_node_is_placed(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("early");
    let tag = Tag(format!("nltest-{lab}:1"));
    let name = tag.0.as_str();
    sandbox.netloom(&["image", "push", crate::IMAGE, name]).must();
    let is_here = || run("docker", &["image", "inspect", name]).ok();
    assert!(!is_here(), "it is in the registry only");
    let text = format!(
        "name: {lab}\ntopology:\n  defaults: {{kind: linux}}\n  nodes:\n    n1:\n      image: {}\n      image-pull-policy: Never\n      healthcheck: {{test: [CMD-SHELL, \"test -e /go\"], interval: 1, retries: 100}}\n    n2:\n      image: {name}\n      stages: {{create: {{wait-for: [{{node: n1, stage: healthy}}]}}}}\n",
        crate::IMAGE
    );
    let file = sandbox.write("early.clab.yml", &text).display().to_string();
    let mut deploy = sandbox.command();
    let mut deploy = deploy.args(["deploy", "-t", &file]).stdout(Stdio::null()).spawn().expect("netloom");
    eventually("its image is here", BOUND, is_here);
    eventually("the other node runs", BOUND, || sandbox.netloom(&["exec", &lab, "n1", "--", "true"]).ok());
    assert_eq!(container(&sandbox, &lab, "n2"), None, "it waits for its turn");
    sandbox.netloom(&["exec", &lab, "n1", "--", "touch", "/go"]).must();
    assert!(deploy.wait().expect("it ends").success());
    assert!(container(&sandbox, &lab, "n2").is_some());
    sandbox.netloom(&["destroy", &lab, "-y"]).must();
}

/// A registry on loopback, gone with the value.
struct Registry(Child);

impl Registry {
    /// In this network namespace, or where this test is; with users, only for those in the file. It keeps all in this directory.
    fn start(sandbox: Option<&Sandbox>, dir: &Path, address: &str, users: &str) -> Registry {
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {:?}}}}}\nhttp: {{addr: {address:?}}}\n",
            dir.join("data")
        );
        if !users.is_empty() {
            let file = dir.join("htpasswd");
            std::fs::write(&file, users).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: test, path: {file:?}}}}}\n");
        }
        let file = dir.join("config.yml");
        std::fs::write(&file, config).unwrap();
        let program = "docker-registry";
        let mut command = sandbox.map_or_else(|| Command::new(program), |s| s.in_namespace(program));
        let command = command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        Registry(command.spawn().expect("docker-registry is installed"))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A password, and what bcrypt makes of it.
const PASSWORD: &str = "not-a-secret";
const USERS: &str = "me:$2b$05$abcdefghijklmnopqrstuuVPNOToLP9MHdthRCXkVoiIF0qNKnk2G\n";

/// A lab runs what was pulled from a registry that wants to know who asks.
fn an_image_is_pulled_with_the_right_password_only(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("pulled");
    let dir = sandbox.path().join("registry");
    std::fs::create_dir(&dir).unwrap();
    // It is filled by the machine's Docker, where everybody may, and asked where netloom's loopback is.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let tag = Tag(format!("127.0.0.1:{port}/lab/test:1"));
    {
        let _filled = Registry::start(None, &dir, &format!("127.0.0.1:{port}"), "");
        run("docker", &["tag", crate::IMAGE, &tag.0]).must();
        eventually("it is filled", BOUND, || run("docker", &["push", "-q", &tag.0]).ok());
    }
    let _registry = Registry::start(Some(&sandbox), &dir, "127.0.0.1:5000", USERS);
    let source = "127.0.0.1:5000/lab/test:1";
    let mine = Tag(format!("nltest-{lab}:1"));
    let pull = |password: &str| {
        let auth = json!({"auths": {"127.0.0.1:5000": {"auth": base64(&format!("me:{password}"))}}});
        let file = sandbox.write("auth.json", &auth.to_string()).display().to_string();
        sandbox.netloom(&["image", "pull", source, &mine.0, "--auth-file", &file])
    };
    let mut refused = pull("wrong");
    eventually("the registry answers", BOUND, || {
        refused = pull("wrong");
        !refused.stderr.contains("PULL_FAILED")
    });
    assert!(!refused.ok() && refused.stderr.contains("REGISTRY_DENIED"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("wrong"), "{}", refused.stderr);
    let unknown = sandbox.netloom(&["image", "pull", source, &mine.0]);
    assert!(unknown.stderr.contains("REGISTRY_DENIED"), "{}", unknown.stderr);
    assert!(image(&sandbox, &mine.0)["stored"].is_null(), "nothing came of that");
    pull(PASSWORD).must();
    let stored = image(&sandbox, &mine.0)["stored"].clone();
    assert_eq!(stored["format"], "IMAGE_FORMAT_DOCKER_ARCHIVE", "{stored}");
    let text = format!("name: {lab}\ntopology:\n  nodes:\n    n1: {{kind: linux, image: {}}}\n", mine.0);
    sandbox.deploy(&text);
    assert_eq!(sandbox.node_json(&lab, "n1")["imageDigest"], stored["imageIds"][0]);
    sandbox.netloom(&["destroy", &lab, "-y"]).must();
}

fn base64(text: &str) -> String {
    netloom_tests::run_with_input(Command::new("base64").arg("-w0"), text).must().stdout
}

/// A push that is killed in the middle, also together with the server, goes on where it was.
fn a_push_that_was_cut_goes_on(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    // So large that it is not all there before it is cut.
    let file = disk(&sandbox, "large.img", 1, 3);
    std::fs::File::options().write(true).open(&file).unwrap().set_len(256 << 20).unwrap();
    let path = file.to_str().unwrap();
    let uploads = sandbox.data_dir().join("image-registry/uploads");
    let far = || {
        let files = std::fs::read_dir(&uploads).map(|d| d.flatten().collect::<Vec<_>>()).unwrap_or_default();
        files.iter().filter_map(|f| Some(f.metadata().ok()?.len())).sum::<u64>()
    };
    let mut push = sandbox.command();
    let mut push = push.args(["image", "push", path, "large:1"]).spawn().expect("netloom");
    eventually("some of it has come", BOUND, || far() > 1 << 20);
    push.kill().expect("killed");
    push.wait().expect("ended");
    assert!(far() > 0, "it was cut, not done");
    sandbox.crash();
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    let pushed = sandbox.netloom(&["image", "push", path, "large:1"]).must();
    assert!(pushed.stderr.contains("Goes on at ") && pushed.stdout.contains("the last "), "{pushed:?}");
    assert_eq!(far(), 0);
    sandbox.netloom(&["image", "inspect", "large:1", "--verify"]).must();
}

/// What `docs/images.md` says of HTTP, with curl.
fn an_upload_over_http_goes_on_at_its_offset(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let file = disk(&sandbox, "disk.img", 3, 4);
    let curl = |arguments: &[&str], path: &str| {
        let socket = sandbox.socket();
        let mut curl = vec!["-sS", "--unix-socket", socket.to_str().unwrap()];
        curl.extend(arguments);
        let url = format!("http://localhost{path}");
        curl.push(&url);
        let said = run("curl", &curl).must().stdout;
        serde_json::from_str::<serde_json::Value>(&said).unwrap_or_else(|e| panic!("{e}: {said}"))
    };
    let json = ["-H", "Content-Type: application/json", "-d"];
    let wanted = json!({"reference": "disk:1", "sizeBytes": (3 << 20).to_string()}).to_string();
    let upload = curl(&[&json[..], &[&wanted]].concat(), "/v1/uploads");
    let name = upload["name"].as_str().unwrap().to_owned();
    let bytes = std::fs::read(&file).unwrap();
    let mut offset = 0;
    for end in [1_000_003, 3 << 20] {
        let part = sandbox.path().join("part");
        std::fs::File::create(&part).unwrap().write_all(&bytes[offset..end]).unwrap();
        let data = format!("@{}", part.display());
        let put = ["-X", "PUT", "-H", "Content-Type: application/octet-stream", "--data-binary", &data];
        let now = curl(&put, &format!("/v1/{name}?offset={offset}"));
        assert_eq!(now["offset"], end.to_string(), "{now}");
        offset = end;
    }
    let wrong = curl(
        &["-X", "PUT", "-H", "Content-Type: application/octet-stream", "--data-binary", "x"],
        &format!("/v1/{name}?offset=7"),
    );
    assert_eq!(wrong["details"][0]["reason"], "UPLOAD_OFFSET_MISMATCH", "{wrong}");
    let image = curl(&[&json[..], &["{}"]].concat(), &format!("/v1/{name}:finish"));
    assert_eq!(image["stored"]["format"], "IMAGE_FORMAT_RAW", "{image}");
}

in_both_modes!(
    images_come_and_go,
    an_image_that_a_lab_uses_stays,
    an_image_stands_for_its_kind,
    an_image_comes_when_its_node_is_placed,
    an_image_is_pulled_with_the_right_password_only,
    a_push_that_was_cut_goes_on,
    an_upload_over_http_goes_on_at_its_offset,
);
