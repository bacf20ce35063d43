//! Ports that stay free while the server that listens on them is away.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context;
use rand::Rng as _;

/// Where the kernel's own choice begins on most machines.
const FIRST_EPHEMERAL: u16 = 32_768;
/// Ports below it to choose from.
const CHOICE: u16 = 12_000;
/// Ports that may be taken before there is said to be none.
const TRIES: usize = 100;

/// Two ports of the loopback interface that are free now. They are none that the kernel gives to outgoing connections, or to who listens on port 0: those
/// could take one before the server does, or while it is killed, and a connection to such a port without a listener may even meet itself. Only another
/// cluster may choose the same.
///
/// # Errors
/// A hundred ports were taken.
pub(super) fn free_addresses() -> anyhow::Result<[SocketAddr; 2]> {
    // Both are held until both are chosen: they differ.
    let (first, second) = (free_port()?, free_port()?);
    Ok([first.local_addr()?, second.local_addr()?])
}

fn free_port() -> anyhow::Result<TcpListener> {
    let end = first_ephemeral();
    (0..TRIES)
        .find_map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, rand::thread_rng().gen_range(end - CHOICE..end))).ok())
        .context("no free port")
}

/// The first port of the kernel's own choice; the usual one if it is not told, or leaves nothing below.
fn first_ephemeral() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next().and_then(|port| port.parse().ok());
    first.filter(|&port| port > CHOICE + 1024).unwrap_or(FIRST_EPHEMERAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_below_those_of_the_kernel() {
        let addresses = free_addresses().expect("there are many");
        assert_ne!(addresses[0], addresses[1]);
        for address in addresses {
            assert!(address.port() < first_ephemeral() && address.ip().is_loopback());
            TcpListener::bind(address).expect("nobody has it");
        }
    }
}
