//! Connections: at most so many, and each must begin to speak soon. A client that connects and says nothing, that does not finish the TLS
//! handshake, or that sends the HTTP/2 preface a byte at a time, is closed. So is a connection that goes on long after it was told to go away.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::auth::ClientIdentity;
use crate::limits::Limits;
use crate::tls::{Tls, Transport};

/// Length of the HTTP/2 preface.
const PREFACE_BYTES: usize = 24;

/// An accepted connection, after its TLS handshake.
pub(crate) struct Connection {
    stream: Bytes,
    peer: Peer,
    // While the preface is not there: bytes so far, and the end of patience.
    preface: Option<(usize, Pin<Box<Sleep>>)>,
    // The end of its life: of its age and the grace after.
    end: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

/// What a connection says about who is at its other end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer {
    /// The holder of the client certificate.
    pub(crate) identity: Option<Arc<ClientIdentity>>,
}

/// Bytes as they are on the wire, or what TLS makes of them.
enum Bytes {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Accepts connections for ever.
pub(crate) fn incoming(
    listener: TcpListener,
    transport: &Transport,
    limits: &Limits,
) -> impl Stream<Item = io::Result<Connection>> + use<> {
    let tls = match transport {
        Transport::Plaintext | Transport::PlaintextBehindProxy => None,
        Transport::Tls(tls) => Some(tls.clone()),
    };
    let permits = Arc::new(Semaphore::new(limits.connections));
    let times = Times { patience: limits.first_byte, life: limits.connection_age.saturating_add(limits.connection_age_grace) };
    let acceptor = Acceptor { listener, tls, permits, times, handshakes: JoinSet::new() };
    futures::stream::unfold(acceptor, |mut acceptor| async move {
        let connection = acceptor.next().await;
        Some((Ok(connection), acceptor))
    })
}

struct Acceptor {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    permits: Arc<Semaphore>,
    times: Times,
    // Each on its own, so that a slow one holds up nobody; they end with the acceptor.
    handshakes: JoinSet<Option<Connection>>,
}

/// How long a connection may take.
#[derive(Clone, Copy)]
struct Times {
    /// For the TLS handshake, and again for the preface.
    patience: Duration,
    /// For all that is done on it, after its handshake.
    life: Duration,
}

impl Acceptor {
    /// The next connection that is ready to speak HTTP/2.
    async fn next(&mut self) -> Connection {
        loop {
            tokio::select! {
                Some(ended) = self.handshakes.join_next() => match ended {
                    Ok(Some(connection)) => return connection,
                    Ok(None) => {}
                    Err(error) => tracing::error!(%error, "a TLS handshake did not end"),
                },
                (stream, permit) = accept(&self.listener, &self.permits) => match &self.tls {
                    None => return Connection::new(Bytes::Plain(stream), Peer::default(), permit, self.times),
                    Some(tls) => {
                        self.handshakes.spawn(handshake(TlsAcceptor::from(tls.config()), stream, permit, self.times));
                    }
                },
            }
        }
    }
}

/// The next TCP connection, and its share of the number of connections.
pub(crate) async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
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
        return (stream, permit);
    }
}

/// `None`: the client did not do its part, in time or at all.
async fn handshake(acceptor: TlsAcceptor, stream: TcpStream, permit: OwnedSemaphorePermit, times: Times) -> Option<Connection> {
    let stream = match tokio::time::timeout(times.patience, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            return None;
        }
        Err(_) => {
            tracing::debug!("a TLS handshake took too long");
            return None;
        }
    };
    // Whether an authority signed it was checked in the handshake.
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let identity = certificate.and_then(ClientIdentity::of).map(Arc::new);
    Some(Connection::new(Bytes::Tls(Box::new(stream)), Peer { identity }, permit, times))
}

impl Connection {
    fn new(stream: Bytes, peer: Peer, permit: OwnedSemaphorePermit, times: Times) -> Self {
        let preface = Some((0, Box::pin(tokio::time::sleep(times.patience))));
        let end = Box::pin(tokio::time::sleep(times.life));
        Self { stream, peer, preface, end, _permit: permit }
    }

    /// What is read or written after the end of its life: an error, upon which all that runs on the connection ends.
    fn check_life(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check_life(context)?;
        let before = buffer.filled().len();
        let read = match &mut self.stream {
            Bytes::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Bytes::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        };
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
        self.check_life(context)?;
        match &mut self.stream {
            Bytes::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Bytes::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_life(context)?;
        match &mut self.stream {
            Bytes::Plain(stream) => Pin::new(stream).poll_flush(context),
            Bytes::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Bytes::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Bytes::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
