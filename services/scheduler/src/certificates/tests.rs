use netloom_model::spec::{AuthoritySpec, FileEntry, LabSpec};

use std::collections::BTreeMap;

use super::*;

const DAY_US: i64 = 86_400_000_000;

fn rows(key_bits: u32) -> LabRows {
    let node = |id: &str, asks: bool| NodeSpec {
        id: id.into(),
        certificate: asks.then(|| CertificateSpec {
            sans: vec!["10.0.0.1".into()],
            key_bits,
            ..Default::default()
        }),
        ..NodeSpec::default()
    };
    let mut rows = LabRows::new("lab".parse().unwrap(), 1);
    rows.lab.spec = LabSpec { nodes: vec![node("R1", true), node("h1", false)], ..LabSpec::default() }.into();
    rows
}

fn issued(rows: &mut LabRows, contents: &BTreeMap<String, Vec<u8>>) {
    let wanted = missing(rows, crate::rows::now_us());
    let new = issue(&wanted, rows.certificates.get(AUTHORITY).cloned(), contents).unwrap();
    rows.certificates.extend(new);
}

#[test]
fn what_is_there_as_asked_for_is_not_issued_again() {
    let mut rows = rows(0);
    let now = crate::rows::now_us();
    let keys = |rows: &LabRows| missing(rows, now).into_iter().map(|w| w.key).collect::<Vec<_>>();
    assert_eq!(keys(&rows), ["", "r1"]);
    issued(&mut rows, &BTreeMap::new());
    assert_eq!(keys(&rows), Vec::<String>::new());
    let row = rows.certificates["r1"].clone();
    assert!(
        row.certificate_pem.starts_with("-----BEGIN CERTIFICATE")
            && row.key_pem.contains("BEGIN PRIVATE KEY")
    );
    // Soon over.
    let late = missing(&rows, now + 350 * DAY_US).into_iter().map(|w| w.key).collect::<Vec<_>>();
    assert_eq!(late, ["r1"]);
    // Other names; another authority makes all of them anew.
    rows.lab.spec.nodes[0].aliases.push("router".into());
    assert_eq!(keys(&rows), ["r1"]);
    rows.lab.spec.nodes[0].aliases.clear();
    rows.lab.spec.certificate_authority =
        Some(AuthoritySpec { validity_seconds: 9_999_999, ..Default::default() });
    assert_eq!(keys(&rows), ["", "r1"]);
    assert!(missing(&LabRows::new("x".parse().unwrap(), 1), now).is_empty());
    // One that runs out is there all the same: nothing waits for another.
    rows.lab.spec.certificate_authority = None;
    assert!(awaited(&rows).is_empty() && !missing(&rows, now + 350 * DAY_US).is_empty());
    rows.lab.wanted = Wanted::Absent;
    assert!(missing(&rows, now + 350 * DAY_US).is_empty());
}

#[test]
fn a_lab_uses_the_authority_that_it_is_given() {
    let mut other = rows(0);
    issued(&mut other, &BTreeMap::new());
    let authority = other.certificates[AUTHORITY].clone();
    let (certificate, key) = (authority.certificate_pem.into_bytes(), authority.key_pem.into_bytes());
    let mut rows = rows(0);
    let entry = |path: &str, content: &[u8]| FileEntry {
        path: path.into(),
        digest: Digest::of(content),
        size_bytes: 0,
        mode: 0o600,
    };
    rows.lab.spec.files = vec![entry("ca.pem", &certificate), entry("ca.key", &key)];
    rows.lab.spec.certificate_authority =
        Some(AuthoritySpec { certificate: "ca.pem".into(), key: "ca.key".into(), ..Default::default() });
    let contents: BTreeMap<String, Vec<u8>> =
        [("ca.pem".to_owned(), certificate.clone()), ("ca.key".to_owned(), key)].into();
    issued(&mut rows, &contents);
    assert_eq!(rows.certificates[AUTHORITY].certificate_pem.as_bytes(), certificate);
    assert!(missing(&rows, crate::rows::now_us()).is_empty());

    // A key that is not the certificate's, and none at all.
    let mut third = self::rows(0);
    issued(&mut third, &BTreeMap::new());
    let foreign = third.certificates[AUTHORITY].key_pem.clone().into_bytes();
    for (key, says) in
        [(foreign, "is not the certificate of the key"), (b"x".to_vec(), "is not a private key")]
    {
        let contents = [("ca.pem".to_owned(), certificate.clone()), ("ca.key".to_owned(), key)].into();
        let wanted = wishes(&rows.lab.id, &rows.lab.spec);
        let refused = check(&wanted, &contents).unwrap_err();
        assert!(refused.reason == "CERTIFICATE_INVALID" && refused.message.contains(says), "{refused}");
    }
}

#[test]
fn openssl_agrees_with_certificates_of_both_kinds_of_keys() {
    for bits in [0, 2048] {
        let mut rows = rows(bits);
        rows.lab.spec.certificate_authority = Some(AuthoritySpec { key_bits: bits, ..Default::default() });
        issued(&mut rows, &BTreeMap::new());
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
        };
        file("ca.pem", &rows.certificates[AUTHORITY].certificate_pem);
        file("cert.pem", &rows.certificates["r1"].certificate_pem);
        file("key.pem", &rows.certificates["r1"].key_pem);
        let openssl = |arguments: &[&str]| {
            let run = std::process::Command::new("openssl").args(arguments).current_dir(dir.path()).output();
            let run = run.expect("openssl is installed with this machine's packages");
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
            String::from_utf8_lossy(&run.stdout).into_owned()
        };
        openssl(&[
            "verify",
            "-purpose",
            "sslserver",
            "-verify_hostname",
            "R1.lab",
            "-CAfile",
            "ca.pem",
            "cert.pem",
        ]);
        openssl(&["verify", "-verify_ip", "10.0.0.1", "-CAfile", "ca.pem", "cert.pem"]);
        let of_certificate = openssl(&["x509", "-in", "cert.pem", "-noout", "-pubkey"]);
        assert_eq!(of_certificate, openssl(&["pkey", "-in", "key.pem", "-pubout"]));
    }
}
