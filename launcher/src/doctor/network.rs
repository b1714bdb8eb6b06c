//! The network interfaces, by which ranks of several nodes talk.

use std::collections::BTreeMap;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::finding::{Finding, ok, warning};

/// The finding of this process.
pub(super) fn finding() -> Finding {
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for interface in getifaddrs().into_iter().flatten() {
        let up = interface.flags.contains(InterfaceFlags::IFF_UP);
        let loopback = interface.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let address = interface.address.and_then(|address| Some(address.as_sockaddr_in()?.ip().to_string()));
        if let (true, false, Some(address)) = (up, loopback, address) {
            found.entry(interface.interface_name).or_default().push(address);
        }
    }
    if found.is_empty() {
        return warning(
            "network",
            "no interface but the loopback",
            "ranks of this node can talk, ranks of several nodes cannot; choose one with OMPI_MCA_btl_tcp_if_include",
        );
    }
    let each = found.iter().map(|(name, addresses)| format!("{name} {}", addresses.join(" ")));
    ok("network", each.collect::<Vec<_>>().join(", "))
}
