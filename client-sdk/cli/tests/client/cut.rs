//! A TCP proxy that breaks its first connections after so many bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct CuttingProxy {
    pub(crate) address: String,
    connections: Arc<AtomicUsize>,
}

impl CuttingProxy {
    /// Connection k breaks once one direction has carried `budgets[k]` bytes; later ones do not break.
    pub(crate) async fn start(target: &str, budgets: Vec<usize>) -> Self {
        let target = target.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let budget = budgets.get(counter.fetch_add(1, Ordering::SeqCst)).copied().unwrap_or(usize::MAX);
                let Ok(server) = TcpStream::connect(&target).await else { return };
                tokio::spawn(carry(client, server, budget));
            }
        });
        Self { address, connections }
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Ends with the first direction that ends; dropping the sockets breaks the other.
async fn carry(client: TcpStream, server: TcpStream, budget: usize) {
    let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = one_way(client_in, server_out, budget) => {}
        () = one_way(server_in, client_out, budget) => {}
    }
}

async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut budget: usize) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(n_read) = from.read(&mut buffer).await {
        if n_read == 0 || n_read > budget || to.write_all(&buffer[..n_read]).await.is_err() {
            return;
        }
        budget -= n_read;
    }
}
