use super::*;

fn presence(runtime: Runtime, format: Format) -> Presence {
    Presence {
        host: "h1".into(),
        runtime,
        present: true,
        digest: "sha256:d".into(),
        format,
        size_bytes: 1,
        architecture: "amd64".into(),
        observe_time_us: 1,
    }
}

fn wanted(runtime: Runtime, policy: PullPolicy) -> ImageUse {
    ImageUse {
        node: "r1".into(),
        reference: "netloom/frr:local".into(),
        runtime,
        host: "h1".into(),
        policy,
        architecture: "amd64".into(),
        room_bytes: None,
    }
}

fn on_hosts(presences: &[Presence]) -> Known {
    Known { presences: presences.to_vec(), stored: None }
}

fn blob(format: netloom_image::Format) -> Blob {
    Blob {
        digest: crate::blob::Digest::parse(DIGEST).unwrap(),
        size_bytes: 1,
        format,
        virtual_size_bytes: 1,
        architecture: String::new(),
        image_ids: Vec::new(),
        problem: String::new(),
        store_time_us: 1,
        verify_time_us: 1,
    }
}

const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

#[test]
fn the_store_counts_too() {
    use Runtime::{Docker, Libvirt};
    use netloom_image::Format as Of;
    let stored = |format| Known { presences: Vec::new(), stored: Some(blob(format)) };
    let there = |digest: &str| Known {
        presences: vec![Presence { digest: digest.into(), ..presence(Libvirt, Format::QCOW2) }],
        stored: Some(blob(Of::Qcow2)),
    };
    let corrupt = |known: Known| Known {
        stored: known.stored.map(|b| Blob { problem: "set aside; push it again".into(), ..b }),
        ..known
    };
    let plain = |runtime| wanted(runtime, PullPolicy::IfNotPresent);
    // Docker has an image under this name; the archive holds one with this id.
    let loaded = |id: &str| Known {
        presences: vec![presence(Docker, Format::Docker)],
        stored: Some(Blob { image_ids: vec![id.into()], ..blob(Of::DockerArchive) }),
    };
    let of_arm = |known: Known| Known {
        stored: known.stored.map(|b| Blob { architecture: "arm64".into(), ..b }),
        ..known
    };
    let without_ids =
        |known: Known| Known { stored: known.stored.map(|b| Blob { image_ids: Vec::new(), ..b }), ..known };
    // As where Docker keeps images in containerd.
    let told_without_id = |known: Known| Known {
        presences: known.presences.into_iter().map(|p| Presence { digest: String::new(), ..p }).collect(),
        ..known
    };
    let table = [
        (plain(Docker), without_ids(loaded("sha256:e")), "USE"),
        (plain(Docker), told_without_id(loaded("sha256:e")), "USE"),
        (wanted(Docker, PullPolicy::Always), told_without_id(loaded("sha256:e")), "FETCH"),
        (plain(Docker), loaded("sha256:d"), "USE"),
        (plain(Docker), loaded("sha256:e"), "FETCH"),
        (wanted(Docker, PullPolicy::Never), loaded("sha256:e"), "USE"),
        (wanted(Docker, PullPolicy::Always), loaded("sha256:d"), "FETCH"),
        (plain(Docker), corrupt(loaded("sha256:e")), "USE"),
        (plain(Docker), of_arm(loaded("sha256:e")), "USE"),
        (plain(Docker), stored(Of::Qcow2), "IMAGE_FORMAT_MISMATCH"),
        (wanted(Docker, PullPolicy::Always), stored(Of::Iso), "IMAGE_FORMAT_MISMATCH"),
        (plain(Docker), stored(Of::DockerArchive), "FETCH"),
        (wanted(Docker, PullPolicy::Always), stored(Of::OciArchive), "FETCH"),
        (wanted(Docker, PullPolicy::Never), stored(Of::DockerArchive), "IMAGE_MISSING"),
        (plain(Docker), corrupt(stored(Of::DockerArchive)), "PULL"),
        (plain(Libvirt), stored(Of::DockerArchive), "IMAGE_FORMAT_MISMATCH"),
        (plain(Libvirt), stored(Of::Iol), "IMAGE_FORMAT_MISMATCH"),
        (plain(Libvirt), stored(Of::Raw), "FETCH"),
        (wanted(Libvirt, PullPolicy::Never), stored(Of::Raw), "IMAGE_MISSING"),
        (plain(Libvirt), there(DIGEST), "USE"),
        (plain(Libvirt), there("sha256:d"), "FETCH"),
        (wanted(Libvirt, PullPolicy::Never), there("sha256:d"), "USE"),
        (plain(Libvirt), corrupt(there(DIGEST)), "USE"),
        (plain(Libvirt), corrupt(stored(Of::Qcow2)), "IMAGE_CORRUPT"),
    ];
    for (i, (wanted, known, expected)) in table.into_iter().enumerate() {
        let verdict = judge(&wanted, &known);
        assert_eq!(word(&verdict), expected, "row {i}: {wanted:?} {known:?}");
        if let Verdict::Refuse { message, .. } = verdict {
            for part in ["r1", "netloom/frr", ";"] {
                assert!(message.contains(part), "row {i} lacks {part}: {message}");
            }
        }
    }
}

#[test]
fn what_comes_to_a_host_finds_room_there_together() {
    use Runtime::{Docker, Libvirt};
    use netloom_image::Format as Of;
    let store = |n: char, format, size_bytes| {
        let digest = crate::blob::Digest::parse(&DIGEST.replace("9f", &format!("0{n}"))).unwrap();
        let image_ids = vec![format!("sha256:in-{n}")];
        Known { presences: Vec::new(), stored: Some(Blob { digest, size_bytes, image_ids, ..blob(format) }) }
    };
    let (disk, other, archive) =
        (store('a', Of::Qcow2, 6), store('b', Of::Raw, 5), store('c', Of::DockerArchive, 4));
    let on_host = |known: &Known, presence| Known { presences: vec![presence], ..known.clone() };
    let digest = disk.stored.as_ref().unwrap().digest.to_string();
    let disk_there = on_host(&disk, Presence { digest, ..presence(Libvirt, Format::QCOW2) });
    let loaded = Presence { digest: "sha256:in-c".into(), ..presence(Docker, Format::Docker) };
    let archive_loaded = on_host(&archive, loaded);
    let to = |host: &str, runtime| ImageUse { host: host.into(), ..wanted(runtime, PullPolicy::Always) };
    let (vm, elsewhere, container) = (to("h1", Libvirt), to("h2", Libvirt), to("h1", Docker));
    type Row<'a> = (u64, Vec<(&'a ImageUse, &'a Known)>, &'a [&'a str]);
    let table: [Row<'_>; 9] = [
        (5, vec![(&vm, &disk)], &["IMAGE_TOO_LARGE"]),
        (6, vec![(&vm, &disk)], &["FETCH"]),
        (0, vec![(&vm, &disk_there)], &["USE"]),
        (6, vec![(&vm, &disk), (&vm, &disk)], &["FETCH", "FETCH"]),
        (10, vec![(&vm, &disk), (&vm, &other)], &["FETCH", "IMAGE_TOO_LARGE"]),
        (10, vec![(&vm, &disk), (&elsewhere, &other)], &["FETCH", "FETCH"]),
        (
            10,
            vec![(&vm, &disk), (&vm, &other), (&container, &archive)],
            &["FETCH", "IMAGE_TOO_LARGE", "FETCH"],
        ),
        (9, vec![(&vm, &disk), (&container, &archive)], &["FETCH", "IMAGE_TOO_LARGE"]),
        (6, vec![(&vm, &disk), (&container, &archive_loaded)], &["FETCH", "FETCH"]),
    ];
    for (i, (room, row, expected)) in table.into_iter().enumerate() {
        let asked = |(n, (wanted, _)): (usize, &(&ImageUse, &Known))| ImageUse {
            node: n.to_string(),
            room_bytes: Some(room),
            ..(*wanted).clone()
        };
        let uses: Vec<ImageUse> = row.iter().enumerate().map(asked).collect();
        let verdicts = judge_all(&uses, |wanted| row[wanted.node.parse::<usize>().unwrap()].1);
        assert_eq!(verdicts.iter().map(word).collect::<Vec<_>>(), expected, "row {i}");
        let refused = verdicts.iter().find_map(|v| match v {
            Verdict::Refuse { message, .. } => Some(message),
            _ => None,
        });
        let others = refused.filter(|_| uses.len() > 1);
        assert!(others.is_none_or(|m| m.contains("room for") && m.contains("images take 6")), "{others:?}");
    }
    let unchecked = judge_all(&[vm], |_| &disk);
    assert_eq!(word(&unchecked[0]), "FETCH", "its room is not known");
}

#[test]
fn hosts_of_one_deploy_have_the_same_under_one_name() {
    let on = |host: &str, digest: &str| Presence {
        host: host.into(),
        digest: digest.into(),
        ..presence(Runtime::Docker, Format::Docker)
    };
    let known = on_hosts(&[on("h1", "sha256:a"), on("h2", "sha256:b"), on("h3", "sha256:a"), on("h4", "")]);
    let to = |host: &str, policy| ImageUse { host: host.into(), ..wanted(Runtime::Docker, policy) };
    let plain = |host: &str| to(host, PullPolicy::IfNotPresent);
    let other_architecture = ImageUse { architecture: String::new(), ..plain("h2") };
    let other_name = ImageUse { reference: "other:1".into(), ..plain("h2") };
    let table = [
        (vec![plain("h1"), plain("h3")], vec!["USE", "USE"]),
        (vec![plain("h1"), plain("h2"), plain("h3")], vec!["USE", "IMAGE_DIFFERS", "USE"]),
        (vec![plain("h1"), to("h2", PullPolicy::Never)], vec!["USE", "USE"]),
        (vec![plain("h1"), to("h2", PullPolicy::Always)], vec!["USE", "PULL"]),
        (vec![plain("h1"), other_architecture], vec!["USE", "USE"]),
        (vec![plain("h1"), other_name], vec!["USE", "USE"]),
        (vec![plain("h4"), plain("h1"), plain("h3")], vec!["USE", "USE", "USE"]),
    ];
    for (i, (uses, expected)) in table.into_iter().enumerate() {
        let verdicts = judge_all(&uses, |_| &known);
        assert_eq!(verdicts.iter().map(word).collect::<Vec<_>>(), expected, "row {i}");
        for verdict in verdicts {
            let Verdict::Refuse { message, .. } = verdict else { continue };
            for part in ["r1", "netloom/frr:local", "h1", "h2", "sha256:a", "sha256:b", ";"] {
                assert!(message.contains(part), "row {i} lacks {part}: {message}");
            }
        }
    }
    // The store says which is meant.
    let stored = Blob { image_ids: vec!["sha256:b".into()], ..blob(netloom_image::Format::DockerArchive) };
    let known = Known { stored: Some(stored), ..known };
    let verdicts = judge_all(&[plain("h1"), plain("h2")], |_| &known);
    assert_eq!(verdicts.iter().map(word).collect::<Vec<_>>(), ["FETCH", "USE"]);
}

/// USE, PULL or the reason of a refusal.
fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Use { .. } => "USE",
        Verdict::Pull { stored: None } => "PULL",
        Verdict::Pull { stored: Some(_) } => "FETCH",
        Verdict::Refuse { reason, .. } => reason.as_str(),
    }
}

#[test]
fn verdicts() {
    use PullPolicy::{Always, IfNotPresent, Never};
    use Runtime::{Docker, Libvirt};
    let there = || vec![presence(Docker, Format::Docker)];
    let absent = || vec![Presence { present: false, ..presence(Docker, Format::Unknown) }];
    let elsewhere = || vec![Presence { host: "h2".into(), ..presence(Docker, Format::Docker) }];
    let arm = || vec![Presence { architecture: "arm64".into(), ..presence(Docker, Format::Docker) }];
    let disk = |format| vec![presence(Libvirt, format)];
    let both = || vec![presence(Docker, Format::Docker), presence(Libvirt, Format::RAW)];
    let table = [
        (Docker, IfNotPresent, there(), "USE"),
        (Docker, Never, there(), "USE"),
        (Docker, Always, there(), "PULL"),
        (Docker, IfNotPresent, vec![], "PULL"),
        (Docker, IfNotPresent, absent(), "PULL"),
        (Docker, Never, vec![], "IMAGE_MISSING"),
        (Docker, Never, absent(), "IMAGE_MISSING"),
        (Docker, Never, elsewhere(), "IMAGE_MISSING"),
        (Docker, Always, absent(), "PULL"),
        (Docker, IfNotPresent, arm(), "IMAGE_ARCHITECTURE_MISMATCH"),
        (Docker, Always, arm(), "PULL"),
        (Docker, IfNotPresent, disk(Format::QCOW2), "IMAGE_FORMAT_MISMATCH"),
        (Docker, Never, vec![presence(Docker, Format::Unknown)], "IMAGE_FORMAT_MISMATCH"),
        (Libvirt, IfNotPresent, disk(Format::QCOW2), "USE"),
        (Libvirt, IfNotPresent, disk(Format::RAW), "USE"),
        (Libvirt, IfNotPresent, there(), "IMAGE_FORMAT_MISMATCH"),
        (Libvirt, IfNotPresent, disk(Format::Unknown), "IMAGE_FORMAT_MISMATCH"),
        (Libvirt, Always, vec![], "IMAGE_MISSING"),
        (Libvirt, Always, disk(Format::RAW), "USE"),
        (Libvirt, Never, both(), "USE"),
        (Docker, Never, both(), "USE"),
    ];
    for (i, (runtime, policy, known, expected)) in table.into_iter().enumerate() {
        let verdict = judge(&wanted(runtime, policy), &on_hosts(&known));
        assert_eq!(word(&verdict), expected, "row {i}: {runtime} {policy:?} {known:?}");
        if let Verdict::Refuse { message, .. } = verdict {
            for part in ["r1", "netloom/frr:local", "h1", ";"] {
                assert!(message.contains(part), "row {i} lacks {part}: {message}");
            }
        }
    }
}

#[test]
fn an_architecture_that_is_not_known_is_not_held_against_the_image() {
    let unknown = Presence { architecture: String::new(), ..presence(Runtime::Docker, Format::Docker) };
    let verdict = judge(&wanted(Runtime::Docker, PullPolicy::Never), &on_hosts(&[unknown]));
    assert_eq!(verdict, Verdict::Use { digest: "sha256:d".into() });
    let arm = Presence { architecture: "arm64".into(), ..presence(Runtime::Docker, Format::Docker) };
    let unchecked = ImageUse { architecture: String::new(), ..wanted(Runtime::Docker, PullPolicy::Never) };
    assert_eq!(word(&judge(&unchecked, &on_hosts(&[arm]))), "USE");
}

#[test]
fn a_reference_that_is_none_names_the_node() {
    let bad = ImageUse { reference: "Bad Name".into(), ..wanted(Runtime::Docker, PullPolicy::Always) };
    let Verdict::Refuse { reason, message } = judge(&bad, &Known::default()) else { panic!("refused") };
    assert_eq!(reason, Reason::ReferenceInvalid);
    assert!(message.contains("r1") && message.contains("Bad Name"), "{message}");
}
