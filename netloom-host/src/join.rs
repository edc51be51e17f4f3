//! Joining.

use std::io::ErrorKind;
use std::net::{ToSocketAddrs as _, UdpSocket};
use std::path::Path;

use anyhow::{Context as _, bail};
use netloom_model::id::HostId;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::scheduler::v1::membership_service_client::MembershipServiceClient;
use netloom_service::fence::term_file;
use netloom_service::installation::read_or_make;
use netloom_service::status::from_status;
use netloom_service::tls::authority::Asked;
use netloom_service::tls::{Given, Identity, Pinned};
use netloom_service::{Connector, Endpoint, Settings, Whom};

use crate::args::Join;
use crate::membership::Membership;

/// The key that a join is tried with, so that one whose answer was lost can be tried again.
const KEY: &str = "joining.key";

/// Makes this machine a host.
pub async fn run(settings: &Settings, asked: Join) -> anyhow::Result<()> {
    let data_dir = &settings.data_dir;
    let before = Membership::read(data_dir)?;
    if let Some(member) = before.as_ref().filter(|member| member.is_valid()) {
        bail!(
            "this machine is host {} already, of the controller at {}: to let it join anew, remove it there (netloom host remove) and {} here",
            member.host,
            member.controller,
            data_dir.join("membership.json").display()
        );
    }
    let token = asked.token.read(std::io::stdin().lock())?;
    let host = match asked.id {
        Some(id) => id,
        None => own_name()?,
    };
    let Endpoint::Tls { address: controller, .. } = &asked.endpoint.all()[0] else {
        bail!("no address to join at")
    };
    let address = match asked.address {
        Some(address) => address,
        None => own_address(controller, &asked.listen)?,
    };
    let made = Asked::new_key()?;
    let text = read_or_make(&data_dir.join(KEY), 0o600, || made)
        .with_context(|| format!("cannot read or make {}", data_dir.join(KEY).display()))?;
    let key = Asked::of(&text)?;

    let connector = Connector::default().joining(Pinned::new(token.fingerprint));
    let mut client = MembershipServiceClient::new(connector.channel_to(&asked.endpoint, Whom::Any));
    let request = ps::JoinRequest {
        secret: token.secret,
        host: host.to_string(),
        address: address.clone(),
        labels: asked.labels.into_iter().collect(),
        request: key.request.clone(),
    };
    let joined =
        client.join(request).await.map_err(|status| anyhow::anyhow!(from_status(&status).message))?;
    let joined = joined.into_inner();
    let given = Given { key: key.key, certificate: joined.certificate };
    // What cannot be used is not kept.
    Identity::host(&given, &joined.authority)?;
    let listen = asked.listen;
    let member = Membership::new(
        (joined.host.parse().context("the controller gave no id")?, joined.uid),
        asked.endpoint,
        listen,
        (&given, joined.expire_us),
        &joined.authority,
    );
    forget_leaders(data_dir, before.as_ref(), &member)?;
    member.write(data_dir)?;
    let _ = std::fs::remove_file(data_dir.join(KEY));
    println!(
        "this machine is host {} now, reached at {address}. Start it: sudo systemctl enable --now netloom-host, or sudo netloom-host",
        member.host
    );
    Ok(())
}

/// Leaders of another installation count their terms otherwise: what those of the former one reached would have the new one's calls refused as stale.
fn forget_leaders(data_dir: &Path, before: Option<&Membership>, now: &Membership) -> anyhow::Result<()> {
    if let Some(before) = before
        && before.authority()? == now.authority()?
    {
        return Ok(());
    }
    for service in ["compute", "network"] {
        let file = term_file(data_dir, service);
        match std::fs::remove_file(&file) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("cannot remove {}", file.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The machine's name, as an id.
fn own_name() -> anyhow::Result<HostId> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    name.parse()
        .with_context(|| format!("this machine's name \"{name}\" is no id of a host: give one with --id"))
}

/// The address that leads to the controller, with the port that is listened on.
fn own_address(controller: &str, listen: &str) -> anyhow::Result<String> {
    let cannot = || {
        format!("no way leads to {controller}: check it, or say where this machine is reached (--address)")
    };
    let to = controller.to_socket_addrs().with_context(cannot)?.next().with_context(cannot)?;
    let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    // Connecting such a socket sends nothing: it looks up the way.
    let socket = UdpSocket::bind(any)?;
    socket.connect(to).with_context(cannot)?;
    let mut own = socket.local_addr()?;
    let port = listen.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    own.set_port(port.with_context(|| format!("--listen {listen} is not address:port"))?);
    Ok(own.to_string())
}

#[cfg(test)]
mod tests {
    use netloom_service::fence::Fence;

    use super::*;

    #[test]
    fn a_machine_that_joins_another_installation_is_led_by_its_first_leader() {
        let dir = tempfile::tempdir().unwrap();
        let member = |authority: u8| {
            let given = Given { key: vec![1], certificate: vec![2] };
            let host = ("h2".parse().unwrap(), "uid".to_owned());
            let controller = "https://10.0.0.1:7601".parse().unwrap();
            Membership::new(host, controller, "0.0.0.0:7610".into(), (&given, 0), &[authority])
        };
        let led = |term: u64| {
            ["compute", "network"]
                .map(|s| Fence::open(&term_file(dir.path(), s)).unwrap().admit(term).is_ok())
        };
        forget_leaders(dir.path(), None, &member(1)).unwrap();
        assert_eq!(led(7), [true, true]);
        forget_leaders(dir.path(), Some(&member(1)), &member(1)).unwrap();
        assert_eq!(led(6), [false, false], "of the same installation: that term is over");
        forget_leaders(dir.path(), Some(&member(1)), &member(2)).unwrap();
        assert_eq!(led(1), [true, true]);
        assert_eq!(led(7), [true, true]);
        forget_leaders(dir.path(), None, &member(1)).unwrap();
        assert_eq!(led(1), [true, true], "nobody knows whose leaders those were");
    }
}
