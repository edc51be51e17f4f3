//! Parameters of the kernel that labs need, each with what happens where it is too small.
//!
//! Not among them: `net.bridge.bridge-nf-call-*`, since no link goes through a bridge of the kernel's, and Docker keeps its networks apart by them; and what only makes
//! a machine faster.

use std::io;

use super::finding::{Check, ok, warn};
use super::plan::{line, run_undone_by};
use super::tool::Tool;

/// Where the parameters that were mended are kept over a reboot.
const FILE: &str = "/etc/sysctl.d/60-netloom.conf";

/// A kernel parameter that matters.
#[derive(Debug)]
pub struct Sysctl {
    /// Its name.
    pub name: &'static str,
    /// The least it should be.
    pub least: u64,
    /// What happens below.
    pub why: &'static str,
}

/// The kernel parameters that matter.
pub const SYSCTLS: [Sysctl; 6] = [
    Sysctl {
        name: "fs.inotify.max_user_instances",
        least: 512,
        why: "each container may use one; large labs then fail to start nodes",
    },
    Sysctl {
        name: "fs.inotify.max_user_watches",
        least: 65_536,
        why: "programs in nodes that watch files then fail",
    },
    Sysctl {
        name: "fs.aio-max-nr",
        least: 1 << 20,
        why: "each disk of a virtual machine takes 1,024 of them: the machine holds 64 such disks at 65,536",
    },
    Sysctl {
        name: "kernel.pid_max",
        least: 65_536,
        why: "a container is about 12 tasks: the machine holds some 2,600 of them at 32,768",
    },
    Sysctl {
        name: "net.ipv4.neigh.default.gc_thresh3",
        least: 16_384,
        why: "the nodes of all labs share one table of IPv4 neighbours; when it is full they reach no new ones",
    },
    Sysctl {
        name: "net.ipv6.neigh.default.gc_thresh3",
        least: 16_384,
        why: "the nodes of all labs share one table of IPv6 neighbours; when it is full they reach no new ones",
    },
];

/// Docker sets it when it starts, with a firewall that keeps others from using the machine as their router. Set before Docker starts, Docker leaves that firewall away:
/// so it is never set here.
pub const FORWARD: &str = "net.ipv4.ip_forward";

/// What a parameter is, and what the files of sysctl set when the machine starts, where they say anything.
#[derive(Debug)]
pub struct Seen {
    /// Now.
    pub now: u64,
    /// At the next start.
    pub next: Option<u64>,
}

/// Asks the kernel, and the tool that sets it at the start of the machine.
pub async fn look(name: &str) -> io::Result<Seen> {
    let now = value(name)?;
    // What it would do; one that does not know the first option tells nothing. In the other order it does it: the second is carried out as soon as it is read.
    let said = Tool::new("sysctl").run(&["--dry-run", "--system"]).await;
    let next = said.ok().filter(super::tool::Said::ok).and_then(|said| next(&said.out, name));
    Ok(Seen { now, next })
}

/// The last value that the tool's words give the parameter: each file goes over those before.
fn next(said: &str, name: &str) -> Option<u64> {
    let mut values = said.lines().filter_map(|l| l.split_once('=')).filter(|(key, _)| key.trim() == name);
    values.next_back().and_then(|(_, value)| value.trim().parse().ok())
}

/// A kernel parameter that is a number.
fn value(name: &str) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/")))?;
    text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "is no number"))
}

/// A kernel parameter is large enough, and stays so.
pub fn judge(wanted: &Sysctl, seen: io::Result<Seen>) -> Check {
    let Sysctl { name, least, why } = wanted;
    let Seen { now, next } = match seen {
        Ok(seen) => seen,
        Err(e) => return warn(name, format!("cannot be read: {e}"), "nothing, if labs start"),
    };
    let stays = next.is_none_or(|next| next >= *least);
    let evidence = match (now >= *least, next) {
        (true, _) if stays => return ok(name, now.to_string()),
        (true, Some(next)) => format!("{now}, and {next} after the next start of the machine: {why}"),
        _ => format!("{now}, below {least}: {why}"),
    };
    let setting = format!("{name} = {least}");
    let mut plan = Vec::new();
    if next.is_none() || !stays {
        plan.push(line(FILE, name, &setting));
    }
    if now < *least {
        let set = |value: u64| ["sysctl", "-q", "-w", &format!("{name}={value}")].map(str::to_owned);
        plan.push(run_undone_by(
            &set(*least).each_ref().map(String::as_str),
            &set(now).each_ref().map(String::as_str),
        ));
    }
    let fix = format!("sysctl -w {name}={least}, and the line \"{setting}\" into {FILE}");
    warn(name, evidence, fix).with(plan)
}

/// The machine forwards packets, as the management networks of labs need.
pub fn forward() -> Check {
    match value(FORWARD) {
        Ok(0) => warn(
            FORWARD,
            "0: nodes of labs with mgmt cannot reach beyond this machine; links are not affected",
            "restart Docker (systemctl restart docker), which sets it together with its firewall unless its ip-forward is false; by hand it would be set without",
        ),
        Ok(value) => ok(FORWARD, value.to_string()),
        Err(e) => warn(FORWARD, format!("cannot be read: {e}"), "nothing, if labs start"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::finding::Status;
    use crate::commands::doctor::plan::Change;

    #[test]
    fn a_parameter_is_large_enough_now_and_after_a_start() {
        let [wanted, ..] = &SYSCTLS;
        let judged = |now, next| judge(wanted, Ok(Seen { now, next }));
        let kinds = |check: &Check| {
            check.plan.iter().map(|c| matches!(c, Change::Edit { .. })).collect::<Vec<bool>>()
        };
        let (least, low) = (wanted.least, wanted.least - 1);
        assert_eq!(judged(least, None).status, Status::Ok);
        assert_eq!(judged(least, Some(least)).status, Status::Ok);
        let cases = [
            (low, None, vec![true, false]),
            (low, Some(low), vec![true, false]),
            (low, Some(least), vec![false]),
            (least, Some(low), vec![true]),
        ];
        for (now, next, expected) in cases {
            let check = judged(now, next);
            assert_eq!((check.status, kinds(&check)), (Status::Warn, expected), "{now} {next:?}");
        }
        assert!(judged(low, None).fix.contains("sysctl -w fs.inotify.max_user_instances=512"));
        assert_eq!(judge(wanted, Err(io::Error::other("no"))).plan, []);
    }

    #[test]
    fn the_last_file_counts() {
        let said = "* Applying /a ...\nk.a = 1\n* Applying /b ...\nk.a = 2\nk.ab = 3\n";
        assert_eq!((next(said, "k.a"), next(said, "k.ab"), next(said, "k.b")), (Some(2), Some(3), None));
    }
}
