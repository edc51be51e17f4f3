use super::*;
use crate::spec::{Endpoint, LinkSpec};

fn node(id: &str, kind: &str) -> NodeSpec {
    NodeSpec { id: id.into(), kind: kind.into(), image: "i".into(), ..NodeSpec::default() }
}

fn link(a: (&str, &str), b: (&str, &str)) -> LinkSpec {
    let end = |(node, interface): (&str, &str)| Endpoint {
        node: node.into(),
        interface: interface.into(),
        ..Endpoint::default()
    };
    LinkSpec { a: end(a), b: end(b), ..LinkSpec::default() }
}

/// A kind's file with these lines instead of, or beside, its own.
fn file(lines: &str) -> String {
    let mut text = String::new();
    let plain = [
        ("name", "\"mine\""),
        ("description", "\"d\""),
        ("runtime", "\"docker\""),
        ("verified", "false"),
        ("source", "\"s\""),
    ];
    let start = if lines.starts_with('[') { Some(0) } else { lines.find("\n[").map(|at| at + 1) };
    let (top, tables) = lines.split_at(start.unwrap_or(lines.len()));
    for (key, value) in plain {
        if !top.lines().any(|l| l.starts_with(&format!("{key} ="))) {
            text += &format!("{key} = {value}\n");
        }
    }
    text += top;
    text += "\n";
    if !tables.contains("[interfaces]") {
        text += "[interfaces]\npattern = \"e{n}\"\nfirst = 0\nmax = 4\n";
    }
    text + tables
}

#[test]
fn a_node_keeps_what_it_says_and_takes_the_rest() {
    let node =
        NodeSpec { id: "r1".into(), kind: "frr".into(), cpu_request_millis: 500, ..NodeSpec::default() };
    let resolved = Catalogue::embedded().resolve(&node).unwrap();
    assert_eq!(resolved.runtime, Runtime::Docker);
    assert_eq!(resolved.spec.cpu_request_millis, 500);
    assert_eq!(resolved.spec.memory_request_bytes, 128 << 20);
    assert_eq!(resolved.spec.hostname, "r1");
    assert!(resolved.spec.cap_add.contains(&"NET_ADMIN".to_owned()));
}

#[test]
fn environment_and_command_come_from_the_kind_and_yield_to_the_node() {
    let catalogue = Catalogue::embedded();
    let resolved = catalogue.resolve(&node("r1", "arista_ceos")).unwrap().spec;
    assert_eq!(resolved.kind, "ceos");
    assert_eq!(resolved.env["INTFTYPE"], "eth");
    assert_eq!(resolved.cmd[0], "/sbin/init");
    let own = NodeSpec {
        env: BTreeMap::from([("INTFTYPE".into(), "et".into())]),
        entrypoint: vec!["/run".into()],
        ..node("r1", "ceos")
    };
    let resolved = catalogue.resolve(&own).unwrap().spec;
    assert_eq!((resolved.env["INTFTYPE"].as_str(), resolved.env["ETBA"].as_str()), ("et", "1"));
    assert!(resolved.cmd.is_empty(), "{:?}", resolved.cmd);
}

#[test]
fn a_startup_configuration_and_a_licence_are_mounted_where_the_kind_reads_them() {
    let catalogue = Catalogue::embedded();
    let bind = |source: &str, target: &str, read_only| Bind {
        source: BindSource::Bundle(source.into()),
        target: target.into(),
        read_only,
    };
    let own = bind("daemons", "/etc/frr/daemons", false);
    let frr = NodeSpec { startup_config: "r1.conf".into(), binds: vec![own.clone()], ..node("r1", "frr") };
    let resolved = catalogue.resolve(&frr).unwrap().spec;
    assert_eq!(resolved.binds, [own, bind("r1.conf", "/etc/frr/frr.conf", false)]);
    let srl = NodeSpec { startup_config: "a".into(), license: "l".into(), ..node("s", "srl") };
    assert_eq!(
        catalogue.resolve(&srl).unwrap().spec.binds,
        [bind("a", "/etc/opt/srlinux/config.json", false), bind("l", "/opt/srlinux/etc/license.key", true)]
    );
    let twice = NodeSpec { binds: vec![bind("x", "/etc/frr/frr.conf", true)], ..frr };
    let said = catalogue.resolve(&twice).unwrap_err();
    assert!(said.contains("r1.conf") && said.contains("/etc/frr/frr.conf"), "{said}");
}

#[test]
fn a_kind_without_a_place_for_a_startup_configuration_or_a_licence_says_so() {
    let given = |kind: &str| NodeSpec { startup_config: "c".into(), license: "l".into(), ..node(kind, kind) };
    let nodes = ["frr", "linux", "bridge", "srl", "windows"].map(given).into();
    let spec = LabSpec { nodes, ..LabSpec::default() };
    let wrong = Catalogue::embedded().check(&spec);
    let fields: Vec<&str> = wrong.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "nodes[0].license",
            "nodes[1].startup_config",
            "nodes[1].license",
            "nodes[2].startup_config",
            "nodes[2].license",
            "nodes[4].startup_config",
            "nodes[4].license"
        ]
    );
    assert!(wrong[1].description.contains("kind linux takes no startup configuration"), "{wrong:?}");
    // That the files are there is a matter of the spec by itself.
    let missing: Vec<String> = spec.check().into_iter().map(|v| v.field).collect();
    assert!(missing.contains(&"nodes[0].startup_config".to_owned()), "{missing:?}");
    assert!(missing.contains(&"nodes[0].license".to_owned()), "{missing:?}");
}

#[test]
fn a_running_configuration_is_printed_by_one_command() {
    let catalogue = Catalogue::embedded();
    for (kind, command) in [
        ("frr", &["vtysh", "-c", "show running-config"][..]),
        ("haproxy", &["cat", "/usr/local/etc/haproxy/haproxy.cfg"]),
        ("srl", &["sh", "-c", "sr_cli 'save startup' >&2 && cat /etc/opt/srlinux/config.json"]),
        ("linux", &[]),
        ("cisco_iosv", &["show", "running-config"]),
        ("windows", &[]),
    ] {
        assert_eq!(catalogue.get(kind).unwrap().save_of(&NodeSpec::default()).0, command, "{kind}");
    }
    let own = NodeSpec { save_file: "/etc/app.conf".into(), ..NodeSpec::default() };
    for kind in ["linux", "frr"] {
        let words = ["cat".to_owned(), "/etc/app.conf".to_owned()].to_vec();
        assert_eq!(catalogue.get(kind).unwrap().save_of(&own), (words, ""), "{kind}");
    }
}

/// Typed back at `deploy --saved`, these lines were refused one by one.
#[test]
fn what_is_saved_is_what_can_be_given_back() {
    let catalogue = Catalogue::embedded();
    let saved = |kind: &str, printed: &str| {
        let node = NodeSpec::default();
        let strip = catalogue.get(kind).unwrap().save_of(&node).1;
        String::from_utf8(stripped(printed.as_bytes().to_vec(), strip)).unwrap()
    };
    let ios = "Building configuration...\n\nCurrent configuration : 3184 bytes\n!\n\
        ! Last configuration change at 12:00:00 UTC Fri Nov 27 2026 by admin\n!\nversion 15.9\n\
        hostname r1\n!\nbanner motd ^C\n\nthe end\n^C\n!\nline con 0\n password x\n!\nend\n\n";
    let config = "!\n!\nversion 15.9\nhostname r1\n!\nbanner motd ^C\n\nthe end\n^C\n!\nline con 0\n password x\n!\n\n";
    for kind in ["cisco_iosv", "iosvl2", "c8000v", "cat9000v-q200", "cat9000v-uadp", "cisco_csr1000v"] {
        assert_eq!(saved(kind, ios), config, "{kind}");
        assert_eq!(saved(kind, config), config, "{kind}: there and back");
    }
    let xr = "Fri Nov 27 12:00:00.123 UTC\nBuilding configuration...\n!! IOS XR Configuration 7.9.1\n\
        !! Last configuration change at Fri Nov 27 11:00:00 2026 by admin\n!\nhostname r1\nend\n\n";
    for kind in ["cisco_iosxr", "cisco_xrd"] {
        assert_eq!(saved(kind, xr), "!! IOS XR Configuration 7.9.1\n!\nhostname r1\nend\n\n", "{kind}");
    }
    let nxos = "\n!Command: show running-config\n!Running configuration last done at: Fri Nov 27 11:00:00 2026\n\
        !Time: Fri Nov 27 12:00:00 2026\n\nversion 9.3(9)\nhostname r1\n";
    assert_eq!(saved("cisco_n9kv", nxos), "version 9.3(9)\nhostname r1\n");
    let asa = ": Saved\n\n: \n: Serial Number: 9A\n:\nASA Version 9.16(1) \n!\nhostname fw\nCryptochecksum:0123abcd\n: end\n";
    assert_eq!(saved("cisco_asav", asa), "ASA Version 9.16(1) \n!\nhostname fw\n");
    let frr =
        "Building configuration...\n\nCurrent configuration:\n!\nfrr version 10.2\nhostname r1\n!\nend\n";
    assert_eq!(saved("frr", frr), "!\nfrr version 10.2\nhostname r1\n!\nend\n");
    assert_eq!(saved("haproxy", ios), ios, "a file is what it is");
}

#[test]
fn the_catalogue_has_what_other_tools_files_name() {
    let catalogue = Catalogue::embedded();
    for (name, kind) in [
        ("nokia_srlinux", "nokia_srlinux"),
        ("srl", "nokia_srlinux"),
        ("arista_ceos", "ceos"),
        ("cisco_xrd", "cisco_xrd"),
        ("xrd", "cisco_xrd"),
        ("cisco_xrv9k", "cisco_iosxr"),
        ("vr-xrv9k", "cisco_iosxr"),
        ("juniper_crpd", "juniper_crpd"),
        ("crpd", "juniper_crpd"),
        ("juniper_cjunosevolved", "juniper_cjunos"),
        ("juniper_vsrx", "juniper_vsrx3"),
        ("juniper_vjunosrouter", "juniper_vjunosrouter"),
        ("juniper_vjunosswitch", "juniper_vjunosswitch"),
        ("juniper_vjunosevolved", "juniper_vjunosevolved"),
        ("cisco_iol", "iol-xe"),
        ("cisco_vios", "cisco_iosv"),
        ("cisco_n9kv", "cisco_n9kv"),
        ("vr-n9kv", "cisco_n9kv"),
        ("cisco_csr1000v", "cisco_csr1000v"),
        ("vr-csr", "cisco_csr1000v"),
        ("cisco_c8000v", "c8000v"),
        ("cisco_ftdv", "ftdv"),
        ("cisco_asav", "cisco_asav"),
        ("sonic-vs", "sonic-vs"),
        ("sonic-vm", "sonic-vm"),
        ("cvx", "cvx"),
        ("cumulus_cvx", "cvx"),
        ("paloalto_panos", "paloalto_vmseries"),
        ("vr-pan", "paloalto_vmseries"),
        ("f5_bigip-ve", "f5_bigip"),
        ("fortinet_fortigate", "fortinet_fortigate"),
        ("vyosnetworks_vyos", "vyos"),
        ("ovs-bridge", "bridge"),
        ("linux", "linux"),
    ] {
        assert_eq!(catalogue.get(name).map(|k| k.name.as_str()), Some(kind), "{name}");
    }
    assert!(catalogue.get("cisco_cat9kv").is_some_and(|k| k.name.starts_with("cat9000v-")));
    assert!(catalogue.kinds().count() >= 42);
}

#[test]
fn the_catalogue_is_the_directory() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../kinds");
    let mut files: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let mut names: Vec<String> = Catalogue::embedded().kinds().map(|k| format!("{}.toml", k.name)).collect();
    names.sort();
    assert_eq!(files, names, "each file is called as the kind in it");
}

#[test]
fn every_kind_says_where_it_comes_from_and_what_it_needs() {
    for kind in Catalogue::embedded().kinds() {
        assert!(kind.source.len() > 20, "{}: {}", kind.name, kind.source);
        let bridge = kind.runtime == Runtime::Bridge;
        assert_eq!(kind.resources.cpu_request_millis == 0, bridge, "{}", kind.name);
        assert_eq!(kind.resources.memory_request_mib == 0, bridge, "{}", kind.name);
        assert_eq!(kind.vm.is_some(), kind.runtime == Runtime::Libvirt, "{}", kind.name);
    }
}

#[test]
fn a_users_kind_joins_the_others_or_takes_the_place_of_one() {
    let mut catalogue = Catalogue::embedded();
    catalogue.add("mine.toml", &file("aliases = [\"my\"]\n")).unwrap();
    assert_eq!(catalogue.get("my").unwrap().name, "mine");
    let before = catalogue.kinds().count();
    catalogue.add("frr.toml", &file("name = \"frr\"\nimage = \"my/frr:1\"\n")).unwrap();
    assert_eq!(catalogue.kinds().count(), before);
    let frr = catalogue.get("frr").unwrap();
    assert_eq!((frr.image.as_str(), frr.shell.len()), ("my/frr:1", 0), "nothing is left of the former");
}

#[test]
fn files_that_are_wrong_are_told_with_file_key_and_what_is_allowed() {
    let plain = Catalogue::embedded();
    assert!(plain.clone().add("f", &file("")).is_ok(), "{}", file(""));
    let vm = "[vm]\ndisk_bus = \"virtio\"\nnic_model = \"virtio\"\nmachine = \"q35\"\n";
    let libvirt = |more: &str| format!("runtime = \"libvirt\"\n{vm}{more}");
    let mut machine = plain.clone();
    machine.add("f", &file("runtime = \"libvirt\"\n")).unwrap();
    assert_eq!(machine.get("mine").unwrap().vm, Some(Vm::default()), "what a file does not say is usual");
    for (lines, says) in [
        // Not what the schema is.
        ("name = 1\n".to_owned(), vec!["line 5", "name = 1", "string"]),
        ("nam = \"x\"\n".into(), vec!["line 6", "unknown field `nam`", "`name`"]),
        ("runtime = \"podman\"\n".into(), vec!["podman", "docker", "libvirt", "bridge"]),
        ("[interfaces]\npattern = \"e{n}\"\nmax = 4\n".into(), vec!["missing field `first`"]),
        ("[interfaces]\npattern = \"e{n}\"\nfirst = -1\nmax = 4\n".into(), vec!["-1"]),
        (
            "[interfaces]\npatern = \"e{n}\"\nfirst = 1\nmax = 4\n".into(),
            vec!["line 8", "`patern`", "`pattern`"],
        ),
        ("[container]\nprivileged = true\n".into(), vec!["`privileged`", "`cap_add`"]),
        ("[readiness]\nmethod = \"tcp\"\n".into(), vec!["missing field `port`"]),
        ("[readiness]\nmethod = \"tcp\"\nport = 0\n".into(), vec!["nonzero"]),
        (
            "[readiness]\nmethod = \"ssh\"\n".into(),
            vec!["unknown variant `ssh`", "`none`", "`log`", "`serial`", "`command`", "`tcp`"],
        ),
        ("[readiness]\nmethod = \"log\"\n".into(), vec!["missing field `pattern`"]),
        ("[console]\nmethod = \"ssh\"\nport = 0\n".into(), vec!["nonzero"]),
        ("[readiness]\nmethod = \"none\"\npattern = \"x\"\n".into(), vec!["`pattern`"]),
        ("[console]\nmethod = \"vnc\"\n".into(), vec!["vnc", "`exec`", "`serial`", "`ssh`", "`telnet`"]),
        ("[config.startup]\nmethod = \"ftp\"\n".into(), vec!["ftp", "`bind`", "`iso`", "`disk`", "`serial`"]),
        ("[config.startup]\nmethod = \"bind\"\n".into(), vec!["missing field `path`"]),
        ("[config.startup]\nmethod = \"serial\"\npath = \"/x\"\n".into(), vec!["`path`"]),
        ("[config.save]\nmethod = \"exec\"\n".into(), vec!["missing field `command`"]),
        (
            libvirt("").replace("disk_bus = \"virtio\"", "disk_bus = \"floppy\""),
            vec!["floppy", "`ide`", "`sata`"],
        ),
        (libvirt("kvm = \"yes\"\n"), vec!["yes", "`preferred`", "`required`"]),
        ("= \n".into(), vec!["line 6"]),
        // What makes no sense.
        ("name = \"mi ne\"\n".into(), vec!["name", "not a kind's name", "letters"]),
        ("aliases = [\"\"]\n".into(), vec!["aliases", "not a kind's name"]),
        ("aliases = [\"a\", \"a\"]\n".into(), vec!["aliases", "twice"]),
        ("aliases = [\"mine\"]\n".into(), vec!["aliases", "twice"]),
        ("aliases = [\"linux\"]\n".into(), vec!["aliases", "a name of kind linux already"]),
        ("name = \"srl\"\n".into(), vec!["name", "a name of kind nokia_srlinux already"]),
        ("description = \" \"\n".into(), vec!["description", "empty"]),
        ("source = \"\"\n".into(), vec!["source", "empty"]),
        (
            "[interfaces]\npattern = \"*\"\nfirst = 0\nmax = 4\n".into(),
            vec!["interfaces.pattern", "only for it"],
        ),
        ("runtime = \"bridge\"\n".into(), vec!["interfaces.pattern", "only for it"]),
        (
            "[interfaces]\npattern = \"e\"\nfirst = 0\nmax = 4\n".into(),
            vec!["interfaces.pattern", "{n} once"],
        ),
        (
            "[interfaces]\npattern = \"e{n}\"\nfirst = 0\nmax = 0\n".into(),
            vec!["interfaces.max", "1 to 1024"],
        ),
        (
            "[interfaces]\npattern = \"eth{n}\"\nfirst = 0\nmax = 4\n".into(),
            vec!["interfaces.pattern", "eth1"],
        ),
        (
            "[interfaces]\npattern = \"e{n}\"\nfirst = 0\nmax = 4\nreserved = [\"x\"]\n".into(),
            vec!["interfaces.reserved", "virtual machine"],
        ),
        (
            "[resources]\ncpu_request_millis = 1024001\n".into(),
            vec!["resources.cpu_request_millis", "1024000"],
        ),
        (
            "[resources]\nmemory_request_mib = 67108865\n".into(),
            vec!["resources.memory_request_mib", "67108864"],
        ),
        (vm.to_owned(), vec!["vm", "libvirt"]),
        (libvirt("serials = 5\n"), vec!["vm.serials", "1 to 4"]),
        (libvirt("[container]\ncap_add = [\"NET_ADMIN\"]\n"), vec!["container", "docker"]),
        (format!("shell = [\"sh\"]\n{}", libvirt("")), vec!["shell", "docker"]),
        (libvirt("[config]\nlicense = \"/x\"\n"), vec!["config.license", "docker"]),
        (libvirt("[readiness]\nmethod = \"log\"\npattern = \"x\"\n"), vec!["readiness.method", "docker"]),
        (libvirt("[console]\nmethod = \"exec\"\n"), vec!["console.method", "docker"]),
        (
            libvirt("[config.startup]\nmethod = \"bind\"\npath = \"/x\"\n"),
            vec!["config.startup.method", "docker"],
        ),
        (
            libvirt("[config.save]\nmethod = \"file\"\npath = \"/x\"\n"),
            vec!["config.save.method", "[command_line]", "status"],
        ),
        (
            libvirt(
                "[readiness]\nmethod = \"command\"\ncommand = [\"x\"]\n[command_line]\nends = \"prompt\"\n",
            ),
            vec!["readiness.method", "[command_line]", "status"],
        ),
        (
            libvirt("[config.save]\nmethod = \"serial\"\ncommand = [\"show\"]\n"),
            vec!["config.save.method", "[command_line]"],
        ),
        (
            libvirt("[config.startup]\nmethod = \"serial\"\n[command_line]\nends = \"prompt\"\n"),
            vec!["config.startup.method", "[readiness]"],
        ),
        ("[command_line]\nends = \"status\"\n".into(), vec!["command_line", "libvirt"]),
        (libvirt("[command_line]\nends = \"never\"\n"), vec!["never", "`status`", "`prompt`"]),
        (
            libvirt("[command_line]\nends = \"status\"\nprompt = \"(\"\n"),
            vec!["command_line.prompt", "regular expression"],
        ),
        (libvirt("[command_line]\nends = \"status\"\nprompt = \"\"\n"), vec!["command_line.prompt", "waits"]),
        (
            libvirt("[config.startup]\nmethod = \"disk\"\npath = \"x\"\nlabel = \"twelve chars\"\n"),
            vec!["config.startup.label", "11"],
        ),
        (
            libvirt("[config.startup]\nmethod = \"disk\"\npath = \"x\"\narchive = \"/x\"\n"),
            vec!["config.startup.archive", "relative"],
        ),
        (
            libvirt("[config.startup]\nmethod = \"iso\"\npath = \"../x\"\n"),
            vec!["config.startup.path", "relative"],
        ),
        (
            "[config.save]\nmethod = \"exec\"\ncommand = [\"x\"]\nstrip = \"(\"\n".into(),
            vec!["config.save.strip", "regular expression"],
        ),
        (
            libvirt("[config.save]\nmethod = \"serial\"\ncommand = []\n"),
            vec!["config.save.command", "program"],
        ),
        ("[container]\ncap_add = [\"CAP_NET_ADMIN\"]\n".into(), vec!["container.cap_add", "without CAP_"]),
        ("[container]\ncap_add = [\"ALL\"]\n".into(), vec!["container.cap_add", "one capability"]),
        ("[container]\ncap_add = [\"BOGUS\"]\n".into(), vec!["container.cap_add", "BOGUS"]),
        (
            "[container]\nsysctls = { \"kernel.core_pattern\" = \"x\" }\n".into(),
            vec!["container.sysctls", "kernel.core_pattern", "net."],
        ),
        ("name = \"host\"\n".into(), vec!["name", "choose another"]),
        ("aliases = [\"mgmt-net\"]\n".into(), vec!["aliases", "choose another"]),
        ("limitation = \" \"\n".into(), vec!["limitation", "sentence"]),
        ("verified = true\nlimitation = \"x\"\n".into(), vec!["limitation", "not verified"]),
        ("[readiness]\nmethod = \"serial\"\npattern = \"x\"\n".into(), vec!["readiness.method", "libvirt"]),
        (
            "[readiness]\nmethod = \"log\"\npattern = \"(\"\n".into(),
            vec!["readiness.pattern", "regular expression"],
        ),
        (
            "[readiness]\nmethod = \"log\"\npattern = \"x\"\ntimeout_s = 0\n".into(),
            vec!["readiness.timeout_s", "1 to 7200"],
        ),
        ("[readiness]\nmethod = \"command\"\ncommand = []\n".into(), vec!["readiness.command", "program"]),
        ("[console]\nmethod = \"serial\"\n".into(), vec!["console.method", "libvirt"]),
        ("[console]\nmethod = \"exec\"\n".into(), vec!["console.method", "shell"]),
        (
            "[config.startup]\nmethod = \"iso\"\npath = \"x\"\n".into(),
            vec!["config.startup.method", "libvirt"],
        ),
        (
            "[config.startup]\nmethod = \"bind\"\npath = \"etc\"\n".into(),
            vec!["config.startup.path", "absolute"],
        ),
        (
            "[config.startup]\nmethod = \"bind\"\npath = \"/a/../b\"\n".into(),
            vec!["config.startup.path", "absolute"],
        ),
        (
            "[config.save]\nmethod = \"exec\"\ncommand = [\"\"]\n".into(),
            vec!["config.save.command", "program"],
        ),
        ("[config.save]\nmethod = \"file\"\npath = \"/\"\n".into(), vec!["config.save.path", "absolute"]),
        ("[config]\nlicense = \"l\"\n".into(), vec!["config.license", "absolute"]),
    ] {
        let text = file(&lines);
        let mut catalogue = plain.clone();
        let e = catalogue.add("bad.toml", &text).expect_err(&text);
        let said = e.to_string();
        for part in says.iter().chain(&["bad.toml"]) {
            assert!(said.contains(part), "{part} missing in: {said}\nof\n{text}");
        }
        assert_eq!(catalogue.kinds().count(), plain.kinds().count());
    }
}

#[test]
fn a_kind_of_ones_own_is_not_verified_by_a_test() {
    let mut catalogue = Catalogue::embedded();
    catalogue.add_own("mine.toml", &file("")).unwrap();
    catalogue.add_own("mine.toml", &file("verified = true\n")).unwrap();
    assert!(!catalogue.get("mine").unwrap().verified, "whatever it says");
    let copy = include_str!("../../../../kinds/linux.toml");
    catalogue.add_own("linux.toml", copy).unwrap();
    assert!(catalogue.get("linux").unwrap().verified, "it is the kind that the tests run");
    catalogue.add_own("linux.toml", &copy.replace("max = 256", "max = 9")).unwrap();
    assert!(!catalogue.get("linux").unwrap().verified);
}

#[test]
fn kinds_that_are_known_not_to_work_say_what_does_not() {
    let catalogue = Catalogue::embedded();
    for name in ["nokia_srlinux", "cisco_xrd", "juniper_cjunos", "cvx"] {
        let kind = catalogue.get(name).unwrap();
        assert!(kind.limitation.ends_with('.') && !kind.verified, "{name}: {}", kind.limitation);
    }
    assert_eq!(catalogue.get("frr").unwrap().limitation, "");
}

#[test]
fn ordinary_files_find_their_interfaces_on_containers() {
    let catalogue = Catalogue::embedded();
    for (kind, name, port) in [
        ("nokia_srlinux", "e1-49", 48),
        ("nokia_srlinux", "ethernet-1/58", 57),
        ("ceos", "eth13", 12),
        ("ceos", "Ethernet64", 63),
        ("ceos", "Ethernet49/1", 48),
        ("ceos", "eth49_1", 48),
        ("ceos", "et1/1", 0),
        ("cvx", "swp13", 12),
        ("cisco_xrd", "Gi0-0-0-20", 20),
        ("sonic-vs", "Ethernet252", 63),
        ("vyos", "eth256", 255),
        ("juniper_crpd", "eth256", 255),
        ("haproxy", "eth256", 255),
        ("alpine", "eth256", 255),
    ] {
        assert_eq!(catalogue.get(kind).unwrap().interfaces.index(kind, name), Ok(port), "{kind} {name}");
    }
    // Part of a port that is split is no port.
    for (kind, name) in
        [("ceos", "Ethernet49/2"), ("ceos", "eth1_1_1"), ("nokia_srlinux", "e1-1-1"), ("cvx", "swp1s0")]
    {
        assert!(catalogue.get(kind).unwrap().interfaces.index(kind, name).is_err(), "{kind} {name}");
    }
}

#[test]
fn unknown_kinds_and_interfaces_are_named() {
    let spec = LabSpec {
        nodes: vec![node("a", "linux"), node("b", "lynux")],
        links: vec![link(("a", "eth0"), ("b", "eth1"))],
        ..LabSpec::default()
    };
    let wrong = Catalogue::embedded().check(&spec);
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert_eq!(wrong[0].field, "nodes[1].kind");
    assert!(wrong[0].description.contains("\"lynux\"; \"netloom kinds list\" shows"), "{wrong:?}");
    assert!(wrong[1].description.contains("eth1 to"), "{wrong:?}");
    assert!(wrong[1].description.contains("management"), "{wrong:?}");
}

#[test]
fn a_machine_needs_kvm_as_it_says_or_else_its_kind() {
    let catalogue = Catalogue::embedded();
    let asks = |kind: &str, kvm| {
        let mut node = node("r1", kind);
        node.placement.kvm = kvm;
        node
    };
    let need = |kind: &str, kvm| catalogue.resolve(&asks(kind, kvm)).unwrap().spec.placement.kvm;
    let (preferred, required) = (Some(KvmNeed::Preferred), Some(KvmNeed::Required));
    assert_eq!((need("tcl", None), need("tcl", required)), (None, required));
    assert_eq!(need("juniper_vjunosswitch", None), required);
    assert_eq!(need("juniper_vjunosswitch", preferred), preferred, "the node knows better");
    let told = |kind: &str| -> Vec<String> {
        let nodes = vec![asks(kind, preferred)];
        let told = catalogue.check(&LabSpec { nodes, ..LabSpec::default() });
        told.into_iter().map(|v| format!("{}: {}", v.field, v.description)).collect()
    };
    assert_eq!(told("tcl"), [""; 0]);
    for kind in ["linux", "bridge"] {
        assert_eq!(
            told(kind),
            [
                "nodes[0].placement.kvm: node r1: it is no virtual machine, and runs the same with and without KVM: leave kvm out of its placement"
            ]
        );
    }
}

#[test]
fn every_kind_can_be_asked_for() {
    let nodes = Catalogue::embedded().kinds().map(|k| node(&k.name, &k.name)).collect();
    let spec = LabSpec { nodes, ..LabSpec::default() };
    assert_eq!(Catalogue::embedded().check(&spec), []);
}

#[test]
fn a_kind_of_containers_says_how_it_is_a_virtual_machine() {
    let catalogue = Catalogue::embedded();
    let (container, machine) =
        (catalogue.get("linux").unwrap(), catalogue.on("linux", Runtime::Libvirt).unwrap());
    assert_eq!((container.runtime, container.vm.is_some()), (Runtime::Docker, false));
    assert_eq!((machine.runtime, machine.vm.is_some()), (Runtime::Libvirt, true));
    assert_eq!(machine.interfaces, container.interfaces);
    assert!(machine.shell.is_empty() && machine.container == Container::default());
    assert!(catalogue.on("frr", Runtime::Libvirt).is_none());
    assert!(catalogue.on("iosv", Runtime::Docker).is_none());
}

#[test]
fn two_spellings_of_one_interface_are_one_interface() {
    let catalogue = Catalogue::embedded();
    let spec = |interfaces: [&str; 2]| LabSpec {
        nodes: vec![node("x", "cisco_xrd"), node("h", "linux"), node("br", "bridge")],
        links: vec![
            link(("x", interfaces[0]), ("h", "eth1")),
            link(("x", interfaces[1]), ("br", "any-name")),
        ],
        ..LabSpec::default()
    };
    assert_eq!(catalogue.check(&spec(["Gi0/0/0/0", "gi0/0/0/1"])), []);
    let wrong = catalogue.check(&spec(["Gi0/0/0/0", "eth1"]));
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert_eq!(wrong[0].field, "links[1].a.interface");
    assert!(wrong[0].description.contains("\"eth1\" and \"Gi0/0/0/0\" are the same"), "{wrong:?}");
    let one = catalogue.canonical(spec(["Gi0/0/0/0", "eth2"]));
    let two = catalogue.canonical(spec(["eth1", "gigabitethernet0/0/0/1"]));
    assert_eq!(one, two);
    assert_eq!(one.links[0].a.interface, "GigabitEthernet0/0/0/0");
    assert_eq!((one.links[0].b.interface.as_str(), one.links[1].b.interface.as_str()), ("eth1", "any-name"));
    let unknown = spec(["nothing", "eth999"]);
    assert_eq!(catalogue.canonical(unknown.clone()), unknown);
}

/// The worked example of docs/kinds.md.
#[test]
fn the_example_of_the_documentation_is_a_kind() {
    let docs = include_str!("../../../../docs/kinds.md");
    let example =
        docs.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let mut catalogue = Catalogue::embedded();
    catalogue.add("example.toml", example).unwrap();
    let kind = Kind::read("example.toml", example).unwrap();
    assert!(!kind.verified, "no test runs the example");
    assert_eq!(kind.interfaces.index(&kind.name, "xe0/0/0"), Ok(0));
    for key in ["name", "description", "vendor", "aliases", "runtime", "image", "shell", "verified", "source"]
    {
        assert!(docs.contains(&format!("`{key}`")), "docs/kinds.md does not explain {key}");
    }
}

#[test]
fn an_instance_is_asked_what_its_host_can_ask() {
    use crate::slice::{Readiness as Asked, ReadinessCheck};
    let catalogue = Catalogue::embedded();
    let of = |kind: &str| catalogue.get(kind).unwrap().readiness.of_host();
    assert_eq!(of("linux"), None);
    assert_eq!(of("tcl").map(|r| r.check), Some(ReadinessCheck::LogPattern("tc@box|login:".to_owned())));
    assert_eq!(of("windows"), None, "nobody connects to a management address yet");
    let words = ["cli", "show", "version"].map(str::to_owned).to_vec();
    assert_eq!(
        of("juniper_crpd"),
        Some(Asked { check: ReadinessCheck::Command(words), timeout_seconds: 120 })
    );
    let pattern = "Press RETURN to get started".to_owned();
    assert_eq!(of("iol-xe").map(|r| r.check), Some(ReadinessCheck::LogPattern(pattern)));
    assert_eq!(of("frr").map(|r| r.timeout_seconds), Some(60));
}
