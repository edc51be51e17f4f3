//! What a machine is once it has joined: one file that only root can read.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use netloom_model::id::HostId;
use netloom_service::Replicas;
use netloom_service::tls::Given;
use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Its id.
    pub host: HostId,
    /// Its uid.
    pub uid: String,
    /// Where the controller takes hosts in, or each of its replicas.
    pub controller: Replicas,
    /// Where it listens, as `address:port`.
    pub listen: String,
    /// When its certificate was given, in microseconds since 1970.
    pub issue_us: i64,
    /// When it is no longer valid.
    pub expire_us: i64,
    /// Its key, its certificate, and the authority's, as DER in base64.
    key: String,
    certificate: String,
    authority: String,
}

impl Membership {
    fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("membership.json")
    }

    /// With a key, its certificate and the authority's.
    pub fn new(
        (host, uid): (HostId, String),
        controller: Replicas,
        listen: String,
        (given, expire_us): (&Given, i64),
        authority: &[u8],
    ) -> Membership {
        let empty = String::new();
        let (key, certificate) = (empty.clone(), empty);
        let authority = BASE64.encode(authority);
        let mut made = Membership {
            host,
            uid,
            controller,
            listen,
            issue_us: 0,
            expire_us: 0,
            key,
            certificate,
            authority,
        };
        made.renewed(given, expire_us);
        made
    }

    /// Takes a new key and certificate.
    pub fn renewed(&mut self, given: &Given, expire_us: i64) {
        (self.issue_us, self.expire_us) = (now_us(), expire_us);
        self.key = BASE64.encode(&given.key);
        self.certificate = BASE64.encode(&given.certificate);
    }

    /// Its key and certificate.
    pub fn given(&self) -> anyhow::Result<Given> {
        let read =
            |text: &str| BASE64.decode(text).context("the file of the membership is damaged: join again");
        Ok(Given { key: read(&self.key)?, certificate: read(&self.certificate)? })
    }

    /// The authority's certificate.
    pub fn authority(&self) -> anyhow::Result<Vec<u8>> {
        BASE64.decode(&self.authority).context("the file of the membership is damaged: join again")
    }

    /// True when a program that serves that one can go on as this one: it differs in its certificate at most.
    pub fn is_served_as(&self, other: &Membership) -> bool {
        let place =
            |m: &Membership| (m.host.clone(), m.controller.clone(), m.listen.clone(), m.authority.clone());
        place(self) == place(other)
    }

    /// True while its certificate is valid.
    pub fn is_valid(&self) -> bool {
        now_us() < self.expire_us
    }

    /// When its certificate is to be renewed: a third of its time is left then.
    pub fn renew_us(&self) -> i64 {
        self.expire_us - (self.expire_us - self.issue_us) / 3
    }

    /// What this data directory says; none before this machine has joined.
    pub fn read(data_dir: &Path) -> anyhow::Result<Option<Membership>> {
        let path = Membership::path(data_dir);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(serde_json::from_str(&text).with_context(|| {
                format!("{} is damaged: restore it, or remove it and join again", path.display())
            })?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes it down, at once as a whole.
    pub fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        let path = Membership::path(data_dir);
        let write = || {
            fs::create_dir_all(data_dir)?;
            let draft = path.with_extension("new");
            let _ = fs::remove_file(&draft);
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&draft, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Microseconds since 1970.
pub fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_is_read_back_and_is_roots_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Membership::read(dir.path()).unwrap(), None);
        let given = Given { key: vec![1, 2], certificate: vec![3] };
        let controller: Replicas = "https://10.0.0.1:7601,https://10.0.0.2:7601".parse().unwrap();
        let host = ("h2".parse().unwrap(), "uid".to_owned());
        let expire = now_us() + 3_000_000;
        let mut ours = Membership::new(host, controller, "0.0.0.0:7610".into(), (&given, expire), &[4]);
        ours.write(dir.path()).unwrap();
        assert_eq!(Membership::read(dir.path()).unwrap(), Some(ours.clone()));
        assert_eq!((ours.given().unwrap(), ours.authority().unwrap()), (given, vec![4]));
        let mode = fs::metadata(dir.path().join("membership.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let left = ours.expire_us - ours.renew_us();
        assert!((900_000..=1_000_000).contains(&left), "a third of 3 s is left when it is renewed: {left}");
        ours.renewed(&Given { key: vec![9], certificate: vec![9] }, 0);
        ours.write(dir.path()).unwrap();
        assert!(!Membership::read(dir.path()).unwrap().unwrap().is_valid());
    }
}
