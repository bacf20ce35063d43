//! A network namespace for a worker, joined to this machine by a cable that can be unplugged. Making one needs root.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, ensure};
use tokio::net::{TcpListener, TcpStream};

/// A namespace, and where what runs in it reaches the target. Gone when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    near_end: String,
    address: SocketAddr,
}

impl Namespace {
    /// Makes namespace number `index` (below 64) of this process; the target, on loopback here, is reached at [`Self::address`] from there.
    ///
    /// # Errors
    /// Not root, or no `ip` on this machine.
    pub fn create(index: u8, target: SocketAddr) -> anyhow::Result<Self> {
        ensure!(index < 64, "there are 64 namespaces at most");
        let process = std::process::id();
        let name = format!("zkinfer-{process}-{index}");
        let (near_end, far_end) = (format!("zk{process}n{index}"), format!("zk{process}f{index}"));
        let (near, far) = (format!("10.213.{index}.1"), format!("10.213.{index}.2/30"));
        ip(&["netns", "add", &name])?;
        let address = SocketAddr::new(near.parse()?, 0);
        let mut namespace = Self { name, near_end, address };
        let (name, near_end) = (namespace.name.as_str(), namespace.near_end.as_str());
        ip(&["link", "add", near_end, "type", "veth", "peer", "name", &far_end])?;
        ip(&["link", "set", &far_end, "netns", name])?;
        ip(&["addr", "add", &format!("{near}/30"), "dev", near_end])?;
        ip(&["link", "set", near_end, "up"])?;
        ip(&["-n", name, "addr", "add", &far, "dev", &far_end])?;
        ip(&["-n", name, "link", "set", &far_end, "up"])?;
        let listener = std::net::TcpListener::bind(address).context("no port at the cable's end")?;
        namespace.address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        tokio::spawn(relay(TcpListener::from_std(listener)?, target));
        Ok(namespace)
    }

    /// Where the target is reached from inside.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Nothing passes any more, and nobody is told.
    ///
    /// # Errors
    /// The system refuses.
    pub fn unplug(&self) -> anyhow::Result<()> {
        ip(&["link", "set", &self.near_end, "down"])
    }

    /// All as before.
    ///
    /// # Errors
    /// The system refuses.
    pub fn plug(&self) -> anyhow::Result<()> {
        ip(&["link", "set", &self.near_end, "up"])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The far end goes with the namespace, and the near end with it.
        for arguments in [["netns", "del", &self.name], ["link", "del", &self.near_end]] {
            let _ = Command::new("ip").args(arguments).output();
        }
    }
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments).output().context("there is no `ip`; apt-get install iproute2")?;
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// From the cable's near end to the target.
async fn relay(listener: TcpListener, target: SocketAddr) {
    while let Ok((mut near, _)) = listener.accept().await {
        tokio::spawn(async move {
            if let Ok(mut far) = TcpStream::connect(target).await {
                // A connection that breaks on one side is closed on the other.
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}
