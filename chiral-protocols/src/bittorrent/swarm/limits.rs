//! How many connections there may be.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Places for connections, of all and of each address.
#[derive(Debug)]
pub(in crate::bittorrent) struct Limits {
    most: usize,
    most_per_ip: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// A place; free again when dropped.
#[derive(Debug)]
pub(in crate::bittorrent) struct Place {
    limits: Arc<Limits>,
    ip: IpAddr,
}

impl Limits {
    pub(in crate::bittorrent) fn new(most: usize, most_per_ip: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_per_ip,
            taken: Mutex::default(),
        })
    }

    /// A place for a connection with this address, if there is one.
    pub(in crate::bittorrent) fn take(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let ip = ip.to_canonical();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let of_ip = taken.get(&ip).copied().unwrap_or(0);
        if all >= self.most || of_ip >= self.most_per_ip {
            return None;
        }
        taken.insert(ip, of_ip + 1);
        Some(Place {
            limits: self.clone(),
            ip,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self
            .limits
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_few_and_come_back() {
        let limits = Limits::new(3, 2);
        let ip = |n| IpAddr::from([10, 0, 0, n]);
        let first = limits.take(ip(1)).unwrap();
        let _second = limits.take("::ffff:10.0.0.1".parse().unwrap()).unwrap();
        assert!(limits.take(ip(1)).is_none());
        let _third = limits.take(ip(2)).unwrap();
        assert!(limits.take(ip(3)).is_none());
        drop(first);
        assert!(limits.take(ip(1)).is_some());
    }
}
