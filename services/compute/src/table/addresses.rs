//! Fixed addresses of management networks that a machine has by now: Docker gives them to a container all the same, since it knows of its own containers only.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netloom_model::id::NodeUid;
use netloom_model::slice::Instance;

use super::Table;
use super::entry::Wish;
use crate::driver::{Found, management};
use crate::error::Error;

impl Table {
    /// Refuses an instance that is to have an address which a machine of its lab has, other than those that leave. It is a wait where that machine is being removed.
    pub fn refuse_taken_address(
        &self,
        instance: &Instance,
        leaving: &BTreeSet<NodeUid>,
    ) -> Result<(), Error> {
        let Some(network) = &instance.network else { return Ok(()) };
        let of = |text: &str| text.parse::<IpAddr>().ok();
        let inner = self.lock();
        for fixed in [&instance.spec.mgmt_ipv4, &instance.spec.mgmt_ipv6].into_iter().filter_map(|a| of(a)) {
            let has = |found: &Found| {
                [&found.mgmt_ipv4, &found.mgmt_ipv6].into_iter().any(|a| of(a) == Some(fixed))
            };
            for (uid, entry) in &inner.entries {
                let machine = entry.found.as_ref().filter(|found| found.machine.is_some() && has(found));
                let Some(machine) = machine.filter(|found| found.lab_uid == instance.lab_uid) else {
                    continue;
                };
                if *uid == instance.uid || leaving.contains(uid) {
                    continue;
                }
                if matches!(entry.wish, Wish::Gone) {
                    let node = &machine.node;
                    return Err(Error::Busy(format!(
                        "waits until machine {node}, which has {fixed}, is gone"
                    )));
                }
                return Err(management::taken(&network.name, fixed, &format!("machine {}", machine.node)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use netloom_model::slice::Network;
    use netloom_service::handover::Machine;

    use super::*;
    use crate::driver::testing::{found, instance};
    use crate::exec_state::ExecState;
    use crate::files::Files;
    use netloom_model::observed::Source;

    #[test]
    fn a_container_is_refused_the_fixed_address_that_a_machine_has() {
        let dir = tempfile::tempdir().unwrap();
        let files = Arc::new(Files::open(dir.path()).unwrap());
        let table =
            Table::new(vec![(Source::Docker, true), (Source::Libvirt, true)], Default::default(), files);
        let vm = NodeUid::new();
        let machine = Found {
            uid: vm,
            node: "v1".into(),
            mgmt_ipv4: "192.0.2.254".into(),
            mgmt_ipv6: "fd00::fe".into(),
            machine: Machine::of(std::process::id().cast_signed()).ok(),
            ..found()
        };
        table.seen(1, machine, table.glance(), ExecState::default);
        let container = |fixed: &str| {
            let network = Network { name: "m".into(), ..Network::default() };
            let mut it = Instance { network: Some(network), ..instance() };
            match fixed.contains(':') {
                true => it.spec.mgmt_ipv6 = fixed.into(),
                false => it.spec.mgmt_ipv4 = fixed.into(),
            }
            it
        };
        let refused = |it: &Instance, leaving: &[NodeUid]| {
            table.refuse_taken_address(it, &leaving.iter().copied().collect()).err()
        };
        for taken in ["192.0.2.254", "fd00:0::fe"] {
            let Some(Error::Refused(message)) = refused(&container(taken), &[]) else { panic!("{taken}") };
            assert!(message.contains("machine v1") && message.contains("another mgmt-ipv"), "{message}");
            assert!(refused(&container(taken), &[vm]).is_none(), "it leaves");
        }
        assert!(refused(&container("192.0.2.253"), &[]).is_none());
        let mut elsewhere = container("192.0.2.254");
        elsewhere.lab_uid = netloom_model::id::LabUid::new();
        assert!(refused(&elsewhere, &[]).is_none(), "another lab has another network");
        table.sync(Vec::new(), "");
        table.answers(1, true, Default::default());
        drop(table.remove(&[vm], &[], ""));
        let waits = refused(&container("192.0.2.254"), &[]);
        assert!(matches!(waits, Some(Error::Busy(_))), "{waits:?}");
    }
}
