//! Ports that stay free while the server that listens on them is away.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use rand::Rng as _;
use tokio::net::TcpSocket;

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
    let first = free_address(None)?;
    Ok([first, free_address(Some(first))?])
}

fn free_address(other_than: Option<SocketAddr>) -> anyhow::Result<SocketAddr> {
    let end = first_ephemeral();
    (0..TRIES)
        .map(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, rand::thread_rng().gen_range(end - CHOICE..end))))
        .find(|&address| Some(address) != other_than && is_free(address).is_ok())
        .context("no free port")
}

/// Whether a server could listen there. The socket that tries it never listens itself: a process that another thread starts at this moment holds a copy of
/// it until it runs its program, and a copy that listens would keep the server from its port.
fn is_free(address: SocketAddr) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)
}

/// The first port of the kernel's own choice; the usual one if it is not told, or leaves nothing below.
fn first_ephemeral() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next().and_then(|port| port.parse().ok());
    first.filter(|&port| port > CHOICE + 1024).unwrap_or(FIRST_EPHEMERAL)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

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

    #[test]
    fn a_port_that_a_server_has_is_not_free() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there are many");
        is_free(server.local_addr().expect("it listens")).expect_err("it is taken");
    }

    #[test]
    fn a_port_is_free_at_once_while_another_thread_starts_processes() {
        std::thread::scope(|scope| {
            let starts = scope
                .spawn(|| (0..100).for_each(|_| assert!(std::process::Command::new("true").status().expect("there is true").success())));
            while !starts.is_finished() {
                let [address, _] = free_addresses().expect("there are many");
                TcpListener::bind(address).expect("nobody has it");
            }
        });
    }
}
