//! Specs.

use netloom_model::id::Digest;
use netloom_model::spec as m;

use super::{ConvertError, words};

mod link;
mod node;
mod plane;

pub(super) use self::link::impairment;
pub(super) use self::plane::{plane, plane_value};
use crate::v1 as p;

impl From<m::LabSpec> for p::LabSpec {
    fn from(s: m::LabSpec) -> Self {
        p::LabSpec {
            prefix: s.prefix,
            mgmt: s.mgmt.map(Into::into),
            nodes: s.nodes.into_iter().map(Into::into).collect(),
            links: s.links.into_iter().map(Into::into).collect(),
            files: s.files.into_iter().map(Into::into).collect(),
            labels: s.labels.into_iter().collect(),
            certificate_authority: s.certificate_authority.map(Into::into),
            plane: plane_value(s.plane),
            placement_policy: p::PlacementPolicy::from(s.placement_policy).into(),
            project: s.project,
            reschedule_after_seconds: s.reschedule_after_seconds,
        }
    }
}

impl TryFrom<p::LabSpec> for m::LabSpec {
    type Error = ConvertError;
    fn try_from(s: p::LabSpec) -> Result<Self, ConvertError> {
        Ok(m::LabSpec {
            placement_policy: s.placement_policy().into(),
            project: s.project,
            reschedule_after_seconds: s.reschedule_after_seconds,
            prefix: s.prefix,
            mgmt: s.mgmt.map(Into::into),
            nodes: s.nodes.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            links: s.links.into_iter().map(Into::into).collect(),
            files: s.files.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            labels: s.labels.into_iter().collect(),
            certificate_authority: s.certificate_authority.map(Into::into),
            plane: plane("spec.plane", s.plane)?,
        })
    }
}

impl From<m::MgmtSpec> for p::MgmtSpec {
    fn from(s: m::MgmtSpec) -> Self {
        p::MgmtSpec {
            network: s.network,
            ipv4_subnet: s.ipv4_subnet,
            ipv6_subnet: s.ipv6_subnet,
            ipv4_gateway: s.ipv4_gateway,
            ipv6_gateway: s.ipv6_gateway,
            mtu: s.mtu,
            bridge: s.bridge,
            ipv4_range: s.ipv4_range,
            ipv6_range: s.ipv6_range,
            internal: s.internal,
            driver_options: s.driver_options.into_iter().collect(),
        }
    }
}

impl From<p::MgmtSpec> for m::MgmtSpec {
    fn from(s: p::MgmtSpec) -> Self {
        m::MgmtSpec {
            network: s.network,
            ipv4_subnet: s.ipv4_subnet,
            ipv6_subnet: s.ipv6_subnet,
            ipv4_gateway: s.ipv4_gateway,
            ipv6_gateway: s.ipv6_gateway,
            mtu: s.mtu,
            bridge: s.bridge,
            ipv4_range: s.ipv4_range,
            ipv6_range: s.ipv6_range,
            internal: s.internal,
            driver_options: s.driver_options.into_iter().collect(),
        }
    }
}

/// Both directions for messages and model types whose fields have the same names and types.
macro_rules! twins {
    ($model:ty, $proto:ty { $($field:ident),+ $(,)? }) => {
        impl From<$model> for $proto {
            fn from(v: $model) -> Self {
                Self { $($field: v.$field),+ }
            }
        }

        impl From<$proto> for $model {
            fn from(v: $proto) -> Self {
                Self { $($field: v.$field),+ }
            }
        }
    };
}
use twins;

words!(m::PlacementPolicy, p::PlacementPolicy, else BestEffort { BestEffort, AllOrNothing });

twins!(m::AuthoritySpec, p::AuthoritySpec { certificate, key, key_bits, validity_seconds });

impl From<m::FileEntry> for p::FileEntry {
    fn from(f: m::FileEntry) -> Self {
        p::FileEntry { path: f.path, digest: f.digest.into(), size_bytes: f.size_bytes, mode: f.mode }
    }
}

impl TryFrom<p::FileEntry> for m::FileEntry {
    type Error = ConvertError;
    fn try_from(f: p::FileEntry) -> Result<Self, ConvertError> {
        let digest = Digest::try_from(f.digest).map_err(|e| ConvertError::new("file.digest", e))?;
        Ok(m::FileEntry { path: f.path, digest, size_bytes: f.size_bytes, mode: f.mode })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_survives_the_wire() {
        let spec: m::LabSpec = serde_json::from_value(serde_json::json!({
            "prefix": "p", "mgmt": {"network": "n", "ipv4_subnet": "10.0.0.0/24", "mtu": 1400, "bridge": "br",
                "ipv4_range": "10.0.0.128/25", "ipv6_range": "fd00::/65", "internal": true, "driver_options": {"o": "1"}}, "labels": {"a": "b"},
            "nodes": [{
                "id": "r1", "kind": "frr", "image": "i", "image_pull_policy": "never", "type": "t", "group": "g",
                "env": {"A": "1"}, "binds": [
                    {"source": {"bundle": "f"}, "target": "/f", "read_only": true},
                    {"source": {"host": "/h"}, "target": "/h", "read_only": false}],
                "exec": ["x"], "cmd": ["c"], "entrypoint": ["e"], "user": "u", "cap_add": ["NET_ADMIN"],
                "sysctls": {"net.a": "1"}, "cpu_limit_millis": 1, "memory_limit_bytes": 2, "cpu_request_millis": 3,
                "memory_request_bytes": 4, "disk_request_bytes": 7, "labels": {"l": "m"}, "hostname": "h", "mgmt_ipv4": "10.0.0.2",
                "mgmt_ipv6": "fd00::2", "restart_policy": "on-failure", "skip_interface_wait": true,
                "startup_config": "f", "enforce_startup_config": true, "license": "f", "save_file": "/f", "aliases": ["r"],
                "volumes": [{"name": "v", "target": "/v", "read_only": true}], "tmpfs": {"/t": "size=1m"},
                "devices": [{"host_path": "/dev/net/tun", "target": "/dev/net/tun", "permissions": "rw"}], "shm_size_bytes": 5,
                "security_opts": ["no-new-privileges"], "cpu_set": "0-1",
                "ports": [{"host_address": "127.0.0.1", "host_port": 8080, "node_port": 80, "protocol": "tcp"}],
                "dns": {"servers": ["1.1.1.1"], "search": ["x"], "options": ["ndots:2"]}, "network_mode": {"node": "r2"},
                "auto_remove": true, "startup_delay_seconds": 6,
                "healthcheck": {"test": ["CMD", "true"], "interval_seconds": 1, "timeout_seconds": 2, "retries": 3, "start_period_seconds": 4},
                "stages": [{"stage": "create-links", "wait_for": [{"node": "r2", "stage": "healthy"}], "exec": [{"command": "x", "on_exit": true}]}],
                "certificate": {"sans": ["a"], "key_bits": 2048, "validity_seconds": 7}, "cgroup_parent": "c", "runtime": "libvirt",
                "placement": {"host": "h1", "labels": {"rack": "2"}, "tolerations": ["gpu"], "apart_from": ["r2"], "kvm": "required"}, "uplink": "ens5"}],
            "placement_policy": "all-or-nothing", "project": "p1", "reschedule_after_seconds": 90,
            "certificate_authority": {"certificate": "f", "key": "f", "key_bits": 4096, "validity_seconds": 9},
            "links": [{"a": {"node": "r1", "interface": "eth1", "mac": "02:00:00:00:00:01"},
                       "b": {"node": "r1", "interface": "eth2", "ipv4": "10.1.0.1/24"}, "mtu": 1500, "labels": {"k": "v"},
                       "a_to_b": {"rate_bps": 1, "delay_us": 2, "jitter_us": 3, "loss_ppm": 4, "corrupt_ppm": 5, "duplicate_ppm": 6, "reorder_ppm": 7},
                       "b_to_a": {"rate_bps": 8}},
                      {"a": {"node": "r1", "interface": "eth3"}, "b": {"node": "host", "interface": "h1", "type": "host"}},
                      {"a": {"node": "r1", "interface": "eth4"}, "b": {"node": "dummy", "type": "dummy"}},
                      {"a": {"node": "r1", "interface": "eth5"}, "b": {"node": "mgmt-net", "interface": "m1", "type": "mgmt-net"}}],
            "files": [{"path": "f", "digest": format!("sha256:{}", "0".repeat(64)), "size_bytes": 5, "mode": 420}],
        }))
        .unwrap();
        let wire = p::LabSpec::from(spec.clone());
        assert_eq!(m::LabSpec::try_from(wire).unwrap(), spec);
    }

    #[test]
    fn a_bind_without_a_source_is_named() {
        let e = m::Bind::try_from(p::Bind::default()).unwrap_err();
        assert_eq!(e.field, "bind.source");
    }
}
