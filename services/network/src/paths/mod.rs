//! The path to other hosts: how large packets get through, measured.
//!
//! What the interface with the tunnel address takes is only what is believed: a router in between may take less, and one that drops what is too large without a
//! word lets a link carry small frames and lose large ones. So each host asks its peers, whom the scheduler names, by UDP packets that nobody on the way
//! may fragment (`probe`), one port above those of tunnels. A peer answers with a small packet how large the one was that it got: what a host measures is the way *to* its peer;
//! the peer measures the way back. The largest packet that is answered is searched for between what every path takes and what the interface does.
//!
//! It is measured when a peer is named, when the tunnel address or its interface changes, and each minute: then two sizes are asked for, as long as nothing changed. What
//! seems to have become less is measured twice, so that a few lost packets do not change the MTU of anybody's interfaces.

mod probe;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use netloom_service::Shutdown;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use self::probe::Prober;

/// How often a path that is known is looked at again.
const AGAIN: Duration = Duration::from_secs(60);
/// How soon a peer that did not answer is asked again, and the most that this grows to.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), AGAIN);
/// How soon a socket is opened again that could not be.
const REOPEN: Duration = Duration::from_secs(5);
/// How many peers are asked at the same time.
const AT_ONCE: usize = 16;
/// The largest packet that every path takes, by IPv4 and IPv6.
const LEAST: [u32; 2] = [576, 1_280];

/// Where this host's tunnels begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// The tunnel address.
    pub address: IpAddr,
    /// UDP port that is asked and answered at.
    pub port: u16,
    /// MTU of the interface that has the address.
    pub mtu: u32,
}

/// Largest IP packets, in bytes, that get to each peer; why it is not known, in words.
pub type Paths = BTreeMap<IpAddr, Result<u32, String>>;

/// A peer, to the loop that asks it.
struct Peer {
    due: Instant,
    pause: Duration,
}

/// Measures until shut down. `peers` are the tunnel addresses of other hosts.
pub async fn run(
    mut site: watch::Receiver<Option<Site>>,
    mut peers: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
    paths: watch::Sender<Arc<Paths>>,
    shutdown: Shutdown,
) {
    loop {
        let here = *site.borrow_and_update();
        let Some(here) = here else {
            paths.send_if_modified(|paths| !std::mem::take(paths).is_empty());
            tokio::select! {
                Ok(()) = site.changed() => continue,
                () = shutdown.cancelled() => return,
                else => return,
            }
        };
        let moved = async { site.wait_for(|now| *now != Some(here)).await.is_ok() };
        tokio::select! {
            goes_on = moved => if !goes_on { return },
            () = shutdown.cancelled() => return,
            () = at(here, &mut peers, &paths) => {}
        }
    }
}

/// Measures from one place, for ever; returns when that is to be begun anew.
async fn at(
    here: Site,
    peers: &mut watch::Receiver<Arc<BTreeSet<IpAddr>>>,
    paths: &watch::Sender<Arc<Paths>>,
) {
    let prober = match Prober::open(here, peers.clone()) {
        Ok(prober) => prober,
        Err(e) => {
            tracing::warn!(address = %here.address, port = here.port, "paths to other hosts are not measured: {e}");
            tokio::time::sleep(REOPEN).await;
            return;
        }
    };
    let mut asked = BTreeMap::<IpAddr, Peer>::new();
    loop {
        let now = Instant::now();
        let wanted: BTreeSet<IpAddr> = peers
            .borrow_and_update()
            .iter()
            .copied()
            .filter(|peer| *peer != here.address && peer.is_ipv4() == here.address.is_ipv4())
            .collect();
        asked.retain(|peer, _| wanted.contains(peer));
        for peer in &wanted {
            asked.entry(*peer).or_insert(Peer { due: now, pause: RETRY.0 });
        }
        paths.send_if_modified(|paths| {
            let gone = paths.keys().any(|peer| !wanted.contains(peer));
            if gone {
                Arc::make_mut(paths).retain(|peer, _| wanted.contains(peer));
            }
            gone
        });
        let known = paths.borrow().clone();
        let due: Vec<IpAddr> =
            asked.iter().filter(|(_, peer)| peer.due <= now).map(|(peer, _)| *peer).collect();
        let measure = |peer: IpAddr| {
            let (prober, before) = (&prober, known.get(&peer).and_then(|path| path.as_ref().ok()).copied());
            async move { (peer, measure(prober, here, peer, before).await) }
        };
        let mut measured = stream::iter(due.into_iter().map(measure)).buffer_unordered(AT_ONCE);
        while let Some((peer, path)) = measured.next().await {
            if let Some(state) = asked.get_mut(&peer) {
                state.pause = if path.is_ok() { AGAIN } else { (state.pause * 2).min(RETRY.1) };
                state.due = Instant::now() + state.pause;
            }
            paths.send_if_modified(|paths| {
                let changed = paths.get(&peer) != Some(&path);
                if changed {
                    match &path {
                        Ok(mtu) => tracing::info!(%peer, mtu, "a path to another host was measured"),
                        Err(why) => tracing::info!(%peer, "a path to another host is not known: {why}"),
                    }
                    Arc::make_mut(paths).insert(peer, path);
                }
                changed
            });
        }
        drop(measured);
        let next = asked.values().map(|peer| peer.due).min().unwrap_or(now + AGAIN);
        tokio::select! {
            changed = peers.changed() => if changed.is_err() { return },
            () = sleep_until(next) => {}
            () = prober.ended() => return,
        }
    }
}

/// The largest packet that gets to a peer.
async fn measure(prober: &Prober, here: Site, peer: IpAddr, before: Option<u32>) -> Result<u32, String> {
    let (least, most) = (LEAST[usize::from(peer.is_ipv6())].min(here.mtu), here.mtu);
    if let Some(before) = before.filter(|before| (least..=most).contains(before)) {
        let stands = prober.gets_through(peer, before).await;
        if stands && (before == most || !prober.gets_through(peer, before + 1).await) {
            return Ok(before);
        }
    }
    let mut found = search(prober, peer, least, most).await;
    if found.is_ok_and(|found| before.is_some_and(|before| found < before)) {
        let again = search(prober, peer, least, most).await;
        found = found.map(|found| again.map_or(found, |again| again.max(found)));
    }
    found.map_err(|()| {
        format!(
            "it does not answer at UDP port {}: let that through between the hosts, or see that netloom's network service runs there",
            here.port
        )
    })
}

async fn search(prober: &Prober, peer: IpAddr, least: u32, most: u32) -> Result<u32, ()> {
    if !prober.gets_through(peer, least).await {
        return Err(());
    }
    if prober.gets_through(peer, most).await {
        return Ok(most);
    }
    let (mut passes, mut fails) = (least, most);
    while fails - passes > 1 {
        let between = passes.midpoint(fails);
        if prober.gets_through(peer, between).await {
            passes = between;
        } else {
            fails = between;
        }
    }
    Ok(passes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two addresses of the loopback, which takes packets of 65,536 bytes.
    #[tokio::test]
    async fn a_path_is_measured_up_to_what_the_interface_takes() {
        let addresses = [IpAddr::from([127, 77, 0, 1]), IpAddr::from([127, 77, 0, 2])];
        let port = std::net::UdpSocket::bind((addresses[0], 0)).unwrap().local_addr().unwrap().port();
        let everyone: Arc<BTreeSet<IpAddr>> = Arc::new(addresses.into());
        let shutdown = Shutdown::new();
        let (_peers, told) = watch::channel(everyone);
        let mut seen = Vec::new();
        let mut sites = Vec::new();
        for address in addresses {
            let (site, at) = watch::channel(Some(Site { address, port, mtu: 1_500 }));
            let (paths, measured) = watch::channel(Arc::default());
            tokio::spawn(run(at, told.clone(), paths, shutdown.clone()));
            seen.push(measured);
            sites.push(site);
        }
        for (measured, peer) in seen.iter_mut().zip([addresses[1], addresses[0]]) {
            let is_there = |paths: &Arc<Paths>| paths.get(&peer) == Some(&Ok(1_500));
            let waited = tokio::time::timeout(Duration::from_secs(30), measured.wait_for(is_there)).await;
            waited.expect("it is measured in time").unwrap();
            assert_eq!(measured.borrow().len(), 1, "nobody asks himself");
        }
        // A host that loses its address knows of no path any more.
        sites[0].send_replace(None);
        let none = tokio::time::timeout(Duration::from_secs(30), seen[0].wait_for(|paths| paths.is_empty()));
        none.await.expect("in time").unwrap();
        shutdown.cancel();
    }
}
