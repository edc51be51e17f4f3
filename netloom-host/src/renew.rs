//! A new certificate when a third of the old one's time is left: with a new key, asked for over the old one.
//!
//! What is shown is what the file of the membership says, whoever wrote it: this task, or a `netloom-host join` beside it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use netloom_proto::scheduler::v1 as ps;
use netloom_proto::scheduler::v1::membership_service_client::MembershipServiceClient;
use netloom_service::status::from_status;
use netloom_service::tls::authority::Asked;
use netloom_service::tls::{Given, Identity};
use netloom_service::{Connector, Shutdown, Whom};

use crate::membership::{Membership, now_us};

/// Longest wait before clock and file are looked at again: the clock may be set, the machine may sleep or join anew.
const LOOK: Duration = Duration::from_secs(10);
/// How long after a failure it is tried again, and at most a tenth of what is left.
const AGAIN: Duration = Duration::from_secs(60);

/// Renews until shut down. Ends in an error when this machine has become another host meanwhile, which needs a new start.
pub async fn run(
    data_dir: PathBuf,
    mut shown: Membership,
    identity: Arc<Identity>,
    connector: Connector,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    while !shutdown.is_cancelled() {
        let wait = match Membership::read(&data_dir)? {
            Some(member) if member != shown => {
                anyhow::ensure!(member.is_served_as(&shown), "this machine has joined as another host");
                identity.replace(&member.given()?)?;
                tracing::info!("shows another certificate");
                shown = member;
                Duration::ZERO
            }
            Some(member) => match until(member.renew_us()) {
                Duration::ZERO => match renew(member.clone(), &data_dir, &connector).await {
                    Ok(()) => Duration::ZERO,
                    Err(e) => {
                        tracing::error!("the certificate cannot be renewed, tried again: {e:#}");
                        AGAIN.min(until(member.expire_us) / 10).max(Duration::from_millis(500))
                    }
                },
                left => left.min(LOOK),
            },
            None => {
                tracing::error!("the file of the membership is gone: restore it, or join again");
                LOOK
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => {}
        }
    }
    Ok(())
}

fn until(us: i64) -> Duration {
    Duration::from_micros(u64::try_from(us - now_us()).unwrap_or(0))
}

async fn renew(
    mut member: Membership,
    data_dir: &std::path::Path,
    connector: &Connector,
) -> anyhow::Result<()> {
    let asked = Asked::of(&Asked::new_key()?)?;
    let mut client = MembershipServiceClient::new(connector.channel_to(&member.controller, Whom::Any));
    let renewed = client.renew(ps::RenewRequest { request: asked.request }).await;
    let renewed = renewed.map_err(|status| anyhow::anyhow!(from_status(&status).message))?.into_inner();
    let given = Given { key: asked.key, certificate: renewed.certificate };
    // On disk before it is shown: after a crash in between, the old one is still good.
    member.renewed(&given, renewed.expire_us);
    member.write(data_dir)?;
    tracing::info!("the certificate is renewed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use netloom_service::tls::authority::Request;
    use netloom_service::tls::{Authority, Peer};
    use tokio::net::TcpListener;

    use super::*;

    const BOUND: Duration = Duration::from_secs(20);

    /// The membership of h2 with this uid, and a certificate that is valid for so long.
    fn member(authority: &Authority, id: &str, uid: &str, lifetime: Duration) -> Membership {
        let asked = Asked::of(&Asked::new_key().unwrap()).unwrap();
        let peer = Peer::Host { id: id.parse().unwrap(), uid: uid.to_owned() };
        let request = Request::read(&asked.request).unwrap();
        let issued = authority.certify(&request, &peer, &["127.0.0.1".to_owned()], lifetime).unwrap();
        let given = Given { key: asked.key, certificate: issued.certificate };
        // Nobody listens there: it cannot renew.
        let controller = "https://127.0.0.1:1".parse().unwrap();
        let host = (id.parse().unwrap(), uid.to_owned());
        let listen = "127.0.0.1:7610".to_owned();
        Membership::new(host, controller, listen, (&given, issued.expire_us), authority.certificate())
    }

    #[tokio::test]
    async fn a_host_that_joins_again_while_it_runs_is_shown_as_it_is_now() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::keep(dir.path(), &Authority::make().unwrap()).unwrap());
        let over = member(&authority, "h2", "u1", Duration::ZERO);
        over.write(dir.path()).unwrap();
        let identity = Identity::host(&over.given().unwrap(), authority.certificate()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = identity.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = served.accept(stream).await;
            }
        });
        let (end, connector) = (Shutdown::new(), Connector::default().showing(identity.clone()));
        let task = tokio::spawn(run(dir.path().to_owned(), over, identity, connector, end.clone()));

        // Joined anew: another row, another certificate.
        member(&authority, "h2", "u2", BOUND).write(dir.path()).unwrap();
        let controller = Identity::controller(authority.clone(), Vec::new()).unwrap();
        let peer = Peer::Host { id: "h2".parse().unwrap(), uid: "u2".to_owned() };
        let is_shown = || async { controller.connect(&address, &peer).await.is_ok() };
        netloom_service::testing::eventually("the new certificate is shown", BOUND, is_shown).await;
        assert!(!task.is_finished());

        member(&authority, "h3", "u3", BOUND).write(dir.path()).unwrap();
        let ended = tokio::time::timeout(BOUND, task).await.expect("it ends").unwrap();
        assert_eq!(ended.unwrap_err().to_string(), "this machine has joined as another host");
        end.cancel();
    }
}
