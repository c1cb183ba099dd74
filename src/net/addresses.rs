//! Handshakes under way, by address: one host is not to hold them all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// How many handshakes run with each address. Never more addresses than handshakes.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    running: Arc<Mutex<HashMap<IpAddr, usize>>>,
    limit: usize,
}

/// One handshake of an address, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    addresses: Addresses,
    address: IpAddr,
}

impl Addresses {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            running: Arc::default(),
            limit,
        }
    }

    /// Counts a handshake; `None` for one too many.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<Turn> {
        let address = counted_as(address);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let count = running.entry(address).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Turn {
            addresses: self.clone(),
            address,
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let running = &self.addresses.running;
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = running.entry(self.address) {
            *count.get_mut() = count.get().saturating_sub(1);
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// A host has a whole /64 of IPv6 addresses.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_holds_no_more_than_its_share_of_handshakes() {
        let addresses = Addresses::new(2);
        let host: IpAddr = "192.0.2.7".parse().unwrap();
        let mapped: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
        let first = addresses.enter(host).unwrap();
        let _second = addresses.enter(mapped).unwrap();
        assert!(addresses.enter(host).is_none());
        let other: IpAddr = "192.0.2.8".parse().unwrap();
        assert!(
            addresses.enter(other).is_some(),
            "others are not in its way"
        );
        drop(first);
        assert!(addresses.enter(host).is_some(), "one that ended makes room");
    }

    #[test]
    fn a_host_s_many_ipv6_addresses_are_one() {
        let addresses = Addresses::new(1);
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        let _first = addresses.enter(at("2001:db8::1")).unwrap();
        assert!(addresses.enter(at("2001:db8::ffff:2")).is_none());
        assert!(addresses.enter(at("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn addresses_without_handshakes_are_forgotten() {
        let addresses = Addresses::new(1);
        drop(addresses.enter("192.0.2.7".parse().unwrap()));
        assert!(addresses.running.lock().unwrap().is_empty());
    }
}
