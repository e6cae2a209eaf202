//! Compact addresses (BEP 5, 7, 23, 32): an address and a port, big-endian.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::http::AddressPolicy;

/// Bytes of an IPv4 address with port.
pub(super) const V4: usize = 6;
/// Bytes of an IPv6 address with port.
pub(super) const V6: usize = 18;

/// Writes an address: 6 or 18 bytes.
pub(super) fn write(address: SocketAddr) -> Vec<u8> {
    let mut out = Vec::with_capacity(V6);
    match address.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&address.port().to_be_bytes());
    out
}

/// Reads one address of 6 or 18 bytes.
pub(super) fn read(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_at_checked(bytes.len().checked_sub(2)?)?;
    let ip: IpAddr = match ip.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?).into(),
        16 => Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?).into(),
        _ => return None,
    };
    let port = u16::from_be_bytes(port.try_into().ok()?);
    Some(SocketAddr::new(ip, port))
}

/// Reads a row of addresses of `size` bytes each; a rest that is too short is left out.
pub(super) fn read_all(bytes: &[u8], size: usize) -> impl Iterator<Item = SocketAddr> {
    bytes.chunks_exact(size).filter_map(read)
}

/// Whether an address that a stranger named may be dialled.
pub(super) fn dialable(address: SocketAddr, policy: AddressPolicy) -> bool {
    // Not even a policy for any address means these.
    let ip = address.ip();
    let nobody = ip.is_unspecified() || ip.is_multicast() || ip == Ipv4Addr::BROADCAST;
    address.port() != 0 && !nobody && policy.allows(ip)
}

/// Whether addresses like this one may be many: a network of one's own on one machine.
pub(super) fn is_local(ip: IpAddr) -> bool {
    !AddressPolicy::GlobalOnly.allows(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_and_come() {
        for (text, size) in [("1.2.3.4:258", V4), ("[2001:db8::1]:65535", V6)] {
            let address: SocketAddr = text.parse().unwrap();
            let bytes = write(address);
            assert_eq!(bytes.len(), size);
            assert_eq!(read(&bytes), Some(address));
        }
        assert_eq!(write("1.2.3.4:258".parse().unwrap()), [1, 2, 3, 4, 1, 2]);
        assert_eq!(read(&[0; 7]), None);
        assert_eq!(read(&[0; 1]), None);
        assert_eq!(read_all(&[1; 17], V4).count(), 2);
    }

    #[test]
    fn nobody_is_dialled() {
        for text in [
            "0.0.0.0:1",
            "1.2.3.4:0",
            "224.0.0.1:1",
            "[::]:1",
            "255.255.255.255:1",
        ] {
            assert!(
                !dialable(text.parse().unwrap(), AddressPolicy::Any),
                "{text}"
            );
        }
        let near: SocketAddr = "127.0.0.1:1".parse().unwrap();
        assert!(dialable(near, AddressPolicy::Any));
        assert!(!dialable(near, AddressPolicy::GlobalOnly));
    }
}
