//! What `make install` puts in place works, and `make uninstall` takes away what it put there and nothing else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use netloom_tests::{Installed, Output, Sandbox, binaries, eventually, rights_of, run, run_with_input};

use super::docs::root;
use crate::line;

/// For what ends by itself in no time.
const BOUND: Duration = Duration::from_secs(20);
const ETC: &str = "etc/netloom/netloom.toml";
const UNIT: &str = "usr/local/lib/systemd/system/netloomd.service";

/// The script behind `make install`, with the programs that were built for the tests.
fn script(word: &str, destdir: &Path, more: &[(&str, &str)]) -> Output {
    let mut command = Command::new(root().join("scripts/install.sh"));
    for key in ["PREFIX", "SYSTEMDUNITDIR", "PROGRAMS", "PROFILE", "PURGE"] {
        command.env_remove(key);
    }
    command.arg(word).env("DESTDIR", destdir).env("BUILT", binaries()).envs(more.iter().copied());
    run_with_input(&mut command, "")
}

/// All files and directories below, by their paths from there; directories end in a slash.
fn all_below(top: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut directories = vec![top.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(top).expect("below").display().to_string();
            if path.is_dir() {
                found.insert(name + "/");
                directories.push(path);
            } else {
                found.insert(name);
            }
        }
    }
    found
}

#[test]
fn what_is_installed_runs_a_lab_with_the_rights_of_its_unit_and_goes_without_a_trace() {
    if !crate::real(
        "main::install::what_is_installed_runs_a_lab_with_the_rights_of_its_unit_and_goes_without_a_trace",
    ) {
        return;
    }
    let stage = tempfile::tempdir().expect("a directory");
    let top = stage.path().join("stage");
    let said = script("install", &top, &[]).must().stdout;
    let there = all_below(&top);
    for file in [
        "usr/local/bin/netloom",
        "usr/local/bin/netloomd",
        "usr/local/bin/netloom-host",
        UNIT,
        "usr/local/lib/systemd/system/netloom-host.service",
        "usr/local/share/bash-completion/completions/netloom-host",
        "usr/local/share/man/man8/netloom-host.8",
        "usr/local/lib/sysusers.d/netloom.conf",
        "usr/local/lib/tmpfiles.d/netloom.conf",
        "usr/local/share/bash-completion/completions/netloom",
        "usr/local/share/zsh/site-functions/_netloom",
        "usr/local/share/fish/vendor_completions.d/netloom.fish",
        "usr/local/share/man/man1/netloom.1",
        "usr/local/share/man/man1/netloom-deploy.1",
        "usr/local/share/netloom/examples/ospf-triangle.clab.yml",
        "usr/local/share/netloom/kinds/frr.toml",
        "usr/local/share/netloom/installed",
        ETC,
        "etc/netloom/kinds/",
    ] {
        assert!(there.contains(file), "{file} is not among {there:#?}");
    }
    assert!(!there.contains("usr/local/bin/netloom-gateway"), "the five programs are for those who ask");
    assert!(!said.contains("usermod"), "below DESTDIR nothing is said of this machine: {said}");
    // The manifest is the whole truth, but for the configuration, which is the user's.
    let manifest =
        std::fs::read_to_string(top.join("usr/local/share/netloom/installed")).expect("a manifest");
    let listed: BTreeSet<String> = manifest
        .lines()
        .map(|l| match l.split_once(" /").expect("a kind and a path") {
            ("dir", path) => format!("{path}/"),
            ("file", path) => path.to_owned(),
            other => panic!("{other:?}"),
        })
        .collect();
    let installed: BTreeSet<String> = there.iter().filter(|p| !p.starts_with("etc/")).cloned().collect();
    assert_eq!(listed, installed);

    // The installed program, the installed configuration, and no more rights than the unit gives.
    let unit = std::fs::read_to_string(top.join(UNIT)).expect("a unit");
    assert!(unit.contains("ExecStart=/usr/local/bin/netloomd\n"), "{unit}");
    let sandbox = Sandbox::start_installed(Installed {
        bin: top.join("usr/local/bin"),
        config: top.join(ETC),
        kinds_dir: top.join("etc/netloom/kinds"),
        through: rights_of(&unit),
    });
    let lab = sandbox.lab("installed");
    let text = line(&lab, 2) + "    - endpoints: [\"n1:eth5\", \"sw:p1\"]\n";
    let more = "  nodes:\n    sw: {kind: bridge}\n    u1: {user: \"65534\"}\n";
    sandbox.deploy(&text.replacen("  nodes:\n", more, 1));
    a_command_of_another_user_ends_with_its_caller(&sandbox, &lab);
    sandbox.netloom(&["exec", &lab, "n1", "--", "ping", "-c", "1", "-W", "5", "10.0.1.2"]).must();
    let ping = ["exec", &lab, "n1", "--", "ping", "-w", "5", "10.0.1.2"];
    std::thread::scope(|scope| {
        scope.spawn(|| sandbox.netloom(&ping));
        let file = sandbox.path().join("ping.pcapng").display().to_string();
        sandbox
            .netloom(&["capture", &lab, "n2:eth1", "--count", "2", "--duration", "20s", "-o", &file])
            .must();
        let captured = std::fs::read(&file).expect("a capture");
        assert!(captured.len() > 200, "two packets and the head of a capture: {} bytes", captured.len());
    });
    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
    drop(sandbox);

    // What the user wrote stays, what was installed goes.
    std::fs::write(top.join(ETC), "host = \"mine\"\n").expect("a configuration");
    let again = script("install", &top, &[]).must().stdout;
    assert!(again.contains("left as it is"), "{again}");
    assert_eq!(all_below(&top), there, "installed again, it is the same");
    assert_eq!(std::fs::read_to_string(top.join(ETC)).expect("a configuration"), "host = \"mine\"\n");
    let said = script("uninstall", &top, &[]).must().stdout;
    assert!(said.contains("PURGE=1"), "{said}");
    let left: Vec<String> = all_below(&top).into_iter().filter(|p| !p.ends_with('/')).collect();
    assert_eq!(left, [ETC]);
    assert!(!script("uninstall", &top, &[]).ok(), "there is nothing to remove any more");
    script("install", &top, &[]).must();
    script("uninstall", &top, &[("PURGE", "1")]).must();
    assert_eq!(all_below(&top), BTreeSet::new());
}

/// What is said in a unit, by one of its keys.
fn said<'u>(unit: &'u str, key: &str) -> Vec<&'u str> {
    unit.lines().filter_map(|l| l.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// The units of the programs that run nodes.
fn units_of_hosts() -> [(&'static str, String); 2] {
    ["netloomd", "netloom-host"].map(|name| {
        let file = root().join(format!("deploy/systemd/{name}.service"));
        (name, std::fs::read_to_string(file).expect("a unit"))
    })
}

/// Its rights were too few for trying KVM as libvirt's user, and every machine of an installed netloom was emulated.
#[test]
fn kvm_can_be_tried_as_libvirts_user_with_the_rights_of_the_units() {
    const PROBE: &str = "NETLOOM_TEST_PROBE";
    let test = "main::install::kvm_can_be_tried_as_libvirts_user_with_the_rights_of_the_units";
    // `nobody`, as Debian has it.
    let user = (65534, 65534);
    if let Some(program) = std::env::var_os(PROBE) {
        // Whether KVM works here is not asked: the device is a file, and the emulator is a script that ends like a guest does that has booted.
        let program = PathBuf::from(program);
        let emulator = netloom_kvm::Emulator { program: program.clone(), runs_as: Some(user) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        assert_eq!(runtime.block_on(netloom_kvm::works(&program, &emulator)), Ok(()));
        return;
    }
    if !crate::real(test) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("emulator");
    let disk = r#"disk=${!#}; disk=${disk#file=}; echo >"${disk%%,*}""#;
    let script =
        format!("#!/bin/bash\nset -e\n[ $(id -u):$(id -g) = {}:{} ]\n{disk}\nexit 33\n", user.0, user.1);
    std::fs::write(&program, script).expect("a script");
    for path in [dir.path(), &program] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("its mode");
    }
    let myself = std::env::current_exe().expect("this program").display().to_string();
    for (name, unit) in units_of_hosts() {
        let through = rights_of(&unit);
        let run = |through: &[String]| {
            let mut command = Command::new(&through[0]);
            command.args(&through[1..]).args([&myself, "--exact", test]).env(PROBE, &program);
            run_with_input(&mut command, "")
        };
        let output = run(&through);
        assert!(output.ok(), "{name}: {}{}", output.stdout, output.stderr);
        assert!(output.stdout.contains("1 passed"), "it was run: {}", output.stdout);
        for right in ["chown", "setuid", "setgid"] {
            let less: Vec<String> =
                through.iter().map(|word| word.replace(&format!(",+{right}"), "")).collect();
            assert!(!run(&less).ok(), "{name}: {right} is not needed");
        }
    }
}

/// What is opened on a host stands in the units, which let nothing else through.
#[test]
fn devices_that_the_programs_open_are_allowed_by_the_units() {
    let root = &root();
    let sources = ["crates", "services", "netloomd", "netloom-host", "gateway"];
    let files = sources
        .iter()
        .flat_map(|top| all_below(&root.join(top)).into_iter().map(move |f| root.join(top).join(f)));
    let mut named = BTreeSet::new();
    for file in files {
        let path = file.display().to_string();
        let is_test = path.contains("/tests/") || path.ends_with("/tests.rs") || path.contains("/testing");
        if !path.ends_with(".rs") || !path.contains("/src/") || is_test {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("a source");
        let program = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let code = program.lines().filter(|line| !line.trim_start().starts_with("//"));
        named.extend(
            code.flat_map(|line| line.split("\"/dev/").skip(1))
                .filter_map(|rest| rest.split('"').next())
                .map(str::to_owned),
        );
    }
    // What Docker opens for nodes, and what each policy of systemd lets through.
    let others = ["net/tun", "fuse", "null", "pts/"];
    named.retain(|device| !others.contains(&device.as_str()));
    let opened: Vec<String> = named.iter().map(|device| format!("/dev/{device} rw")).collect();
    assert!(opened.contains(&"/dev/kvm rw".to_owned()), "the sources were read: {opened:?}");
    for (name, unit) in units_of_hosts() {
        assert_eq!(said(&unit, "DevicePolicy"), ["closed"], "{name}");
        assert_eq!(said(&unit, "DeviceAllow"), opened, "{name}");
    }
}

/// Node `u1` does not run as root: to end what it runs takes a right.
fn a_command_of_another_user_ends_with_its_caller(sandbox: &Sandbox, lab: &str) {
    let seconds = format!("{}", 1_000_000_000 + u64::from(std::process::id()));
    let is_it = |process: &Path| {
        std::fs::read(process.join("cmdline")).is_ok_and(|c| c == format!("sleep\0{seconds}\0").as_bytes())
    };
    let runs = || {
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        processes.filter(|p| is_it(&p.path())).count() > 0
    };
    let mut caller =
        sandbox.command().args(["exec", lab, "u1", "--", "sleep", &seconds]).spawn().expect("netloom");
    eventually("the command runs", BOUND, runs);
    caller.kill().expect("a caller that is there");
    caller.wait().expect("its end");
    eventually("the command has ended with its caller", BOUND, || !runs());
}

#[test]
fn nothing_is_installed_by_apt_to_make_a_package_or_from_what_was_built() {
    let asked = |variables: &[&str]| {
        let root = root().display().to_string();
        run("make", &[&["-C", &root, "--dry-run", "install"], variables].concat()).must().stdout
    };
    assert!(asked(&["DESTDIR=", "BUILT="]).contains("scripts/deps.sh"));
    for variables in [["DESTDIR=/nowhere", "BUILT="], ["DESTDIR=", "BUILT=/nowhere"]] {
        let said = asked(&variables);
        assert!(said.contains("scripts/install.sh install") && !said.contains("deps.sh"), "{said}");
    }
}

#[test]
fn prefix_unit_directory_and_programs_are_the_installers_choice() {
    let stage = tempfile::tempdir().expect("a directory");
    let top = stage.path();
    // Small stand-ins: only where they go is looked at. The real ones write the manual pages.
    let built = top.join("built");
    std::fs::create_dir(&built).expect("a directory");
    for name in [
        "netloomd",
        "netloom-gateway",
        "netloom-scheduler",
        "netloom-image-registry",
        "netloom-compute",
        "netloom-network",
    ] {
        std::fs::write(built.join(name), "").expect("a file");
    }
    for name in ["netloom", "netloom-host"] {
        std::os::unix::fs::symlink(binaries().join(name), built.join(name)).expect("a link");
    }
    let stage = top.join("stage");
    // What somebody else put below the same prefix stays.
    std::fs::create_dir_all(stage.join("opt/nl/bin")).expect("a directory");
    std::fs::write(stage.join("opt/nl/bin/other"), "").expect("a file");
    let choice = [
        ("PREFIX", "/opt/nl"),
        ("PROGRAMS", "all"),
        ("SYSTEMDUNITDIR", "/lib/systemd/system"),
        ("BUILT", &built.display().to_string()),
    ];
    script("install", &stage, &choice).must();
    let there = all_below(&stage);
    for file in [
        "opt/nl/bin/netloom-network",
        "lib/systemd/system/netloomd.service",
        "lib/systemd/system/netloom@.service",
        "etc/sysusers.d/netloom.conf",
    ] {
        assert!(there.contains(file), "{file} is not among {there:#?}");
    }
    let unit = std::fs::read_to_string(stage.join("lib/systemd/system/netloomd.service")).expect("a unit");
    assert!(unit.contains("ExecStart=/opt/nl/bin/netloomd\n"), "{unit}");
    // Without `PROGRAMS=all` the next install takes the five away again.
    script("install", &stage, &[choice[0], choice[2], choice[3]]).must();
    assert!(!stage.join("opt/nl/bin/netloom-network").exists());
    assert!(!stage.join("lib/systemd/system/netloom@.service").exists());
    script("uninstall", &stage, &[choice[0], ("PURGE", "1")]).must();
    assert_eq!(
        all_below(&stage).into_iter().collect::<Vec<_>>(),
        ["opt/", "opt/nl/", "opt/nl/bin/", "opt/nl/bin/other"]
    );
    for wrong in [("PREFIX", "relative"), ("PROGRAMS", "some")] {
        assert!(!script("install", &stage, &[wrong]).ok(), "{wrong:?}");
    }
}

/// The keys that a program knows in a section, as it tells them when it meets one that it does not.
fn keys(program: &str, section: &str, dir: &Path) -> Vec<String> {
    let config = dir.join("wrong.toml");
    std::fs::write(&config, format!("[{section}]\nno_such_key = 1\n")).expect("a configuration");
    let at = |name: &str| dir.join(name).display().to_string();
    let program = binaries().join(program).display().to_string();
    let said =
        run(&program, &["--config", &at("wrong.toml"), "--data-dir", &at("data"), "--run-dir", &at("run")]);
    assert!(!said.ok(), "a wrong key is an error");
    let told = said.stderr.split_once("; there are ").map(|(_, told)| told);
    told.unwrap_or_else(|| panic!("{}", said.stderr))
        .split([',', ' ', '\n'])
        .filter(|w| !w.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_configuration_that_is_installed_has_every_key_and_each_as_it_is_by_default() {
    let text = std::fs::read_to_string(root().join("deploy/netloom.toml")).expect("the configuration");
    let dir = tempfile::tempdir().expect("a directory");
    for (program, section) in [
        ("netloom-gateway", "gateway"),
        ("netloom-scheduler", "scheduler"),
        ("netloom-image-registry", "image_registry"),
        ("netloom-compute", "compute"),
        ("netloom-compute", "compute.sim"),
        ("netloom-network", "network"),
        ("netloom-network", "endpoints"),
    ] {
        let body = text.split_once(&format!("\n[{section}]\n")).map(|(_, b)| b).expect(section);
        let body = body.split("\n[").next().expect("a first part");
        let mut known = keys(program, section, dir.path());
        known.retain(|key| !text.contains(&format!("[{section}.{key}]")));
        assert!(!known.is_empty());
        for key in known {
            let there =
                body.lines().any(|l| l.trim_start_matches(['#', ' ']).starts_with(&format!("{key} = ")));
            assert!(there, "`{key}` of [{section}] is missing in deploy/netloom.toml");
        }
    }
    // With every key that shows its default taken in, the programs start as they do without.
    let all = text.lines().map(|l| match l.strip_prefix('#') {
        Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => key,
        _ => l,
    });
    let all = all.filter(|l| !l.starts_with("kinds_dir")).collect::<Vec<_>>().join("\n");
    let config: PathBuf = dir.path().join("all.toml");
    std::fs::write(&config, all).expect("a configuration");
    if crate::real(
        "main::install::the_configuration_that_is_installed_has_every_key_and_each_as_it_is_by_default",
    ) {
        drop(Sandbox::start_installed(Installed {
            bin: binaries(),
            config,
            kinds_dir: root().join("kinds"),
            through: vec!["env".to_owned()],
        }));
    }
}
