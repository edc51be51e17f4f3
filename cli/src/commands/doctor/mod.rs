//! `doctor`: what this machine lacks for netloom, each with its evidence and what to do. Reads and tries, changes nothing.
//!
//! [`probe`] looks, [`verdict`] judges, purely; this file puts them together and prints.

use std::path::Path;

use netloom_model::spec::Plane;
use netloom_service::Settings;
use serde_json::json;

use self::verdict::{Check, Status};
use super::Context;
use crate::args::Format;
use crate::error::Error;
use crate::output::style::{Style, Tone, one_line};
use crate::output::{json, words};

mod probe;
mod verdict;

/// Exit code 1 when netloom cannot work here.
pub async fn run(context: &Context, config: Option<&Path>, format: Format) -> Result<u8, Error> {
    let settings = Settings::load(config, None, None)
        .map_err(|e| Error::Invalid(format!("the server's configuration cannot be read: {e:#}")))?;
    let checks = check(context, &settings).await?;
    let healthy = checks.iter().all(|c| c.status != Status::Fail);
    match format {
        Format::Table => context.print(&text(context.style, &checks))?,
        Format::Json => context.print(&json::text(&json!({ "ok": healthy, "checks": checks })))?,
    }
    Ok(u8::from(!healthy))
}

async fn check(context: &Context, settings: &Settings) -> Result<Vec<Check>, Error> {
    let path = |key: &str, default: &str| -> Result<std::path::PathBuf, Error> {
        let set =
            settings.value(key).map_err(|e| Error::Invalid(format!("{key} in the configuration: {e:#}")))?;
        Ok(set.unwrap_or_else(|| default.into()))
    };
    let docker = path("compute.docker_socket", "/var/run/docker.sock")?;
    let ovsdb = path("network.ovsdb_socket", "/var/run/openvswitch/db.sock")?;
    let ovs_run_dir = path("network.ovs_run_dir", "/var/run/openvswitch")?;

    let plane = settings.value::<String>("network.plane");
    let plane = plane.map_err(|e| format!("network.plane in the configuration: {e:#}"));
    let plane = plane.and_then(|set| match set {
        Some(set) => set.parse::<Plane>().map_err(|e| format!("network.plane in the configuration: {e}")),
        None => Ok(Plane::default()),
    });
    let (datapath, server) = (probe::datapath(), probe::server(context, settings).await);

    let mut checks = vec![
        verdict::docker(&docker, probe::docker(&docker).await),
        verdict::ovsdb(&ovsdb, probe::ovsdb(&ovsdb).await),
        verdict::vswitchd(&ovs_run_dir, probe::vswitchd(&ovs_run_dir)),
        verdict::datapath(&datapath),
        verdict::plane(plane, &datapath, &server),
        verdict::capabilities(probe::capabilities()),
        verdict::veth(probe::veth()),
        verdict::disk(&settings.data_dir, probe::free_bytes(&settings.data_dir)),
    ];
    checks.extend(verdict::SYSCTLS.iter().map(|wanted| verdict::sysctl(wanted, probe::sysctl(wanted.name))));
    checks.push(verdict::kvm(probe::kvm()));
    checks.push(verdict::server(server));
    Ok(checks)
}

fn text(style: Style, checks: &[Check]) -> String {
    let width = checks.iter().map(|c| c.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let (word, tone) = match check.status {
            Status::Ok => ("OK  ", Tone::Good),
            Status::Warn => ("WARN", Tone::Busy),
            Status::Fail => ("FAIL", Tone::Bad),
        };
        let word = style.paint(tone, word);
        text.push_str(&format!("{word}  {:width$}  {}\n", check.name, one_line(&check.evidence)));
        if !check.fix.is_empty() {
            text.push_str(&format!("      {:width$}  to do: {}\n", "", check.fix));
        }
    }
    let count = |status| checks.iter().filter(|c| c.status == status).count();
    text.push_str(&match (count(Status::Fail), count(Status::Warn)) {
        (0, 0) => "netloom can work here\n".to_owned(),
        (0, warnings) => {
            format!("netloom can work here, with {}\n", words::count(warnings as i128, "warning"))
        }
        (failures, _) => format!(
            "netloom cannot work here before {} mended\n",
            if failures == 1 {
                "the check that failed is".to_owned()
            } else {
                format!("the {failures} checks that failed are")
            }
        ),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_has_a_line_and_what_to_do_below() {
        let check = |name: &str, status, fix: &str| Check {
            name: name.into(),
            status,
            evidence: "seen".into(),
            fix: fix.into(),
        };
        let checks = [check("docker", Status::Ok, ""), check("disk", Status::Fail, "make room")];
        let expected = "OK    docker  seen\nFAIL  disk    seen\n              to do: make room\nnetloom cannot work here before the check that failed is mended\n";
        assert_eq!(text(Style::PLAIN, &checks), expected);
        assert!(text(Style::PLAIN, &checks[..1]).ends_with("netloom can work here\n"));
    }
}
