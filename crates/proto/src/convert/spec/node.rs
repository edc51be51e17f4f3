//! What is asked of a node.

use netloom_model::spec as m;

use super::super::words;
use super::{ConvertError, twins};
use crate::v1 as p;

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
            disk_request_bytes: s.disk_request_bytes,
            labels: s.labels.into_iter().collect(),
            hostname: s.hostname,
            mgmt_ipv4: s.mgmt_ipv4,
            mgmt_ipv6: s.mgmt_ipv6,
            restart_policy: p::RestartPolicy::from(s.restart_policy).into(),
            skip_interface_wait: s.skip_interface_wait,
            startup_config: s.startup_config,
            enforce_startup_config: s.enforce_startup_config,
            license: s.license,
            save_file: s.save_file,
            aliases: s.aliases,
            volumes: s.volumes.into_iter().map(Into::into).collect(),
            tmpfs: s.tmpfs.into_iter().collect(),
            devices: s.devices.into_iter().map(Into::into).collect(),
            shm_size_bytes: s.shm_size_bytes,
            security_opts: s.security_opts,
            cpu_set: s.cpu_set,
            ports: s.ports.into_iter().map(Into::into).collect(),
            dns: s.dns.map(Into::into),
            network_mode: network_mode(s.network_mode),
            auto_remove: s.auto_remove,
            startup_delay_seconds: s.startup_delay_seconds,
            healthcheck: s.healthcheck.map(Into::into),
            stages: s.stages.into_iter().map(Into::into).collect(),
            certificate: s.certificate.map(Into::into),
            cgroup_parent: s.cgroup_parent,
            runtime: s.runtime.map(p::Runtime::from).unwrap_or_default().into(),
            placement: (!s.placement.is_any()).then(|| s.placement.into()),
            uplink: s.uplink,
        }
    }
}

impl TryFrom<p::NodeSpec> for m::NodeSpec {
    type Error = ConvertError;
    fn try_from(s: p::NodeSpec) -> Result<Self, ConvertError> {
        Ok(m::NodeSpec {
            image_pull_policy: s.image_pull_policy().into(),
            restart_policy: s.restart_policy().into(),
            runtime: match s.runtime() {
                p::Runtime::Unspecified => None,
                runtime => Some(runtime.try_into()?),
            },
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
            disk_request_bytes: s.disk_request_bytes,
            labels: s.labels.into_iter().collect(),
            hostname: s.hostname,
            mgmt_ipv4: s.mgmt_ipv4,
            mgmt_ipv6: s.mgmt_ipv6,
            skip_interface_wait: s.skip_interface_wait,
            startup_config: s.startup_config,
            enforce_startup_config: s.enforce_startup_config,
            license: s.license,
            save_file: s.save_file,
            aliases: s.aliases,
            volumes: s.volumes.into_iter().map(Into::into).collect(),
            tmpfs: s.tmpfs.into_iter().collect(),
            devices: s.devices.into_iter().map(Into::into).collect(),
            shm_size_bytes: s.shm_size_bytes,
            security_opts: s.security_opts,
            cpu_set: s.cpu_set,
            ports: s.ports.into_iter().map(Into::into).collect(),
            dns: s.dns.map(Into::into),
            network_mode: s.network_mode.map(Into::into).unwrap_or_default(),
            auto_remove: s.auto_remove,
            startup_delay_seconds: s.startup_delay_seconds,
            healthcheck: s.healthcheck.map(Into::into),
            stages: s.stages.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            certificate: s.certificate.map(Into::into),
            cgroup_parent: s.cgroup_parent,
            placement: s.placement.map(Into::into).unwrap_or_default(),
            uplink: s.uplink,
        })
    }
}

words!(m::PullPolicy, p::ImagePullPolicy, else IfNotPresent { IfNotPresent, Never, Always });
words!(m::KvmNeed, p::KvmNeed, else Preferred { Preferred, Required });
impl From<m::Placement> for p::PlacementSpec {
    fn from(s: m::Placement) -> Self {
        p::PlacementSpec {
            host: s.host,
            labels: s.labels.into_iter().collect(),
            tolerations: s.tolerations,
            apart_from: s.apart_from,
            kvm: s.kvm.map_or(p::KvmNeed::Unspecified, Into::into).into(),
        }
    }
}

impl From<p::PlacementSpec> for m::Placement {
    fn from(s: p::PlacementSpec) -> Self {
        let kvm = Some(s.kvm()).filter(|need| *need != p::KvmNeed::Unspecified).map(Into::into);
        m::Placement {
            kvm,
            host: s.host,
            labels: s.labels.into_iter().collect(),
            tolerations: s.tolerations,
            apart_from: s.apart_from,
        }
    }
}

words!(m::RestartPolicy, p::RestartPolicy, else Always { Always, OnFailure, Never });

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

twins!(m::VolumeMount, p::VolumeMount { name, target, read_only });
twins!(m::DeviceMapping, p::DeviceMapping { host_path, target, permissions });
twins!(m::PortMapping, p::PortMapping { host_address, host_port, node_port, protocol });
twins!(m::DnsSpec, p::DnsSpec { servers, search, options });
twins!(
    m::Healthcheck,
    p::Healthcheck { test, interval_seconds, timeout_seconds, retries, start_period_seconds }
);
twins!(m::CertificateSpec, p::CertificateSpec { sans, key_bits, validity_seconds });

/// The default travels as an absent message.
fn network_mode(mode: m::NetworkMode) -> Option<p::NetworkMode> {
    use p::network_mode::Mode;
    let mode = match mode {
        m::NetworkMode::Own => return None,
        m::NetworkMode::None => Mode::None(true),
        m::NetworkMode::Node(id) => Mode::Node(id),
        m::NetworkMode::Host => Mode::Host(true),
    };
    Some(p::NetworkMode { mode: Some(mode) })
}

impl From<p::NetworkMode> for m::NetworkMode {
    fn from(mode: p::NetworkMode) -> Self {
        use p::network_mode::Mode;
        match mode.mode {
            Some(Mode::None(true)) => m::NetworkMode::None,
            Some(Mode::Node(id)) => m::NetworkMode::Node(id),
            Some(Mode::Host(true)) => m::NetworkMode::Host,
            Some(Mode::None(false) | Mode::Host(false)) | None => m::NetworkMode::Own,
        }
    }
}

words!(m::Stage, p::Stage, "stage" { Create, CreateLinks, Configure, Healthy, Exit });

impl From<m::StageSpec> for p::StageSpec {
    fn from(s: m::StageSpec) -> Self {
        let wait = |w: m::StageWait| p::StageWait { node: w.node, stage: p::Stage::from(w.stage).into() };
        p::StageSpec {
            stage: p::Stage::from(s.stage).into(),
            wait_for: s.wait_for.into_iter().map(wait).collect(),
            exec: s.exec.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<p::StageSpec> for m::StageSpec {
    type Error = ConvertError;
    fn try_from(s: p::StageSpec) -> Result<Self, ConvertError> {
        let wait = |w: p::StageWait| {
            Ok::<_, ConvertError>(m::StageWait { stage: w.stage().try_into()?, node: w.node })
        };
        Ok(m::StageSpec {
            stage: s.stage().try_into()?,
            wait_for: s.wait_for.into_iter().map(wait).collect::<Result<_, _>>()?,
            exec: s.exec.into_iter().map(Into::into).collect(),
        })
    }
}

twins!(m::StageExec, p::StageExec { command, on_exit });
