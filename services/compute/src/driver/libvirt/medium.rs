//! What a guest is told at its start, on a medium that it reads: its kind says which.
//!
//! For cloud-init (NoCloud) it is a volume `cidata` with its name, what its interfaces are called and have for addresses, the node's configuration as user data, and a file that is put back into it as vendor data. It is told as a new instance
//! whenever any of it is another, since cloud-init looks at addresses only then. For other kinds it is a CD, or a FAT disk, with the configuration alone.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use netloom_model::id::Digest;
use netloom_model::kind::Startup;
use netloom_model::slice::{Instance, MachineNic};
use netloom_model::spec::NodeSpec;

use super::mgmt::Joined;
use super::{fat, iso};
use crate::error::Error;

/// What cloud-init takes for user data that asks for nothing.
const NOTHING: &[u8] = b"#cloud-config\n{}\n";

/// Whether the node has such a medium, and if so whether it is a CD.
pub fn is_cd(startup: &Startup, spec: &NodeSpec) -> Option<bool> {
    match startup {
        // Any disk will do, and a disk is what every guest has a driver for.
        Startup::Nocloud {} => Some(false),
        Startup::Iso { .. } => (!spec.startup_config.is_empty()).then_some(true),
        Startup::Disk { .. } => (!spec.startup_config.is_empty()).then_some(false),
        Startup::None {} | Startup::Bind { .. } | Startup::Serial { .. } => None,
    }
}

/// What a guest that can be told its addresses calls management.
const MANAGEMENT: &str = "eth0";

/// Its first NIC, where that is on a management network.
pub struct Management<'a> {
    /// Its MAC address.
    pub mac: String,
    /// MTU in bytes of the network; 0: as usual.
    pub mtu: u32,
    /// Where it is.
    pub joined: &'a Joined,
}

/// A file that is to be in a guest.
pub struct Written {
    /// Where, absolute.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What it holds.
    pub content: Vec<u8>,
}

/// Files of its lab that a guest is told.
#[derive(Default, Clone, Copy)]
pub struct Given<'a> {
    /// Its configuration.
    pub configuration: Option<&'a [u8]>,
    /// One that is to be in it; only cloud-init is told that.
    pub file: Option<&'a Written>,
}

/// The medium of a node with these files; none when it has none.
pub fn image(
    startup: &Startup,
    instance: &Instance,
    management: Option<&Management<'_>>,
    given: Given<'_>,
) -> Result<Option<Vec<u8>>, Error> {
    let image = match (startup, given.configuration) {
        (Startup::Nocloud {}, _) => nocloud(instance, management, given),
        (Startup::Iso { path }, Some(configuration)) => iso::image("config", &[(path, configuration)]),
        (Startup::Disk { path, label, archive }, Some(configuration)) if archive.is_empty() => {
            fat::image(label, path, configuration)?
        }
        (Startup::Disk { path, label, archive }, Some(configuration)) => {
            fat::image(label, path, &fat::archive(archive, configuration)?)?
        }
        _ => return Ok(None),
    };
    Ok(Some(image))
}

fn nocloud(instance: &Instance, management: Option<&Management<'_>>, given: Given<'_>) -> Vec<u8> {
    let spec = &instance.spec;
    let name = if spec.hostname.is_empty() { &spec.id } else { &spec.hostname };
    let network = network(management, &instance.nics);
    let user_data = given.configuration.unwrap_or(NOTHING);
    let vendor_data = given.file.map(write_files);
    let mut all = vec![name.as_bytes(), network.as_bytes(), user_data];
    all.extend(vendor_data.as_ref().map(String::as_bytes));
    let all = Digest::of(&all.join(&0));
    let edition = &all.as_str()["sha256:".len()..][..8];
    let meta = format!("instance-id: {}-{edition}\nlocal-hostname: {name}\n", instance.origin());
    let mut files = vec![
        ("meta-data", meta.as_bytes()),
        ("network-config", network.as_bytes()),
        ("user-data", user_data),
    ];
    files.extend(vendor_data.as_ref().map(|text| ("vendor-data", text.as_bytes())));
    iso::image("cidata", &files)
}

/// Has cloud-init write a file, one key a line. It is vendor data, so that the user data stays the node's own, whatever its form.
fn write_files(file: &Written) -> String {
    let Written { path, mode, content } = file;
    let path = serde_json::Value::from(path.as_str());
    let content = BASE64_STANDARD.encode(content);
    format!(
        "#cloud-config\nwrite_files:\n- path: {path}\n  permissions: \"{mode:04o}\"\n  encoding: b64\n  content: {content}\n"
    )
}

/// What the interfaces are, one key a line and one address a line: also simple guests read it.
fn network(management: Option<&Management<'_>>, nics: &[MachineNic]) -> String {
    let mut text = "version: 2\n".to_owned();
    if nics.is_empty() && management.is_none() {
        return text;
    }
    text.push_str("ethernets:\n");
    if let Some(Management { mac, mtu, joined }) = management {
        let place = &joined.place;
        let addresses = [&place.ipv4, &place.ipv6].into_iter().filter(|address| !address.is_empty());
        interface(&mut text, MANAGEMENT, mac, *mtu, addresses);
        if !joined.gateways.is_empty() {
            text.push_str("    routes:\n");
        }
        for gateway in &joined.gateways {
            let all = if gateway.is_ipv6() { "::/0" } else { "0.0.0.0/0" };
            let _ = write!(text, "      - to: \"{all}\"\n        via: \"{gateway}\"\n");
        }
    }
    let mut nics: Vec<&MachineNic> = nics.iter().collect();
    nics.sort_by_key(|nic| netloom_model::naming::guest_index(&nic.guest_name));
    for nic in nics {
        interface(&mut text, &nic.guest_name, &nic.mac, nic.mtu, nic.addresses.iter());
    }
    text
}

fn interface<'a>(
    text: &mut String,
    name: &str,
    mac: &str,
    mtu: u32,
    addresses: impl Iterator<Item = &'a String>,
) {
    // Its cable may be out: nothing waits for it.
    let _ = write!(
        text,
        "  {name}:\n    match:\n      macaddress: \"{mac}\"\n    set-name: {name}\n    optional: true\n"
    );
    if mtu > 0 {
        let _ = writeln!(text, "    mtu: {mtu}");
    }
    for (i, address) in addresses.enumerate() {
        if i == 0 {
            text.push_str("    addresses:\n");
        }
        let _ = writeln!(text, "      - \"{address}\"");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::libvirt::identity::Place;
    use crate::driver::testing::instance;

    fn nic(name: &str, mtu: u32, addresses: &[&str]) -> MachineNic {
        MachineNic {
            wire_id: 7.try_into().unwrap(),
            guest_name: name.into(),
            mac: "02:00:00:00:00:01".into(),
            mtu,
            addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
        }
    }

    fn told(instance: &Instance, configuration: Option<&[u8]>) -> String {
        told_all(instance, Given { configuration, file: None })
    }

    fn told_all(instance: &Instance, given: Given<'_>) -> String {
        let image = image(&Startup::Nocloud {}, instance, None, given).unwrap().unwrap();
        String::from_utf8_lossy(&image).into_owned()
    }

    fn id_of(text: &str) -> String {
        text[text.find("instance-id: ").unwrap()..].lines().next().unwrap().to_owned()
    }

    #[test]
    fn cloud_init_is_told_the_name_and_the_interfaces() {
        let mut one = instance();
        one.nics = vec![nic("eth10", 0, &[]), nic("eth2", 1400, &["10.0.0.1/24", "fd00::1/64"])];
        let expected = "version: 2
ethernets:
  eth2:
    match:
      macaddress: \"02:00:00:00:00:01\"
    set-name: eth2
    optional: true
    mtu: 1400
    addresses:
      - \"10.0.0.1/24\"
      - \"fd00::1/64\"
  eth10:
    match:
      macaddress: \"02:00:00:00:00:01\"
    set-name: eth10
    optional: true
";
        assert_eq!(network(None, &one.nics), expected);
        let text = told(&one, None);
        assert!(text.contains(expected) && text.contains("local-hostname: r1\n"), "{text}");
        assert!(text.contains("#cloud-config\n{}\n"));
        one.spec.hostname = "core".into();
        let text = told(&one, Some(b"#!/bin/sh\nreboot\n"));
        assert!(text.contains("local-hostname: core\n") && text.contains("#!/bin/sh\nreboot\n"), "{text}");
        assert_eq!(network(None, &[]), "version: 2\n");
    }

    #[test]
    fn cloud_init_is_told_management_before_all_others() {
        let place = Place {
            network: "m".into(),
            bridge: "b".into(),
            ipv4: "192.0.2.9/24".into(),
            ipv6: "fd00::9/64".into(),
        };
        let gateways = ["192.0.2.1", "fd00::1"].map(|g| g.parse().unwrap()).to_vec();
        let mut joined = Joined { place, gateways };
        let told = |joined: &Joined| {
            let management = Management { mac: "02:00:00:00:00:02".into(), mtu: 1400, joined };
            network(Some(&management), &[nic("eth1", 0, &[])])
        };
        let text = told(&joined);
        let expected = "version: 2
ethernets:
  eth0:
    match:
      macaddress: \"02:00:00:00:00:02\"
    set-name: eth0
    optional: true
    mtu: 1400
    addresses:
      - \"192.0.2.9/24\"
      - \"fd00::9/64\"
    routes:
      - to: \"0.0.0.0/0\"
        via: \"192.0.2.1\"
      - to: \"::/0\"
        via: \"fd00::1\"
  eth1:
";
        assert!(text.starts_with(expected), "{text}");
        joined.gateways.clear();
        assert!(!told(&joined).contains("routes"), "an internal network leads nowhere");
    }

    #[test]
    fn what_is_told_anew_is_a_new_instance_to_cloud_init() {
        let id = |one: &Instance, configuration| id_of(&told(one, configuration));
        let mut one = instance();
        let first = id(&one, None);
        assert_eq!(first, id(&one, None));
        assert!(first.contains(&one.uid.to_string()));
        assert_ne!(first, id(&one, Some(b"x")));
        one.nics.push(nic("eth1", 0, &[]));
        assert_ne!(first, id(&one, None));
    }

    #[test]
    fn cloud_init_is_told_a_file_beside_the_configuration() {
        let one = instance();
        let configuration = Some(b"#!/bin/sh\nreboot\n".as_slice());
        let file = |content: &[u8]| Written {
            path: "/etc/a \"b\".conf".into(),
            mode: 0o600,
            content: content.to_vec(),
        };
        let told = |content: &[u8]| told_all(&one, Given { configuration, file: Some(&file(content)) });
        let text = told(b"saved\xff\n");
        let expected = "#cloud-config
write_files:
- path: \"/etc/a \\\"b\\\".conf\"
  permissions: \"0600\"
  encoding: b64
  content: c2F2ZWT/Cg==
";
        assert!(text.contains(expected) && text.contains("#!/bin/sh\nreboot\n"), "{text}");
        assert_ne!(id_of(&text), id_of(&told(b"other")), "what is told anew is written anew");
        assert!(!told_all(&one, Given { configuration, file: None }).contains("write_files"));
    }

    #[test]
    fn a_kind_that_reads_a_cd_or_a_disk_has_one_only_with_a_configuration() {
        let cd = Startup::Iso { path: "openstack/latest/user_data".into() };
        let disk = |archive: &str| {
            let path = "juniper.conf".to_owned();
            Startup::Disk { path, label: "CONFIG".to_owned(), archive: archive.to_owned() }
        };
        for (startup, is_a_cd) in [(cd, true), (disk(""), false), (disk("config/juniper.conf"), false)] {
            let mut one = instance();
            assert_eq!(is_cd(&startup, &one.spec), None);
            assert!(image(&startup, &one, None, Given::default()).unwrap().is_none());
            one.spec.startup_config = "r1.cfg".into();
            assert_eq!(is_cd(&startup, &one.spec), Some(is_a_cd));
            let given = Given { configuration: Some(b"hostname r1"), file: None };
            let medium = image(&startup, &one, None, given).unwrap().unwrap();
            let is_plain = startup != disk("config/juniper.conf");
            assert_eq!(String::from_utf8_lossy(&medium).contains("hostname r1"), is_plain, "{startup:?}");
        }
        let one = instance();
        assert_eq!(is_cd(&Startup::Serial { enter: Vec::new(), leave: Vec::new() }, &one.spec), None);
    }
}
