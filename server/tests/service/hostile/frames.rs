//! HTTP/2 by hand, as far as misuse needs it.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::PATIENCE;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const ACK: u8 = 1;

/// Why a client resets a stream.
pub(super) const CANCEL: [u8; 4] = 8u32.to_be_bytes();

pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header that is in no table.
pub(super) fn literal(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap();
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

/// The headers of a gRPC call.
pub(super) fn call_headers(path: &str) -> Vec<u8> {
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    headers.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// A gRPC call with its message, in one piece.
pub(super) fn call(stream: u32, path: &str, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = [&[0], &length[..], message].concat();
    [frame(HEADERS, END_HEADERS, stream, &call_headers(path)), frame(DATA, END_STREAM, stream, &body)].concat()
}

/// What came over a connection.
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// A connection that has sent its preface.
pub(super) struct Raw {
    stream: TcpStream,
}

impl Raw {
    pub(super) async fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let values: Vec<u8> = settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        let start = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &*frame(SETTINGS, 0, 0, &values), &*frame(SETTINGS, ACK, 0, &[])].concat();
        stream.write_all(&start).await.unwrap();
        Self { stream }
    }

    /// # Errors
    /// The connection is gone.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        tokio::time::timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("the service reads or closes")
    }

    async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame; `None`: the connection is closed.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        tokio::time::timeout(PATIENCE, self.read()).await.expect("a frame comes, or the end")
    }

    /// Reads until the service says GOAWAY or closes; `false`: it does neither.
    pub(super) async fn is_ended(&mut self) -> bool {
        let ended = async { while self.read().await.is_some_and(|frame| frame.kind != GOAWAY) {} };
        tokio::time::timeout(PATIENCE, ended).await.is_ok()
    }

    /// Reads until the service closes; `false`: it does not.
    pub(super) async fn is_closed(&mut self) -> bool {
        let closed = async { while self.read().await.is_some() {} };
        tokio::time::timeout(PATIENCE, closed).await.is_ok()
    }

    /// Reads until so many calls have begun to be answered; `false`: they are not, or some are refused.
    #[allow(dead_code, reason = "only some of those who share this file ask")]
    pub(super) async fn has_answers(&mut self, count: usize) -> bool {
        let answered = async {
            let mut n_begun = 0;
            while n_begun < count {
                match self.read().await {
                    Some(Frame { kind: HEADERS, flags, .. }) if flags & END_STREAM == 0 => n_begun += 1,
                    None | Some(Frame { kind: HEADERS | GOAWAY, .. }) => return false,
                    Some(_) => {}
                }
            }
            true
        };
        tokio::time::timeout(PATIENCE, answered).await.unwrap_or(false)
    }
}
