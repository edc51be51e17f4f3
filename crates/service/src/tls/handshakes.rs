//! How many handshakes are under way, and from where: who shows nothing shall hold up nobody else.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a handshake may take.
pub const WITHIN: Duration = Duration::from_secs(10);
/// How many may be under way.
pub const MOST: usize = 512;
/// How many of them from one address: more than a controller begins at once.
pub const OF_ONE: usize = 64;

/// Those under way, by where they come from.
#[derive(Clone, Default)]
pub struct Handshakes(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them, until dropped.
pub struct Handshake(Handshakes, IpAddr);

impl Handshakes {
    /// One more from there; none when that address has begun all it may.
    pub fn begin(&self, from: IpAddr) -> Option<Handshake> {
        let from = network(from);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(from).or_default();
        (*count < OF_ONE).then(|| {
            *count += 1;
            Handshake(self.clone(), from)
        })
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut all = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.1);
            }
        }
    }
}

/// What counts as one address: with IPv6 the network of 64 bits, in which a machine may have as many as it likes.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_begin_all_and_gets_its_own_back() {
        let all = Handshakes::default();
        let at = |text: &str| all.begin(text.parse().unwrap());
        let mut begun: Vec<_> = (0..OF_ONE).map(|n| at(&format!("fd00::{n:x}")).unwrap()).collect();
        assert!(at("fd00::ffff").is_none());
        assert!(at("fd00:0:0:1::1").is_some() && at("10.0.0.1").is_some());
        begun.pop();
        begun.push(at("fd00::1").unwrap());
        assert!(at("fd00::1").is_none());
        drop(begun);
        assert!(all.0.lock().unwrap().is_empty());
        let _four = at("10.0.0.1");
        let _mapped = at("::ffff:10.0.0.1");
        assert_eq!(all.0.lock().unwrap().len(), 1);
    }
}
