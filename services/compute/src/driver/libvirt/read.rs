//! What a domain is, read back.

use netloom_model::id::Owner;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error as VirtError, ErrorNumber};
use virt_sys as sys;

use super::identity::{self, Identity};
use super::nics::{self, NicLink};
use crate::driver::Process;

/// A domain as libvirt tells it.
pub struct Seen {
    id: String,
    name: String,
    /// The element of its metadata that says whose it is.
    element: String,
    state: sys::virDomainState,
    reason: i32,
    nics: Vec<NicLink>,
}

/// The domain with this id; none when it says nothing of whose it is.
pub fn by_id(connect: &Connect, id: &str) -> Result<Option<Seen>, VirtError> {
    let found = Domain::lookup_by_uuid_string(connect, id)?;
    let Some(seen) = domain(&found)? else { return Ok(None) };
    // One that does not run has none that could be looked at.
    let nics = if found.is_active()? { nics::read(&found.get_xml_desc(0)?) } else { Vec::new() };
    Ok(Some(Seen { nics, ..seen }))
}

/// The domain with this name; none when it says nothing of whose it is.
pub fn by_name(connect: &Connect, name: &str) -> Result<Option<Seen>, VirtError> {
    domain(&Domain::lookup_by_name(connect, name)?)
}

/// All that say whose they are.
pub fn all(connect: &Connect) -> Result<Vec<Seen>, VirtError> {
    let mut all = Vec::new();
    for found in connect.list_all_domains(0)? {
        match domain(&found) {
            Ok(seen) => all.extend(seen),
            // It went since it was listed.
            Err(e) if e.code() == ErrorNumber::NoDomain => {}
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}

fn domain(domain: &Domain) -> Result<Option<Seen>, VirtError> {
    // What it was started with while it runs, else what it would be started with.
    let flags = if domain.is_active()? { sys::VIR_DOMAIN_AFFECT_LIVE } else { sys::VIR_DOMAIN_AFFECT_CONFIG };
    let kind = i32::try_from(sys::VIR_DOMAIN_METADATA_ELEMENT).unwrap_or_default();
    let element = match domain.get_metadata(kind, Some(identity::NAMESPACE), flags) {
        Err(e) if e.code() == ErrorNumber::NoDomainMetadata => return Ok(None),
        // It started or ended in between.
        Err(e) if e.code() == ErrorNumber::OperationInvalid => {
            domain.get_metadata(kind, Some(identity::NAMESPACE), sys::VIR_DOMAIN_AFFECT_CURRENT)?
        }
        other => other?,
    };
    let (state, reason) = domain.get_state()?;
    let (id, name) = (domain.get_uuid_string()?, domain.get_name()?);
    Ok(Some(Seen { id, name, element, state, reason, nics: Vec::new() }))
}

/// What the name of a machine that is set aside ends in.
pub fn aside_suffix(id: &str) -> String {
    format!(".aside-{id}")
}

/// A domain of ours.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub identity: Identity,
    /// Its NICs, when it was looked at by itself and ran.
    pub nics: Vec<NicLink>,
    state: sys::virDomainState,
    reason: u32,
    /// libvirt says that it runs, and its QEMU has ended.
    dead: bool,
}

impl Reading {
    /// None when it is not this installation's.
    pub fn new(seen: Seen, owner: Owner) -> Option<Reading> {
        let identity = Identity::read(&seen.element, owner)?;
        let reason = u32::try_from(seen.reason).unwrap_or_default();
        let Seen { id, name, state, nics, .. } = seen;
        Some(Reading { id, name, identity, nics, state, reason, dead: false })
    }

    /// It runs, also when it is paused or about to end.
    pub fn runs(&self) -> bool {
        let off = [sys::VIR_DOMAIN_SHUTOFF, sys::VIR_DOMAIN_CRASHED, sys::VIR_DOMAIN_NOSTATE];
        !off.contains(&self.state) && !self.starts_up() && !self.dead
    }

    /// Takes note that its QEMU has ended, which libvirt does not say yet, after its guest switched itself off or not.
    pub fn bury(&mut self, shut_down: bool) {
        self.dead = true;
        if shut_down {
            self.state = sys::VIR_DOMAIN_SHUTDOWN;
        }
    }

    /// Its QEMU has ended, and libvirt does not say so yet.
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// Its QEMU is being started, which can fail.
    fn starts_up(&self) -> bool {
        self.state == sys::VIR_DOMAIN_PAUSED && self.reason == sys::VIR_DOMAIN_PAUSED_STARTING_UP
    }

    /// It stands still because the host has no room for what it writes: of all that can be wrong with a disk this alone stops a machine.
    pub fn lacks_room(&self) -> bool {
        (self.state, self.reason) == (sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_IOERROR)
    }

    /// What keeps it from going on though it runs, and what to do.
    pub fn trouble(&self) -> &'static str {
        match (self.state, self.reason) {
            _ if self.lacks_room() => {
                "it stands still, since the host's disk is full: make room in data_dir, and it goes on by itself"
            }
            (sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_USER) => {
                "it was paused (virsh resume lets it go on)"
            }
            _ => "",
        }
    }

    /// It is off, and its name is free for another.
    pub fn is_aside(&self) -> bool {
        !self.runs() && self.name.ends_with(&aside_suffix(&self.id))
    }

    /// It never ran: not started yet, or libvirt could not start it.
    fn never_ran(&self) -> bool {
        let failed = self.state == sys::VIR_DOMAIN_SHUTOFF && self.reason == sys::VIR_DOMAIN_SHUTOFF_FAILED;
        self.identity.started_ns == 0 || failed || self.starts_up()
    }

    /// When it was last started, in nanoseconds since 1970; 0 when it never was.
    pub fn started_ns(&self) -> i64 {
        if self.never_ran() { 0 } else { self.identity.started_ns }
    }

    /// Which start it is; empty before the first.
    pub fn start_id(&self) -> String {
        if self.never_ran() { String::new() } else { self.identity.started_ns.to_string() }
    }

    /// Its process. A machine has no exit code: 0 stands for one that was switched off from inside, 137, as for a killed process, for one whose QEMU was.
    pub fn process(&self) -> Process {
        if self.runs() {
            return Process::Running { pid: None };
        }
        if self.never_ran() {
            return Process::Created;
        }
        let (code, error) = match (self.state, self.reason) {
            (sys::VIR_DOMAIN_SHUTDOWN, _) | (sys::VIR_DOMAIN_SHUTOFF, sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN) => {
                (0, "it was shut down")
            }
            (sys::VIR_DOMAIN_SHUTOFF, sys::VIR_DOMAIN_SHUTOFF_UNKNOWN) => {
                (255, "libvirt does not know how it ended")
            }
            _ => (137, "its QEMU was ended"),
        };
        Process::Ended { code, error: error.to_owned() }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::driver::libvirt::identity::tests::identity;

    /// One that runs since then.
    pub fn reading(started_ns: i64) -> Reading {
        let identity = Identity { started_ns, ..identity() };
        let (id, name, nics, state) = ("d".into(), "n".into(), Vec::new(), sys::VIR_DOMAIN_RUNNING);
        Reading { id, name, identity, nics, state, reason: 1, dead: false }
    }

    #[test]
    fn how_a_machine_ended_is_told_by_its_state() {
        let process = |started_ns, state, reason| Reading { state, reason, ..reading(started_ns) }.process();
        assert_eq!(process(7, sys::VIR_DOMAIN_RUNNING, 1), Process::Running { pid: None });
        assert_eq!(process(7, sys::VIR_DOMAIN_PAUSED, 5), Process::Running { pid: None });
        let starting = process(7, sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_STARTING_UP);
        assert_eq!(starting, Process::Created, "it may still fail");
        assert_eq!(process(0, sys::VIR_DOMAIN_SHUTOFF, 0), Process::Created);
        assert_eq!(process(7, sys::VIR_DOMAIN_SHUTOFF, sys::VIR_DOMAIN_SHUTOFF_FAILED), Process::Created);
        let ended = |reason| match process(7, sys::VIR_DOMAIN_SHUTOFF, reason) {
            Process::Ended { code, .. } => code,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            [
                sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN,
                sys::VIR_DOMAIN_SHUTOFF_DESTROYED,
                sys::VIR_DOMAIN_SHUTOFF_CRASHED,
                sys::VIR_DOMAIN_SHUTOFF_UNKNOWN
            ]
            .map(ended),
            [0, 137, 137, 255]
        );
    }
}
