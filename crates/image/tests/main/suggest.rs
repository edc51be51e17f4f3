//! What file names suggest.

use netloom_image::suggest::suggest;
use proptest::prelude::*;

#[test]
fn vendors_names_suggest_kind_and_version() {
    for (file, reference, kind) in [
        ("vios-adventerprisek9-m.spa.159-3.m6.qcow2", "cisco-iosv:159-3.m6", "cisco_iosv"),
        ("/images/vios_l2-adventerprisek9-m.ssa.high_iron_20200929.qcow2", "iosvl2:20200929", "iosvl2"),
        ("i86bi-linux-l3-adventerprisek9-15.4.1T.bin", "iol-xe:15.4.1t", "iol-xe"),
        ("i86bi_linux_l2-adventerprise-ms.high_iron_aug9_2017b.bin", "iol-l2:latest", "iol-l2"),
        ("vyos-1.4.0-amd64.iso", "vyos:1.4.0-amd64", "vyos"),
        ("vJunos-switch-23.2R1.14.qcow2", "juniper-vjunosswitch:23.2r1.14", "juniper_vjunosswitch"),
        ("cEOS64-lab-4.32.0F.tar.xz", "ceos:4.32.0f", "ceos"),
        ("debian-12-generic-amd64.qcow2", "debian-12-generic-amd64:latest", ""),
        ("my disk.img", "my-disk:latest", ""),
        ("...", "image:latest", ""),
    ] {
        let said = suggest(file);
        assert_eq!((said.reference.as_str(), said.kind.as_str()), (reference, kind), "{file}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// A reference that was suggested is one.
    #[test]
    fn any_name_suggests_a_reference(name in ".{0,200}") {
        let said = suggest(&name);
        let (name, tag) = said.reference.split_once(':').expect("a tag");
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        prop_assert!(!name.is_empty() && name.bytes().all(|b| word(b) || b == b'-'), "{}", said.reference);
        prop_assert!(name.bytes().next().is_some_and(word) && name.bytes().last().is_some_and(word));
        prop_assert!(!tag.is_empty() && tag.len() <= 128 && !tag.starts_with(['.', '-']));
    }
}
