//! A network between two ends that can fall apart: while it is cut, nothing passes in either direction, no connection is closed, and new ones are
//! accepted and lead nowhere.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    is_cut: watch::Sender<bool>,
}

impl Proxy {
    /// Leads to `target`.
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_cut, state) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(connect(near, target, state.clone()));
            }
        });
        Self { address, is_cut }
    }

    pub(crate) fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    pub(crate) fn heal(&self) {
        self.is_cut.send_replace(false);
    }
}

async fn connect(near: TcpStream, target: SocketAddr, mut state: watch::Receiver<bool>) {
    if state.wait_for(|is_cut| !is_cut).await.is_err() {
        return;
    }
    let Ok(far) = TcpStream::connect(target).await else { return };
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::spawn(pass(near_in, far_out, state.clone()));
    pass(far_in, near_out, state).await;
}

/// What arrives while it is cut is held back, as a sender's system repeats it.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let n = match from.read(&mut buffer).await {
            Ok(n) if n > 0 => n,
            _ => return,
        };
        if state.wait_for(|is_cut| !is_cut).await.is_err() || to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}
