//! What this host's configuration allows a node of the host. The scheduler knows it and places by it; this is where it holds.

use netloom_model::spec::{NetworkMode, NodeSpec, capability, security_option};

use crate::config::Config;
use crate::error::Error;

/// Refuses what is not allowed, before anything is made.
pub(super) fn check(spec: &NodeSpec, config: &Config) -> Result<(), Error> {
    let refuse = |reason, what: String, how: &str| {
        let message = format!(
            "node {}: {what} is not allowed on this host; {how} in [compute] of its configuration, or do without it",
            spec.id
        );
        Err(Error::NotAllowed { reason, message })
    };
    // As it is written: a path that only leads to an allowed one is another.
    if let Some(device) = spec.devices.iter().find(|d| !config.devices.contains(&d.host_path)) {
        let what = format!("device {}", device.host_path);
        return refuse("DEVICE_NOT_ALLOWED", what, "name it in `devices`");
    }
    let is_named =
        |o: &str| config.security_opts.iter().any(|named| security_option(named) == security_option(o));
    if let Some(option) = spec.security_opts.iter().find(|o| !is_named(o)) {
        let what = format!("security option \"{option}\"");
        return refuse("SECURITY_OPTION_NOT_ALLOWED", what, "name it in `security_opts`");
    }
    let allowed = |cap: &String| config.capabilities.iter().any(|c| capability(c) == capability(cap));
    if let Some(cap) = spec.cap_add.iter().find(|cap| !allowed(cap)) {
        let what = format!("capability {}", capability(cap));
        return refuse("CAPABILITY_NOT_ALLOWED", what, "name it in `capabilities`");
    }
    if spec.network_mode == NetworkMode::Host && !config.host_network {
        let what = "the host's network namespace".to_owned();
        return refuse("HOST_NETWORK_NOT_ALLOWED", what, "set `host_network = true`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use netloom_model::spec::DeviceMapping;

    #[test]
    fn only_what_is_named_is_allowed() {
        let mut config = Config::default();
        let device = |path: &str| NodeSpec {
            id: "r1".into(),
            devices: vec![DeviceMapping { host_path: path.into(), ..DeviceMapping::default() }],
            ..NodeSpec::default()
        };
        assert!(check(&device("/dev/net/tun"), &config).is_ok());
        for path in ["/dev/mem", "/dev/net/../mem", "/dev/net/tun/"] {
            let refused = check(&device(path), &config).unwrap_err();
            assert!(refused.to_string().starts_with(&format!("node r1: device {path} is not allowed")));
            assert_eq!(netloom_model::Failure::from(refused).reason, "DEVICE_NOT_ALLOWED");
        }
        let secured = |option: &str| NodeSpec { security_opts: vec![option.into()], ..NodeSpec::default() };
        assert!(check(&secured("no-new-privileges"), &config).is_ok());
        for same in ["no-new-privileges:true", "no-new-privileges=true"] {
            assert!(check(&secured(same), &config).is_ok(), "{same} is what the scheduler takes it for");
        }
        assert!(check(&secured("no-new-privileges:false"), &config).is_err());
        assert!(check(&secured("seccomp=unconfined"), &config).is_err());
        let capable = |cap: &str| NodeSpec { cap_add: vec![cap.into()], ..NodeSpec::default() };
        for cap in ["NET_ADMIN", "CAP_SYS_ADMIN", "net_raw"] {
            assert!(check(&capable(cap), &config).is_ok(), "{cap}");
        }
        for cap in
            ["SYS_MODULE", "CAP_SYS_RAWIO", "sys_boot", "DAC_READ_SEARCH", "MAC_ADMIN", "ALL", "BOGUS", ""]
        {
            let refused = check(&capable(cap), &config).unwrap_err();
            assert!(refused.to_string().contains("name it in `capabilities`"), "{cap}: {refused}");
            assert_eq!(netloom_model::Failure::from(refused).reason, "CAPABILITY_NOT_ALLOWED");
        }
        config.capabilities.push("cap_sys_module".into());
        assert!(check(&capable("SYS_MODULE"), &config).is_ok());
        let on_host = NodeSpec { network_mode: NetworkMode::Host, ..NodeSpec::default() };
        assert!(check(&on_host, &config).is_err());
        config.host_network = true;
        assert!(check(&on_host, &config).is_ok());
    }
}
