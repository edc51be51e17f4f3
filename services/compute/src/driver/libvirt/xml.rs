//! The XML of a domain: the one place where it is written.
//!
//! A disk has no cache and native I/O here, and nothing can say otherwise: QEMU's writeback cache on overlays of a base image that several machines share has damaged bases before. What a
//! machine is made of comes from its kind; what it is called, and the addresses of its NICs, from the node, so that it is the same machine at each start.

use std::fmt::Write as _;
use std::path::Path;

use netloom_model::kind::{DiskBus, Machine as MachineType, NicModel, Vm};

use super::identity::Identity;

/// Slots for NICs that may be added while it runs. There is no way to add a slot later.
const SPARE_SLOTS: usize = 4;

/// A machine to be.
pub struct Machine<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its id.
    pub id: &'a str,
    /// Whose it is, kept in its metadata.
    pub identity: &'a Identity,
    /// What its kind says of it.
    pub vm: &'a Vm,
    /// True runs it on the processor, by KVM; false emulates it, by QEMU's TCG.
    pub kvm: bool,
    /// Its processors.
    pub cpus: u32,
    /// The host's processors that it may run on; empty means any.
    pub cpu_set: &'a str,
    /// Its memory in bytes.
    pub memory_bytes: u64,
    /// Its disks: qcow2 files.
    pub disks: &'a [&'a Path],
    /// The medium that its configuration is on.
    pub medium: Option<Medium<'a>>,
    /// Its NICs, in order.
    pub nics: &'a [Nic],
    /// What its console writes is kept in this file.
    pub console_log: &'a Path,
    /// What the firmware of an EFI machine keeps; none where libvirt knows by itself.
    pub nvram: Option<&'a Path>,
}

/// A medium that is only read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Medium<'a> {
    /// The file: an ISO 9660 image.
    pub file: &'a Path,
    /// It is a CD in a drive, not a disk: where a guest looks for nothing else.
    pub is_cd: bool,
}

/// A NIC of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Nic {
    /// Name of the tap on the host.
    pub tap: String,
    /// Its address.
    pub mac: String,
    /// MTU in bytes that its guest finds it with; 0: its guest's own.
    pub mtu: u32,
    /// The Linux bridge that it is a port of; empty for one that is cabled by the network service.
    pub bridge: String,
}

/// Writes it.
pub fn domain(m: &Machine<'_>) -> String {
    let mut xml = String::new();
    let w = &mut xml;
    let kind = if m.kvm { "kvm" } else { "qemu" };
    line(w, 0, &format!("<domain type='{kind}'>"));
    line(w, 1, &format!("<name>{}</name>", text(m.name)));
    line(w, 1, &format!("<uuid>{}</uuid>", text(m.id)));
    line(w, 1, "<metadata>");
    line(w, 2, &m.identity.element());
    line(w, 1, "</metadata>");
    line(w, 1, &format!("<memory unit='KiB'>{}</memory>", m.memory_bytes.div_ceil(1024)));
    let cpu_set = if m.cpu_set.is_empty() { String::new() } else { format!(" cpuset='{}'", text(m.cpu_set)) };
    line(w, 1, &format!("<vcpu placement='static'{cpu_set}>{}</vcpu>", m.cpus.max(1)));
    line(w, 1, if m.vm.efi { "<os firmware='efi'>" } else { "<os>" });
    line(w, 2, &format!("<type arch='x86_64' machine='{}'>hvm</type>", m.vm.machine.as_str()));
    if m.vm.efi {
        // Any that does not insist on what is signed: no vendor's disk is.
        line(w, 2, "<firmware>");
        line(w, 3, "<feature enabled='no' name='secure-boot'/>");
        line(w, 2, "</firmware>");
        if let Some(nvram) = m.nvram {
            line(w, 2, &format!("<nvram>{}</nvram>", text(&nvram.to_string_lossy())));
        }
    }
    line(w, 2, "<boot dev='hd'/>");
    line(w, 1, "</os>");
    line(w, 1, "<features>");
    line(w, 2, "<acpi/>");
    line(w, 2, "<apic/>");
    line(w, 1, "</features>");
    cpu(w, m);
    line(w, 1, "<clock offset='utc'/>");
    line(w, 1, "<on_poweroff>destroy</on_poweroff>");
    line(w, 1, "<on_reboot>restart</on_reboot>");
    line(w, 1, "<on_crash>destroy</on_crash>");
    line(w, 1, "<devices>");
    controllers(w, m);
    for (i, disk) in m.disks.iter().enumerate() {
        self::disk(w, m.vm.disk_bus, i, disk);
    }
    if let Some(medium) = m.medium {
        self::medium(w, m, medium);
    }
    for nic in m.nics {
        self::nic(w, m.vm.nic_model, nic);
    }
    serials(w, m);
    line(w, 2, "<video>");
    line(w, 3, "<model type='vga'/>");
    line(w, 2, "</video>");
    line(w, 2, "<memballoon model='none'/>");
    line(w, 1, "</devices>");
    line(w, 0, "</domain>");
    xml
}

fn cpu(w: &mut String, m: &Machine<'_>) {
    let mode = if m.kvm { "host-passthrough" } else { "maximum" };
    if m.vm.cpu_mask.is_empty() {
        return line(w, 1, &format!("<cpu mode='{mode}'/>"));
    }
    line(w, 1, &format!("<cpu mode='{mode}'>"));
    for feature in &m.vm.cpu_mask {
        line(w, 2, &format!("<feature policy='disable' name='{}'/>", text(feature)));
    }
    line(w, 1, "</cpu>");
}

fn controllers(w: &mut String, m: &Machine<'_>) {
    line(w, 2, "<controller type='usb' model='none'/>");
    if m.vm.disk_bus == DiskBus::Scsi {
        line(w, 2, "<controller type='scsi' model='virtio-scsi'/>");
    }
    // On the older bus there are slots enough.
    if m.vm.machine == MachineType::Q35 {
        line(w, 2, "<controller type='pci' model='pcie-root'/>");
        for _ in 0..m.disks.len() + usize::from(m.medium.is_some()) + m.nics.len() + SPARE_SLOTS {
            line(w, 2, "<controller type='pci' model='pcie-root-port'/>");
        }
    }
}

fn disk(w: &mut String, bus: DiskBus, index: usize, file: &Path) {
    line(w, 2, "<disk type='file' device='disk'>");
    line(w, 3, "<driver name='qemu' type='qcow2' cache='none' io='native'/>");
    line(w, 3, &format!("<source file='{}'/>", text(&file.to_string_lossy())));
    line(w, 3, &target(bus, index));
    line(w, 2, "</disk>");
}

fn medium(w: &mut String, m: &Machine<'_>, medium: Medium<'_>) {
    let (device, bus) = match (medium.is_cd, m.vm.machine) {
        (false, _) => ("disk", m.vm.disk_bus),
        (true, MachineType::Q35) => ("cdrom", DiskBus::Sata),
        (true, MachineType::Pc) => ("cdrom", DiskBus::Ide),
    };
    line(w, 2, &format!("<disk type='file' device='{device}'>"));
    line(w, 3, "<driver name='qemu' type='raw' cache='none' io='native'/>");
    line(w, 3, &format!("<source file='{}'/>", text(&medium.file.to_string_lossy())));
    line(w, 3, &target(bus, m.disks.len()));
    line(w, 3, "<readonly/>");
    line(w, 2, "</disk>");
}

fn target(bus: DiskBus, index: usize) -> String {
    let prefix = match bus {
        DiskBus::Virtio => "vd",
        DiskBus::Ide => "hd",
        DiskBus::Sata | DiskBus::Scsi => "sd",
    };
    let letter = char::from(b'a' + u8::try_from(index.min(25)).unwrap_or_default());
    format!("<target dev='{prefix}{letter}' bus='{}'/>", bus.as_str())
}

/// Writes a NIC, for a machine that runs.
pub fn interface(model: NicModel, nic: &Nic) -> String {
    let mut xml = String::new();
    self::nic(&mut xml, model, nic);
    xml
}

fn nic(w: &mut String, model: NicModel, nic: &Nic) {
    let is_cabled = nic.bridge.is_empty();
    line(w, 2, &format!("<interface type='{}'>", if is_cabled { "ethernet" } else { "bridge" }));
    line(w, 3, &format!("<mac address='{}'/>", text(&nic.mac)));
    if !is_cabled {
        line(w, 3, &format!("<source bridge='{}'/>", text(&nic.bridge)));
    }
    line(w, 3, &format!("<target dev='{}'/>", text(&nic.tap)));
    line(w, 3, &format!("<model type='{}'/>", model.as_str()));
    if model == NicModel::Virtio {
        // Whatever takes its frames may need them finished, and that can change while it runs; the others finish them anyway.
        line(w, 3, "<driver>");
        line(w, 4, "<host csum='off' gso='off' tso4='off' tso6='off' ecn='off' ufo='off'/>");
        line(w, 3, "</driver>");
    }
    if nic.mtu > 0 {
        line(w, 3, &format!("<mtu size='{}'/>", nic.mtu));
    }
    // Until the network service has plugged its cable in: see `carrier`.
    line(w, 3, &format!("<link state='{}'/>", if is_cabled { "down" } else { "up" }));
    // It boots from its disk; without this each NIC would be asked first.
    line(w, 3, "<rom enabled='no'/>");
    line(w, 2, "</interface>");
}

fn serials(w: &mut String, m: &Machine<'_>) {
    line(w, 2, "<serial type='pty'>");
    line(w, 3, &format!("<log file='{}' append='on'/>", text(&m.console_log.to_string_lossy())));
    line(w, 3, "<target port='0'/>");
    line(w, 2, "</serial>");
    for port in 1..m.vm.serials {
        line(w, 2, "<serial type='null'>");
        line(w, 3, &format!("<target port='{port}'/>"));
        line(w, 2, "</serial>");
    }
}

fn line(w: &mut String, depth: usize, content: &str) {
    writeln!(w, "{:1$}{content}", "", depth * 2).expect("a string takes all");
}

/// As it may stand in an element or an attribute.
pub fn text(plain: &str) -> String {
    let mut safe = String::with_capacity(plain.len());
    for c in plain.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '\'' => safe.push_str("&apos;"),
            '"' => safe.push_str("&quot;"),
            c => safe.push(c),
        }
    }
    safe
}

/// What such text says.
pub fn plain(safe: &str) -> String {
    let marks = [("&lt;", "<"), ("&gt;", ">"), ("&apos;", "'"), ("&quot;", "\""), ("&amp;", "&")];
    marks.iter().fold(safe.to_owned(), |text, (mark, c)| text.replace(mark, c))
}

#[cfg(test)]
mod tests;
