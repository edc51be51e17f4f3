//! Images that hold a virtual machine and QEMU, as vrnetlab makes them: they run as plain containers, as they are.

use std::path::Path;
use std::time::Duration;

use netloom_tests::{Mode, Sandbox, docker, eventually, run};

use crate::IMAGE;

const BOUND: Duration = Duration::from_secs(60);

/// Acts as the launch.py of vrnetlab: waits until it has as many interfaces as it is told, joins each with a tap, has a QEMU whose serial console listens at port 5000, and says in /health how
/// far it is. Its router answers at what its first interface is joined to, since there is no machine.
const LAUNCH: &str = r#"#!/bin/sh
echo "1 starting" >/health
echo "launched with: $*"
echo "told of $CLAB_INTFS interfaces"
until [ "$(ls -d /sys/class/net/eth* | wc -l)" -gt "$CLAB_INTFS" ]; do sleep 5; done
for nic in /sys/class/net/eth*; do
    n=${nic##*/eth}
    [ "$n" = 0 ] && continue
    tunctl -t "tap$n" && brctl addbr "br$n" && brctl addif "br$n" "eth$n" && brctl addif "br$n" "tap$n"
    ip link set "tap$n" up && ip link set "br$n" up && echo "joined eth$n with tap$n"
done
ip addr add 10.0.0.1/24 dev br1
accel=tcg
[ -e /dev/kvm ] && accel=kvm
qemu-system-x86_64 -F -p 5000 -l /router &
echo "a machine runs by $accel"
sleep 2
echo "0 running" >/health
echo "Startup complete in: 0:00:02"
wait
"#;

/// Its telnetd is called as QEMU is.
const DOCKERFILE: &str = r#"
COPY launch router healthcheck qemu-system-x86_64 /usr/bin/
RUN ["/bin/busybox", "ln", "-s", "/usr/bin/router", "/router"]
EXPOSE 22 5000
HEALTHCHECK --interval=500ms --retries=1 CMD ["/usr/bin/healthcheck"]
ENTRYPOINT ["/usr/bin/launch"]
"#;
const ROUTER: &str = "#!/bin/sh\necho 'vr login: '\nread -r name\necho \"welcome, $name\"\n";
const HEALTHCHECK: &str = "#!/bin/sh\nread -r code what </health\necho \"$what\"\nexit \"$code\"\n";
const QEMU: &str = "#!/bin/sh\nexec telnetd \"$@\"\n";

/// An image on this machine, until dropped.
struct Image(String);

impl Image {
    fn build(dir: &Path, name: String) -> Image {
        for (file, text) in [
            ("launch", LAUNCH),
            ("router", ROUTER),
            ("healthcheck", HEALTHCHECK),
            ("qemu-system-x86_64", QEMU),
        ] {
            std::fs::write(dir.join(file), text).expect("a file");
            run("chmod", &["755", &dir.join(file).display().to_string()]).must();
        }
        std::fs::write(dir.join("Dockerfile"), format!("FROM {IMAGE}{DOCKERFILE}")).expect("a file");
        docker(&["build", "-q", "-t", &name, &dir.display().to_string()]).must();
        Image(name)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        docker(&["image", "rm", "-f", &self.0]);
    }
}

#[test]
fn an_image_of_vrnetlab_s_kind_runs_as_a_plain_container() {
    if !crate::real("main::vrnetlab::an_image_of_vrnetlab_s_kind_runs_as_a_plain_container") {
        return;
    }
    // It does without KVM where the host has none.
    let kvm = if Path::new("/dev/kvm").exists() { ", \"/dev/kvm\"" } else { "" };
    let more = format!("[compute]\ndevices = [\"/dev/net/tun\"{kvm}]\n");
    let sandbox = Sandbox::start_with(Mode::One, &more);
    let files = tempfile::tempdir().expect("a directory");
    let image = Image::build(files.path(), format!("netloom-test/vr:{}", sandbox.bridge()));
    let lab = sandbox.lab("vr");
    // An interface is left out: the machine's NICs have to be in the right places all the same.
    let said = sandbox.deploy(&format!(
        "name: {lab}\nmgmt: {{}}\ntopology:\n  defaults: {{kind: linux, image-pull-policy: Never}}\n  nodes:\n    vr:\n      image: {}\n      \
         cmd: --username admin --hostname vr --connection-mode bridge\n      devices: [\"/dev/net/tun\"{kvm}]\n    h: {{image: {IMAGE}}}\n  links:\n    \
         - {{endpoints: [\"vr:eth1\", \"h:eth1\"], ipv4: [\"\", 10.0.0.2/24]}}\n    - endpoints: [\"vr:eth3\", \"h:eth2\"]\n",
        image.0
    ));
    assert!(said.stdout.contains("vr  READY"), "{}", said.stdout);
    let node = || sandbox.node_json(&lab, "vr");
    assert_eq!(node()["runtime"], "RUNTIME_DOCKER");
    // Its own health check tells when the machine inside has booted.
    eventually("its machine has booted", BOUND, || node()["health"] == "healthy");
    let log = || sandbox.netloom(&["logs", &lab, "vr"]).must().stdout;
    let accel = if kvm.is_empty() { "runs by tcg" } else { "runs by kvm" };
    for line in [
        "launched with: --username admin --hostname vr --connection-mode bridge",
        "told of 2 interfaces",
        "joined eth1 with tap1",
        "joined eth3 with tap3",
        accel,
    ] {
        assert!(log().contains(line), "{line:?} is not in {}", log());
    }
    // Its console, and its links.
    let console = "(sleep 1; echo admin; sleep 1) | telnet 127.0.0.1 5000";
    let console = sandbox.netloom(&["exec", &lab, "vr", "--", "sh", "-c", console]).stdout;
    assert!(console.contains("vr login:") && console.contains("welcome, admin"), "{console}");
    let ping = ["exec", &lab, "h", "--", "ping", "-c", "1", "-W", "1", "10.0.0.1"];
    eventually("its router answers", BOUND, || sandbox.netloom(&ping).ok());

    // After a link is gone it does not wait for it, which is what a count that stays would have it do.
    sandbox.netloom(&["link", "remove", &lab, "h:eth2--vr:eth3"]).must();
    sandbox.netloom(&["node", "restart", &lab, "vr"]).must();
    let again = || log().contains("told of 1 interfaces") && log().matches("Startup complete").count() == 2;
    eventually("it starts again with what it has", BOUND, again);
    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
}
