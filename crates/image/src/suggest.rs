//! What a file name suggests.
//!
//! Names such as `vios-adventerprisek9-m.spa.159-3.m6.qcow2` tell people which device and which version a file is for. That is offered to whoever uploads it,
//! who says so or something else; nothing is decided by it later.

/// What a file name suggests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Suggestion {
    /// A reference to push it as: `name:version`.
    pub reference: String,
    /// A kind that it may be for; empty when the name tells none.
    pub kind: String,
    /// Its version; empty when the name tells none.
    pub version: String,
}

/// How vendors name their files, and the kind each is for; the longest that fits counts.
const NAMES: [(&str, &str); 44] = [
    ("alpine", "alpine"),
    ("asav", "cisco_asav"),
    ("bigip", "f5_bigip"),
    ("c8000v", "c8000v"),
    ("c9800", "cat9800"),
    ("cat9kv", "cat9000v-uadp"),
    ("ceos", "ceos"),
    ("cjunosevolved", "juniper_cjunos"),
    ("crpd", "juniper_crpd"),
    ("csr1000v", "cisco_csr1000v"),
    ("cumulus-linux", "cvx"),
    ("fgt_vm64", "fortinet_fortigate"),
    ("fortios", "fortinet_fortigate"),
    ("fortigate", "fortinet_fortigate"),
    ("frr", "frr"),
    ("ftdv", "ftdv"),
    ("cisco_secure_firewall_threat_defense_virtual", "ftdv"),
    ("cisco_secure_fw_mgmt_center_virtual", "fmcv"),
    ("i86bi-linux-l2", "iol-l2"),
    ("i86bi_linux_l2", "iol-l2"),
    ("i86bi-linux-l3", "iol-xe"),
    ("i86bi_linux", "iol-xe"),
    ("iosxrv", "cisco_iosxr"),
    ("xrv9k", "cisco_iosxr"),
    ("junos-evolved", "juniper_vjunosevolved"),
    ("vjunosevolved", "juniper_vjunosevolved"),
    ("vjunos-router", "juniper_vjunosrouter"),
    ("vjunos-switch", "juniper_vjunosswitch"),
    ("junos-vsrx3", "juniper_vsrx3"),
    ("junos-media-vsrx", "juniper_vsrx3"),
    ("n9kv", "cisco_n9kv"),
    ("nexus9500v", "cisco_n9kv"),
    ("nexus9300v", "cisco_n9kv"),
    ("nsvpx", "citrix_adc"),
    ("pa-vm", "paloalto_vmseries"),
    ("sonic-vs", "sonic-vm"),
    ("srlinux", "nokia_srlinux"),
    ("tinycore", "tcl"),
    ("vios", "cisco_iosv"),
    ("vios_l2", "iosvl2"),
    ("viosl2", "iosvl2"),
    ("vmanage", "cat-sdwan-manager"),
    ("vyos", "vyos"),
    ("x86_64_crb_linux_l2", "iol-l2"),
];

/// Endings that say what a file is, and not what is in it.
const ENDINGS: [&str; 12] =
    [".qcow2", ".qcow", ".img", ".raw", ".iso", ".bin", ".tar", ".disk", ".gz", ".xz", ".zst", ".tgz"];

/// The kinds that names may suggest.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(_, kind)| *kind)
}

/// What the name of a file suggests; a directory before it does not count.
pub fn suggest(file_name: &str) -> Suggestion {
    let base = file_name.rsplit(['/', '\\']).next().unwrap_or_default().to_ascii_lowercase();
    let mut stem = base.as_str();
    while let Some(shorter) = ENDINGS.iter().find_map(|e| stem.strip_suffix(e)).filter(|s| !s.is_empty()) {
        stem = shorter;
    }
    let fits = |(name, _): &&(&str, &str)| at_word(stem, name);
    let found = NAMES.iter().filter(fits).max_by_key(|(name, _)| name.len());
    let kind = found.map(|(_, kind)| *kind).unwrap_or_default();
    let (name, version) = split(stem);
    let version = if version.is_empty() { version_in(stem) } else { version };
    let name = match (kind.is_empty(), clean(name)) {
        (false, _) => kind.replace('_', "-"),
        (true, name) if name.is_empty() => "image".to_owned(),
        (true, name) => name,
    };
    let tag = if version.is_empty() { "latest" } else { version };
    Suggestion { reference: format!("{name}:{tag}"), kind: kind.to_owned(), version: version.to_owned() }
}

/// True when the name begins, or a word in it.
fn at_word(stem: &str, name: &str) -> bool {
    stem.match_indices(name)
        .any(|(at, _)| at == 0 || stem.as_bytes().get(at - 1).is_some_and(|b| !b.is_ascii_alphanumeric()))
}

/// A name and the version after it: from the first word on that begins with a digit, or `v` and a digit.
fn split(stem: &str) -> (&str, &str) {
    for (at, _) in stem.match_indices(['-', '_', '.', ' ']) {
        let rest = &stem[at + 1..];
        let digits = rest.strip_prefix('v').unwrap_or(rest);
        let word = digits.split(['-', '_', ' ']).next().unwrap_or_default();
        // "86_64" and "64bit" are no versions, "15.9" and "2024" are.
        if word.starts_with(|c: char| c.is_ascii_digit())
            && (word.contains('.') || word.bytes().all(|b| b.is_ascii_digit()) && word.len() != 2)
        {
            return (&stem[..at], tag(digits));
        }
    }
    (stem, "")
}

/// The first run of digits and dots with a dot in it.
fn version_in(stem: &str) -> &str {
    let runs = stem.split(|c: char| !c.is_ascii_digit() && c != '.').map(|r| r.trim_matches('.'));
    runs.filter(|r| r.contains('.')).find(|r| r.len() <= 128).unwrap_or_default()
}

/// As much of a text as can be a tag.
fn tag(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c))).unwrap_or(text.len());
    text[..end.min(128)].trim_end_matches(['.', '-', '_'])
}

/// As much of a text as can be the name in a reference.
fn clean(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    words.join("-").chars().take(100).collect()
}
