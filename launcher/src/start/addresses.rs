//! The addresses at which other nodes reach this one.

use std::net::Ipv4Addr;

use nix::ifaddrs::getifaddrs;

/// The IPv4 addresses of this host's interfaces, without the loopback addresses that every host has.
pub(super) fn addresses() -> Vec<Ipv4Addr> {
    let interfaces = getifaddrs().into_iter().flatten();
    let addresses = interfaces.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()));
    let mut addresses: Vec<Ipv4Addr> = addresses.filter(|address| !address.is_loopback()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn addresses_are_this_hosts_own() {
        for address in addresses() {
            assert!(!address.is_loopback());
            UdpSocket::bind((address, 0)).unwrap_or_else(|error| panic!("{address}: {error}"));
        }
        let loopback = getifaddrs().unwrap().any(|interface| {
            interface.address.and_then(|address| Some(address.as_sockaddr_in()?.ip().is_loopback())) == Some(true)
        });
        assert!(loopback, "the interfaces are listed at all");
    }
}
