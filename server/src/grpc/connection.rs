//! Connections: at most so many, and each must begin to speak soon. A client that connects and says nothing, or sends
//! the HTTP/2 preface a byte at a time, is closed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::limits::Limits;

/// Length of the HTTP/2 preface.
const PREFACE_BYTES: usize = 24;

/// An accepted connection.
pub(crate) struct Connection {
    stream: TcpStream,
    // While the preface is not there: bytes so far, and the end of patience.
    preface: Option<(usize, Pin<Box<Sleep>>)>,
    _permit: OwnedSemaphorePermit,
}

/// Accepts connections for ever.
pub(crate) fn incoming(listener: TcpListener, limits: &Limits) -> impl Stream<Item = io::Result<Connection>> + use<> {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let first_byte = limits.first_byte;
    futures::stream::unfold((listener, permits), move |(listener, permits)| async move {
        let connection = accept(&listener, &permits, first_byte).await;
        Some((Ok(connection), (listener, permits)))
    })
}

async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>, first_byte: Duration) -> Connection {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Usually no file descriptor is free: wait for one.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            tracing::warn!("too many connections; one is refused");
            continue;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let preface = Some((0, Box::pin(tokio::time::sleep(first_byte))));
        return Connection { stream, preface, _permit: permit };
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some((so_far, patience)) = self.preface.as_mut() else { return read };
        *so_far += buffer.filled().len() - before;
        if *so_far >= PREFACE_BYTES {
            self.preface = None;
        } else if patience.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
