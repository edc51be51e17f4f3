//! Snapshots, and the machines that they are of, as libvirt reads them.

use super::super::identity::{self, Identity};
use super::super::nics::{attribute, each};

/// A snapshot of a machine, as libvirt reads it: of what it may write to. With the machine itself where it is there already.
pub fn element(name: &str, machine: &str, has_memory: bool, is_there: bool) -> String {
    let disks = each(machine, "<disk ", "</disk>").filter_map(|disk| {
        let how = if disk.contains("<readonly/>") { "no" } else { "internal" };
        let target = attribute(disk, "<target ", "dev")?;
        Some(format!("<disk name='{target}' snapshot='{how}'/>"))
    });
    let (state, memory) = if has_memory { ("running", "internal") } else { ("shutoff", "no") };
    let there = match is_there {
        // When it was taken, the disk says.
        true => format!("<state>{state}</state><creationTime>1</creationTime>{machine}"),
        false => String::new(),
    };
    format!(
        "<domainsnapshot><name>{name}</name><memory snapshot='{memory}'/><disks>{}</disks>{there}</domainsnapshot>",
        disks.collect::<String>()
    )
}

/// The element in a machine's metadata that says whose it is.
fn whose(machine: &str) -> Option<&str> {
    let at = machine.find(&format!("<{}:instance", identity::PREFIX))?;
    let rest = &machine[at..];
    Some(&rest[..rest.find("/>")? + 2])
}

/// A machine's XML with another start in its metadata.
pub fn other_start(machine: &str, identity: &Identity) -> String {
    match whose(machine) {
        Some(element) => machine.replace(element, &identity.element()),
        None => machine.to_owned(),
    }
}

/// The machine as it ran has the limits, the memory and the processors of the one that is to be.
pub fn fits(machine: &str, xml: &str, identity: &Identity) -> bool {
    let was = whose(machine).and_then(|element| Identity::read(element, identity.owner));
    let within = |xml, begin, end| {
        let element: &str = each(xml, begin, end).next()?;
        Some(element.rsplit_once("</")?.0.rsplit_once('>')?.1.to_owned())
    };
    let size = |xml| (within(xml, "<memory ", "</memory>"), within(xml, "<vcpu ", "</vcpu>"));
    was.is_some_and(|was| was.limits == identity.limits) && size(machine) == size(xml)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::libvirt::identity::tests::identity;

    #[test]
    fn a_snapshot_is_of_what_is_written_to_and_of_the_start_that_is_to_be() {
        let was = identity().element().replace('\'', "\"");
        let machine = format!(
            "<domain><metadata>\n{was}\n</metadata><disk type='file'><target dev='vda' bus='virtio'/></disk>
             <disk type='file'><target dev='vdb'/><readonly/></disk></domain>"
        );
        let disks = "<disks><disk name='vda' snapshot='internal'/><disk name='vdb' snapshot='no'/></disks>";
        let new = element("netloom-x", &machine, true, false);
        assert!(
            new.contains(disks) && new.contains("<memory snapshot='internal'/>") && !new.contains("<domain>")
        );
        let there = element("netloom-x", &machine, false, true);
        assert!(there.contains("<state>shutoff</state>") && there.contains(&machine), "{there}");
        let next = Identity { started_ns: 99, prepared: true, ..identity() };
        let other = other_start(&machine, &next);
        assert!(other.contains(&next.element()) && !other.contains(&was), "{other}");
    }

    #[test]
    fn a_memory_fits_the_machine_with_the_limits_that_it_was_kept_with() {
        let machine = |identity: &Identity, kib: u32, cpus: u32| {
            let element = identity.element().replace('\'', "\"");
            format!(
                "<domain><metadata>{element}</metadata><memory unit='KiB'>{kib}</memory><vcpu placement='static'>{cpus}</vcpu></domain>"
            )
        };
        let it = identity();
        let was = machine(&it, 1024, 1);
        let next = Identity { started_ns: 99, prepared: true, ..it.clone() };
        assert!(fits(&was, &machine(&next, 1024, 1), &next));
        assert!(!fits(&was, &machine(&next, 2048, 1), &next), "what is counted against the host is no limit");
        assert!(!fits(&was, &machine(&next, 1024, 2), &next));
        let mut other = next.clone();
        other.limits.cpu_set = "2".into();
        assert!(!fits(&was, &machine(&other, 1024, 1), &other));
        assert!(!fits("<domain/>", "<domain/>", &next), "whose it was is not known");
    }
}
