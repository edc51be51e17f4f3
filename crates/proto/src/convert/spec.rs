//! Specs.

use netloom_model::id::Digest;
use netloom_model::spec as m;

use super::ConvertError;
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
        }
    }
}

impl TryFrom<p::LabSpec> for m::LabSpec {
    type Error = ConvertError;
    fn try_from(s: p::LabSpec) -> Result<Self, ConvertError> {
        Ok(m::LabSpec {
            prefix: s.prefix,
            mgmt: s.mgmt.map(Into::into),
            nodes: s.nodes.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            links: s.links.into_iter().map(Into::into).collect(),
            files: s.files.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            labels: s.labels.into_iter().collect(),
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
        }
    }
}

impl From<m::NodeSpec> for p::NodeSpec {
    fn from(s: m::NodeSpec) -> Self {
        p::NodeSpec {
            id: s.id,
            kind: s.kind,
            image: s.image,
            image_pull_policy: p::ImagePullPolicy::from(s.image_pull_policy).into(),
            r#type: s.r#type,
            group: s.group,
            env: s.env.into_iter().collect(),
            binds: s.binds.into_iter().map(Into::into).collect(),
            exec: s.exec,
            cmd: s.cmd,
            entrypoint: s.entrypoint,
            user: s.user,
            cap_add: s.cap_add,
            sysctls: s.sysctls.into_iter().collect(),
            cpu_limit_millis: s.cpu_limit_millis,
            memory_limit_bytes: s.memory_limit_bytes,
            cpu_request_millis: s.cpu_request_millis,
            memory_request_bytes: s.memory_request_bytes,
            labels: s.labels.into_iter().collect(),
            hostname: s.hostname,
            mgmt_ipv4: s.mgmt_ipv4,
            mgmt_ipv6: s.mgmt_ipv6,
            restart_policy: p::RestartPolicy::from(s.restart_policy).into(),
            skip_interface_wait: s.skip_interface_wait,
        }
    }
}

impl TryFrom<p::NodeSpec> for m::NodeSpec {
    type Error = ConvertError;
    fn try_from(s: p::NodeSpec) -> Result<Self, ConvertError> {
        Ok(m::NodeSpec {
            image_pull_policy: s.image_pull_policy().into(),
            restart_policy: s.restart_policy().into(),
            binds: s.binds.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            id: s.id,
            kind: s.kind,
            image: s.image,
            r#type: s.r#type,
            group: s.group,
            env: s.env.into_iter().collect(),
            exec: s.exec,
            cmd: s.cmd,
            entrypoint: s.entrypoint,
            user: s.user,
            cap_add: s.cap_add,
            sysctls: s.sysctls.into_iter().collect(),
            cpu_limit_millis: s.cpu_limit_millis,
            memory_limit_bytes: s.memory_limit_bytes,
            cpu_request_millis: s.cpu_request_millis,
            memory_request_bytes: s.memory_request_bytes,
            labels: s.labels.into_iter().collect(),
            hostname: s.hostname,
            mgmt_ipv4: s.mgmt_ipv4,
            mgmt_ipv6: s.mgmt_ipv6,
            skip_interface_wait: s.skip_interface_wait,
        })
    }
}

impl From<m::PullPolicy> for p::ImagePullPolicy {
    fn from(v: m::PullPolicy) -> Self {
        match v {
            m::PullPolicy::IfNotPresent => p::ImagePullPolicy::IfNotPresent,
            m::PullPolicy::Never => p::ImagePullPolicy::Never,
            m::PullPolicy::Always => p::ImagePullPolicy::Always,
        }
    }
}

impl From<p::ImagePullPolicy> for m::PullPolicy {
    fn from(v: p::ImagePullPolicy) -> Self {
        match v {
            p::ImagePullPolicy::Unspecified | p::ImagePullPolicy::IfNotPresent => m::PullPolicy::IfNotPresent,
            p::ImagePullPolicy::Never => m::PullPolicy::Never,
            p::ImagePullPolicy::Always => m::PullPolicy::Always,
        }
    }
}

impl From<m::RestartPolicy> for p::RestartPolicy {
    fn from(v: m::RestartPolicy) -> Self {
        match v {
            m::RestartPolicy::Always => p::RestartPolicy::Always,
            m::RestartPolicy::OnFailure => p::RestartPolicy::OnFailure,
            m::RestartPolicy::Never => p::RestartPolicy::Never,
        }
    }
}

impl From<p::RestartPolicy> for m::RestartPolicy {
    fn from(v: p::RestartPolicy) -> Self {
        match v {
            p::RestartPolicy::Unspecified | p::RestartPolicy::Always => m::RestartPolicy::Always,
            p::RestartPolicy::OnFailure => m::RestartPolicy::OnFailure,
            p::RestartPolicy::Never => m::RestartPolicy::Never,
        }
    }
}

impl From<m::Bind> for p::Bind {
    fn from(b: m::Bind) -> Self {
        let source = match b.source {
            m::BindSource::Bundle(path) => p::bind::Source::BundlePath(path),
            m::BindSource::Host(path) => p::bind::Source::HostPath(path),
        };
        p::Bind { source: Some(source), target: b.target, read_only: b.read_only }
    }
}

impl TryFrom<p::Bind> for m::Bind {
    type Error = ConvertError;
    fn try_from(b: p::Bind) -> Result<Self, ConvertError> {
        let source = match b.source {
            Some(p::bind::Source::BundlePath(path)) => m::BindSource::Bundle(path),
            Some(p::bind::Source::HostPath(path)) => m::BindSource::Host(path),
            None => return Err(ConvertError::new("bind.source", "neither bundle_path nor host_path is set")),
        };
        Ok(m::Bind { source, target: b.target, read_only: b.read_only })
    }
}

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

impl From<m::LinkSpec> for p::LinkSpec {
    fn from(l: m::LinkSpec) -> Self {
        p::LinkSpec {
            a: Some(l.a.into()),
            b: Some(l.b.into()),
            mtu: l.mtu,
            labels: l.labels.into_iter().collect(),
        }
    }
}

impl From<p::LinkSpec> for m::LinkSpec {
    fn from(l: p::LinkSpec) -> Self {
        // An absent end is an empty one: LabSpec::check says that there is no node "".
        m::LinkSpec {
            a: l.a.unwrap_or_default().into(),
            b: l.b.unwrap_or_default().into(),
            mtu: l.mtu,
            labels: l.labels.into_iter().collect(),
        }
    }
}

impl From<m::Endpoint> for p::Endpoint {
    fn from(e: m::Endpoint) -> Self {
        p::Endpoint { node: e.node, interface: e.interface, mac: e.mac, ipv4: e.ipv4, ipv6: e.ipv6 }
    }
}

impl From<p::Endpoint> for m::Endpoint {
    fn from(e: p::Endpoint) -> Self {
        m::Endpoint { node: e.node, interface: e.interface, mac: e.mac, ipv4: e.ipv4, ipv6: e.ipv6 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_survives_the_wire() {
        let spec: m::LabSpec = serde_json::from_value(serde_json::json!({
            "prefix": "p", "mgmt": {"network": "n", "ipv4_subnet": "10.0.0.0/24", "mtu": 1400}, "labels": {"a": "b"},
            "nodes": [{
                "id": "r1", "kind": "frr", "image": "i", "image_pull_policy": "never", "type": "t", "group": "g",
                "env": {"A": "1"}, "binds": [
                    {"source": {"bundle": "f"}, "target": "/f", "read_only": true},
                    {"source": {"host": "/h"}, "target": "/h", "read_only": false}],
                "exec": ["x"], "cmd": ["c"], "entrypoint": ["e"], "user": "u", "cap_add": ["NET_ADMIN"],
                "sysctls": {"net.a": "1"}, "cpu_limit_millis": 1, "memory_limit_bytes": 2, "cpu_request_millis": 3,
                "memory_request_bytes": 4, "labels": {"l": "m"}, "hostname": "h", "mgmt_ipv4": "10.0.0.2",
                "mgmt_ipv6": "fd00::2", "restart_policy": "on-failure", "skip_interface_wait": true}],
            "links": [{"a": {"node": "r1", "interface": "eth1", "mac": "02:00:00:00:00:01"},
                       "b": {"node": "r1", "interface": "eth2", "ipv4": "10.1.0.1/24"}, "mtu": 1500, "labels": {"k": "v"}}],
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
