//! Which machines are hosts: they join with a token, renew their certificates, are cordoned, and are removed.
//!
//! ```text
//! host token ─► hash kept ─► Join: token, key ─► certificate + row ─┐
//!                            Renew: old certificate ─► new one      ├─► hosts the scheduler dials, observes and places on
//! host remove ─► nodes placed there go elsewhere, or it is refused ─┘
//! ```
//!
//! A certificate says the uid of its host's row. A host that was removed has none any more, and one that joins again another: so that is all there is to revoke.

use std::collections::BTreeMap;
use std::time::Duration;

use netloom_model::failure::{Code, Failure};
use netloom_model::id::HostId;
use netloom_service::Endpoint;
use netloom_service::tls::authority::{Issued, Request};
use netloom_service::tls::{JoinToken, Peer, TlsError};

use crate::apply::Purpose;
use crate::client::HostClient;
use crate::config::HostConfig;
use crate::error::Result;
use crate::plan::{has_nodes_on, is_on, without_host};
use crate::policy::HostPolicy;
use crate::rows::{HostRow, Membership, now_us};
use crate::scheduler::Scheduler;
use crate::world::HostView;

/// How long a token is good for, at least, at most, and when nothing is said.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(7 * 86_400);
const USUAL: Duration = Duration::from_secs(3_600);

/// A token that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// When it is no longer good.
    pub expire_us: i64,
    /// The host that joined with it, and the hash of that one's key; an empty one once that host is no longer whom this key made it.
    pub used: Option<(HostId, String)>,
}

/// What a machine that joins says.
#[derive(Debug, Clone)]
pub struct Join {
    /// The secret of its token.
    pub secret: String,
    /// The id that it is to have.
    pub host: HostId,
    /// Where it is reached, as `address:port`.
    pub address: String,
    /// What its administrator says of it.
    pub labels: BTreeMap<String, String>,
    /// Its request for a certificate, in DER.
    pub request: Vec<u8>,
}

fn refused(code: Code, reason: &str, message: impl Into<String>) -> Failure {
    Failure::new(code, reason, message)
}

fn invalid(field: &str, what: impl std::fmt::Display) -> Failure {
    let what = what.to_string();
    refused(Code::InvalidArgument, "INVALID_REQUEST", format!("{field}: {what}")).violation(field, what)
}

/// Says that there is no such host.
pub fn host_not_found(host: &HostId) -> Failure {
    let message = format!("there is no host \"{host}\": see netloom host list");
    refused(Code::NotFound, "HOST_NOT_FOUND", message).with("host", host.to_string())
}

/// Whether a token lets this key join as this host; true when it did so before, and its answer was lost on the way. Not after the removal of that host, which its
/// tokens forget the key with.
pub fn admits(token: Option<&Token>, host: &HostId, key_hash: &str, now_us: i64) -> Result<bool, Failure> {
    let another = "ask for another one: netloom host token";
    match token {
        None => Err(refused(
            Code::Unauthenticated,
            "JOIN_TOKEN_UNKNOWN",
            format!("this installation has made no such token, or forgot it long ago; {another}"),
        )),
        Some(Token { used: Some((by, key)), .. }) if by.folded() == host.folded() && key == key_hash => {
            Ok(true)
        }
        Some(Token { used: Some((by, _)), .. }) => Err(refused(
            Code::FailedPrecondition,
            "JOIN_TOKEN_USED",
            format!("host {by} has joined with this token, and it is good for one only; {another}"),
        )),
        Some(token) if token.expire_us <= now_us => Err(refused(
            Code::FailedPrecondition,
            "JOIN_TOKEN_EXPIRED",
            format!("this token is no longer good; {another}"),
        )),
        Some(_) => Ok(false),
    }
}

/// The name or address that a host is dialled by; refused when it is not one.
fn dialled_by(address: &str) -> Result<String, Failure> {
    let wrong = || invalid("address", format!("\"{address}\" is not address:port of this host"));
    let (name, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let is_nowhere = name.is_empty() || ["0.0.0.0", "::"].contains(&name);
    if is_nowhere || port.parse::<u16>().map_or(true, |p| p == 0) {
        return Err(wrong());
    }
    Ok(name.to_owned())
}

fn unusable(e: &TlsError) -> Failure {
    invalid("request", e)
}

impl HostConfig {
    /// Where a host that joined is, as the configuration would say it.
    pub fn joined(row: &HostRow) -> Option<HostConfig> {
        let peer = Peer::Host { id: row.id.clone(), uid: row.uid.clone() };
        let endpoint = Endpoint::Tls { peer, address: row.membership.address.clone() };
        (!row.membership.address.is_empty()).then(|| HostConfig {
            id: row.id.clone(),
            compute: endpoint.clone(),
            network: endpoint,
        })
    }
}

impl Scheduler {
    /// A token for one machine, when it is no longer good, and where to join with it.
    pub async fn create_host_token(&self, ttl: Option<Duration>) -> Result<(JoinToken, i64, Vec<String>)> {
        let door = self.door()?;
        let ttl = ttl.unwrap_or(USUAL);
        if !(SHORTEST..=LONGEST).contains(&ttl) {
            return Err(invalid("ttl", "a token is good for 1 minute to 7 days").into());
        }
        let token = JoinToken::new(door.authority.fingerprint());
        let mut tx = self.store.begin("scheduler.host_token").await?;
        let expire_us = tx.now() + i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX);
        tx.add_token(&JoinToken::hash(&token.secret), expire_us).await?;
        tx.commit().await?;
        Ok((token, expire_us, door.endpoints()))
    }

    /// Makes a machine a host.
    pub async fn join(&self, join: Join) -> Result<(HostRow, Issued)> {
        let door = self.door()?;
        let request = Request::read(&join.request).map_err(|e| unusable(&e))?;
        let name = dialled_by(&join.address)?;
        HostPolicy { labels: join.labels.clone(), ..HostPolicy::default() }.check()?;
        let (hash, key_hash) = (JoinToken::hash(&join.secret), request.key_hash());
        // Whoever has no token does not get to wait among those who write.
        admits(self.store.token(&hash).await?.as_ref(), &join.host, &key_hash, now_us())?;
        let mut tx = self.store.begin("scheduler.join").await?;
        let token = tx.token(&hash).await?;
        let before = tx.host(&join.host).await?;
        let again = admits(token.as_ref(), &join.host, &key_hash, tx.now())?;
        // One that was away until its certificate was over joins anew, as the one it was.
        let now = tx.now();
        let is_over = |row: &HostRow| !row.membership.address.is_empty() && row.membership.expire_us < now;
        if let Some(before) = before.as_ref().filter(|row| !again && !is_over(row)) {
            let message = format!(
                "there is a host \"{}\" already: join under another id (--id), or remove that one first (netloom host remove)",
                before.id
            );
            let failure = refused(Code::AlreadyExists, "HOST_EXISTS", message);
            return Err(failure.with("host", before.id.to_string()).into());
        }
        if before.is_none() {
            tx.add_host(&join.host).await?;
        }
        let Some(mut row) = tx.host(&join.host).await? else { return Err(host_not_found(&join.host).into()) };
        let peer = Peer::Host { id: row.id.clone(), uid: row.uid.clone() };
        let lifetime = self.config.host_certificate();
        let issued = door.authority.certify(&request, &peer, &[name], lifetime).map_err(|e| unusable(&e))?;
        row.membership =
            Membership { address: join.address, serial: issued.serial.clone(), expire_us: issued.expire_us };
        tx.put_membership(&row.id, &row.membership).await?;
        // One that joins again without a word keeps what was said of it.
        if !join.labels.is_empty() {
            row.policy.labels = join.labels;
            tx.put_policy(&row.id, &row.policy).await?;
        }
        tx.forget_keys(&row.id).await?;
        tx.use_token(&hash, &row.id, &key_hash).await?;
        tx.commit().await?;
        tracing::info!(host = %row.id, address = %row.membership.address, serial = %issued.serial, "joins");
        self.dial(&row);
        Ok((row, issued))
    }

    /// A new certificate for a host that shows the one it has.
    pub async fn renew(&self, caller: Option<&Peer>, request: &[u8]) -> Result<Issued> {
        let door = self.door()?;
        let peer = self.member(caller)?;
        let Peer::Host { id, .. } = &peer else { return Err(Failure::internal("a member is a host").into()) };
        let request = Request::read(request).map_err(|e| unusable(&e))?;
        let mut tx = self.store.begin("scheduler.renew").await?;
        let Some(mut row) = tx.host(id).await? else { return Err(host_not_found(id).into()) };
        let name = dialled_by(&row.membership.address)?;
        let lifetime = self.config.host_certificate();
        let issued = door.authority.certify(&request, &peer, &[name], lifetime).map_err(|e| unusable(&e))?;
        (row.membership.serial, row.membership.expire_us) = (issued.serial.clone(), issued.expire_us);
        tx.put_membership(id, &row.membership).await?;
        tx.commit().await?;
        tracing::info!(host = %id, serial = %issued.serial, "has a new certificate");
        Ok(issued)
    }

    /// The host that a caller is; refused when it is none, or was removed.
    pub fn member(&self, caller: Option<&Peer>) -> Result<Peer, Failure> {
        let Some(Peer::Host { id, uid }) = caller else {
            let message = "only hosts that joined may ask for this, and no host's certificate was shown";
            return Err(refused(Code::Unauthenticated, "CERTIFICATE_MISSING", message));
        };
        if self.host(id).is_some_and(|client| client.uid == *uid) {
            return Ok(Peer::Host { id: id.clone(), uid: uid.clone() });
        }
        let message = format!(
            "host {id} was removed, and its certificate with it: let it join again (netloom host token)"
        );
        Err(refused(Code::PermissionDenied, "CERTIFICATE_REVOKED", message).with("host", id.to_string()))
    }

    /// Takes no new nodes on a host, or does so again: then it is not drained any more, either.
    pub async fn set_cordoned(&self, host: &HostId, cordoned: bool) -> Result<HostId> {
        let mut tx = self.store.begin("scheduler.cordon").await?;
        let Some(row) = tx.host(host).await? else { return Err(host_not_found(host).into()) };
        let drain = row.drain.filter(|_| cordoned);
        tx.set_cordoned(&row.id, cordoned, drain).await?;
        tx.commit().await?;
        self.world.set_cordoned(&row.id, cordoned, drain);
        if row.drain.is_some() && !cordoned {
            self.cancel_drain(&row.id).await?;
        }
        Ok(row.id)
    }

    /// Removes a host. With `force`, nodes that are placed on it are placed anew.
    pub async fn remove_host(&self, host: &HostId, force: bool) -> Result<()> {
        Self::unless_overtaken(|held| self.give_up(host, force, held)).await
    }

    async fn give_up(&self, host: &HostId, force: bool, held: bool) -> Result<()> {
        let mut tx = self.store.begin("scheduler.remove_host").await?;
        tx.hold_hosts(held).await?;
        let Some(row) = tx.host(host).await? else { return Err(host_not_found(host).into()) };
        if row.membership.address.is_empty() && self.host(&row.id).is_some() {
            let message = format!(
                "host {} stands in the scheduler's configuration: take it out of [[hosts]] there, and start the scheduler again",
                row.id
            );
            return Err(refused(Code::FailedPrecondition, "HOST_CONFIGURED", message).into());
        }
        let labs = self.store.all();
        let on_it: Vec<_> = labs.iter().filter(|rows| is_on(rows, &row.id)).collect();
        // What is not heard of cannot be rid of files, and nobody waits for that.
        let heard = self.world.host(&row.id, HostView::is_heard).unwrap_or(false);
        let holds = on_it.iter().filter(|rows| heard || has_nodes_on(rows, &row.id));
        let names: Vec<&str> = holds.map(|rows| rows.lab.id.as_str()).collect();
        if !force && !names.is_empty() {
            let (which, host) = (names.join(", "), &row.id);
            let message = match on_it.iter().any(|rows| has_nodes_on(rows, host)) {
                true => format!(
                    "nodes of {which} are on host {host}: move them away first (netloom host drain {host}), or give the host up (--force), which makes them anew elsewhere"
                ),
                false => format!(
                    "files or networks of {which} are still being removed from host {host}: try again in a moment; --force leaves them there"
                ),
            };
            let failure = refused(Code::FailedPrecondition, "HOST_IN_USE", message);
            return Err(failure.with("host", row.id.to_string()).with("labs", names.join(",")).into());
        }
        for rows in on_it {
            let Some(before) = tx.rows(rows.lab.uid) else { continue };
            let rooms = self.rooms(&mut tx, before.lab.uid).await?;
            let ctx = Purpose::Back.context(&self.catalogue, &rooms, tx.now());
            let mut after = without_host(&before, &row.id, ctx);
            self.refresh(&tx, &mut after);
            tx.save(Some(&before), after).await?;
        }
        tx.remove_host(&row.id).await?;
        tx.forget_keys(&row.id).await?;
        tx.commit().await?;
        tracing::info!(host = %row.id, force, "is removed");
        self.hosts.send_modify(|hosts| drop(hosts.remove(&row.id)));
        self.world.remove(&row.id);
        Ok(())
    }

    /// Dials a host from now on.
    fn dial(&self, row: &HostRow) {
        let Some(config) = HostConfig::joined(row) else { return };
        self.world.add(&row.id, row.cordoned, row.drain);
        self.world.set_policy(&row.id, row.policy.clone());
        let client = HostClient::new(&config, &row.uid, &self.connector, self.term);
        self.hosts.send_modify(|hosts| drop(hosts.insert(row.id.clone(), client)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_admits_one_key_once_and_in_its_time() {
        let (h1, h2): (HostId, HostId) = ("h1".parse().unwrap(), "h2".parse().unwrap());
        let fresh = Token { expire_us: 10, used: None };
        let used = Token { used: Some((h1.clone(), "key".to_owned())), ..fresh.clone() };
        let asked = |token: Option<&Token>, host: &HostId, key: &str, now: i64| {
            admits(token, host, key, now).map_err(|failure| failure.reason)
        };
        let refused = |reason: &str| Err(reason.to_owned());
        assert_eq!(asked(Some(&fresh), &h1, "key", 9), Ok(false));
        assert_eq!(asked(Some(&fresh), &h1, "key", 10), refused("JOIN_TOKEN_EXPIRED"));
        assert_eq!(asked(None, &h1, "key", 9), refused("JOIN_TOKEN_UNKNOWN"));
        assert_eq!(asked(Some(&used), &h1, "key", 11), Ok(true), "its answer was lost");
        let removed = Token { used: Some((h1.clone(), String::new())), ..fresh.clone() };
        let again = asked(Some(&removed), &h1, "key", 9);
        assert_eq!(again, refused("JOIN_TOKEN_USED"), "a host that was removed does not come back by itself");
        assert_eq!(
            asked(Some(&used), &"H1".parse().unwrap(), "key", 9),
            Ok(true),
            "case tells no hosts apart"
        );
        assert_eq!(asked(Some(&used), &h1, "other", 9), refused("JOIN_TOKEN_USED"));
        assert_eq!(asked(Some(&used), &h2, "key", 9), refused("JOIN_TOKEN_USED"));
    }

    #[test]
    fn a_host_is_dialled_as_the_one_it_is_now() {
        let row = HostRow {
            id: "h2".parse().unwrap(),
            uid: "u1".to_owned(),
            compute: Default::default(),
            network: Default::default(),
            heard_us: 0,
            cordoned: false,
            policy: HostPolicy::default(),
            drain: None,
            membership: Membership { address: "10.0.0.2:7610".to_owned(), ..Membership::default() },
        };
        let dialled = HostConfig::joined(&row).unwrap();
        assert_eq!(
            dialled.compute.to_string(),
            "https://h2:u1@10.0.0.2:7610",
            "not one that had the id before"
        );
        assert_eq!(dialled.network, dialled.compute);
    }

    #[test]
    fn a_host_is_somewhere() {
        for (address, name) in
            [("10.0.0.2:7610", "10.0.0.2"), ("[fd00::2]:7610", "fd00::2"), ("h2.lan:1", "h2.lan")]
        {
            assert_eq!(dialled_by(address).unwrap(), name);
        }
        for wrong in ["", "10.0.0.2", "10.0.0.2:0", "0.0.0.0:7610", "[::]:7610", ":7610", "h2:x"] {
            assert_eq!(dialled_by(wrong).unwrap_err().reason, "INVALID_REQUEST", "{wrong}");
        }
    }
}
