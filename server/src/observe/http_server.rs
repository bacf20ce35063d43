//! Serves HTTP connections: at most so many, each of which must send the heads of its requests in time, and take the answers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Sleep;

use crate::grpc::accept;
use crate::limits::Limits;

/// Serves until it is dropped; the connections end with it.
pub(super) async fn serve(listener: TcpListener, router: Router, limits: &Limits) {
    let permits = Arc::new(Semaphore::new(limits.http_connections));
    let mut http1 = http1::Builder::new();
    // Counts from the begin of a connection, and again from the end of each answer: a silent one is closed too.
    http1.timer(TokioTimer::new()).header_read_timeout(limits.http_head);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection of the HTTP port did not end");
                }
            }
            (stream, permit) = accept(&listener, &permits) => {
                let stream = Patient { stream, patience: limits.http_stall, end: None };
                let connection = http1.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
                connections.spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(error = &error as &dyn std::error::Error, "a connection of the HTTP port was closed");
                    }
                    drop(permit);
                });
            }
        }
    }
}

/// A connection whose other end must take something of what is written within a time.
struct Patient {
    stream: TcpStream,
    patience: Duration,
    /// While nothing is taken: the end of patience.
    end: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn timely(&mut self, written: Poll<io::Result<usize>>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.end = None;
            return written;
        }
        let patience = self.patience;
        let end = self.end.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        end.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.timely(written, context)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.timely(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
