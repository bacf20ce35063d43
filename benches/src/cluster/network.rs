//! A network namespace for a worker, joined to this machine by a cable that can be unplugged. Making one needs root.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, ensure};
use tokio::net::{TcpListener, TcpStream};

/// An address of a network card that nobody has.
const NOBODY: &str = "02:00:00:00:00:fe";
/// What a slow cable lets pass at once, and how long it lets the rest wait.
const SLOW_CABLE: [&str; 6] = ["burst", "16kb", "latency", "400ms", "rate", "1mbit"];

/// A namespace, and where what runs in it reaches the target. Gone when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    near_end: String,
    far_end: String,
    /// Of the near end, then of the far end.
    hosts: [String; 2],
    address: SocketAddr,
}

/// What one direction of a cable carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the worker to the server.
    ToServer,
    /// From the server to the worker.
    ToWorker,
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
        let hosts = [1, 2].map(|host| format!("10.213.{index}.{host}"));
        ip(&["netns", "add", &name])?;
        let address = SocketAddr::new(hosts[0].parse()?, 0);
        let mut namespace = Self { name, near_end, far_end, hosts, address };
        let Self { name, near_end, far_end, hosts: [near, far], .. } = &namespace;
        ip(&["link", "add", near_end, "type", "veth", "peer", "name", far_end])?;
        ip(&["link", "set", far_end, "netns", name])?;
        ip(&["addr", "add", &format!("{near}/30"), "dev", near_end])?;
        ip(&["link", "set", near_end, "up"])?;
        ip(&["-n", name, "addr", "add", &format!("{far}/30"), "dev", far_end])?;
        ip(&["-n", name, "link", "set", far_end, "up"])?;
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

    /// Nothing passes in one direction any more, and nobody is told: who sends believes that the other end has another network card.
    ///
    /// # Errors
    /// The system refuses.
    pub fn lose(&self, direction: Direction) -> anyhow::Result<()> {
        self.neighbour(direction, "replace", &["lladdr", NOBODY, "nud", "permanent"])
    }

    /// That direction as before.
    ///
    /// # Errors
    /// The system refuses.
    pub fn find(&self, direction: Direction) -> anyhow::Result<()> {
        self.neighbour(direction, "del", &[])
    }

    fn neighbour(&self, direction: Direction, verb: &str, rest: &[&str]) -> anyhow::Result<()> {
        let [near, far] = &self.hosts;
        let change = match direction {
            Direction::ToServer => vec!["-n", &self.name, "neigh", verb, near, "dev", &self.far_end],
            Direction::ToWorker => vec!["neigh", verb, far, "dev", &self.near_end],
        };
        ip(&[&change[..], rest].concat())
    }

    /// The cable carries a megabit a second from now on, each way.
    ///
    /// # Errors
    /// There is no `tc`, or this system cannot slow a cable.
    pub fn slow_down(&self) -> anyhow::Result<()> {
        let on = |end| [&["qdisc", "add", "dev", end, "root", "tbf"][..], &SLOW_CABLE[..]].concat();
        run("tc", &on(self.near_end.as_str()))?;
        run("tc", &[&["-n", self.name.as_str()][..], &on(self.far_end.as_str())[..]].concat())
    }
}

impl Namespace {
    /// How often the slow cable let a packet wait, towards the worker.
    ///
    /// # Errors
    /// There is no `tc`, or the cable is not slow.
    pub fn n_delayed(&self) -> anyhow::Result<u64> {
        let output = Command::new("tc").args(["-s", "qdisc", "show", "dev", &self.near_end]).output().context("there is no `tc`")?;
        let told = String::from_utf8_lossy(&output.stdout);
        let count = told.split("overlimits ").nth(1).and_then(|rest| rest.split_whitespace().next());
        count.and_then(|count| count.parse().ok()).with_context(|| format!("`tc` tells of no delays: {told}"))
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
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("there is no `{program}`; apt-get install iproute2"))?;
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
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
