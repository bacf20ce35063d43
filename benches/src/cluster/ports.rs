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

/// A port of the loopback interface that is free now. It is none that the kernel gives to outgoing connections, or to who listens on port 0: those could
/// take it before the server does, or while it is killed, and a connection to such a port without a listener may even meet itself.
///
/// # Errors
/// A hundred ports were taken.
pub(super) fn free_address() -> anyhow::Result<SocketAddr> {
    let end = first_ephemeral();
    (0..TRIES)
        .map(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, rand::thread_rng().gen_range(end - CHOICE..end))))
        .find(|address| TcpListener::bind(address).is_ok())
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
        let address = free_address().expect("there are many");
        assert!(address.port() < first_ephemeral() && address.ip().is_loopback());
        TcpListener::bind(address).expect("nobody has it");
    }
}
