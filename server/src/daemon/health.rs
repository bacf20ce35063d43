//! `zkinferd health`: asks a running process whether it is alive or ready, for images without a shell.
//!
//! One request over plain HTTP/1.1 to the side port, whose answers are short texts; so a client library would only add weight.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;

use super::print;

/// What is read of an answer: status, headers and a short text.
const MAX_ANSWER_BYTES: u64 = 8 << 10;

#[derive(Debug, Args)]
pub(super) struct HealthArguments {
    /// What to ask: `/livez` or `/readyz` of the address that the process was given by `--http-listen`.
    #[arg(long, default_value = "http://127.0.0.1:9464/readyz")]
    url: String,
    /// How long to wait for the answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=600))]
    timeout_seconds: u32,
}

/// Exit code 0 if the answer is 200; every other one is an error that quotes it.
pub(super) fn health(arguments: &HealthArguments) -> anyhow::Result<ExitCode> {
    let target = Target::parse(&arguments.url)?;
    let deadline = Instant::now() + Duration::from_secs(arguments.timeout_seconds.into());
    let answer = ask(&target, deadline).with_context(|| format!("no answer from {}", arguments.url))?;
    let (status, text) = parse_answer(&answer).with_context(|| format!("{} answered with something that is not HTTP", arguments.url))?;
    if status != 200 {
        bail!("{} answered {status}: {text}", arguments.url);
    }
    print(text)
}

/// Where to ask for what.
#[derive(Debug, PartialEq, Eq)]
struct Target<'a> {
    /// HOST:PORT.
    authority: &'a str,
    path: &'a str,
}

impl<'a> Target<'a> {
    fn parse(url: &'a str) -> anyhow::Result<Self> {
        let rest = url.strip_prefix("http://").with_context(|| format!("--url {url} must be http://HOST:PORT/PATH"))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let has_port = authority.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !has_port || url.contains(|character: char| character.is_whitespace() || character.is_control()) {
            bail!("--url {url} must be http://HOST:PORT/PATH, such as http://127.0.0.1:9464/livez");
        }
        Ok(Self { authority, path: if path.is_empty() { "/" } else { path } })
    }
}

/// The whole answer, or the beginning of a long one.
fn ask(target: &Target<'_>, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut stream = connect(target.authority, deadline)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    write!(stream, "GET {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", target.path, target.authority)?;
    let mut answer = Vec::new();
    let mut part = [0; 1024];
    while (answer.len() as u64) < MAX_ANSWER_BYTES {
        // Anew for each part: one that trickles must not take longer either.
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut part)? {
            0 => break,
            length => answer.extend(part.iter().take(length)),
        }
    }
    Ok(answer)
}

/// Tries all addresses of a name in turn.
fn connect(authority: &str, deadline: Instant) -> io::Result<TcpStream> {
    let mut refused = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Status and first line of the text.
fn parse_answer(answer: &[u8]) -> Option<(u16, &str)> {
    let answer = str::from_utf8(answer).ok()?;
    let (head, text) = answer.split_once("\r\n\r\n")?;
    let mut words = head.split(' ');
    let version = words.next()?;
    let status = words.next()?.parse().ok()?;
    version.starts_with("HTTP/1.").then_some((status, text.lines().next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};

    use super::*;

    fn arguments(url: String) -> HealthArguments {
        HealthArguments { url, timeout_seconds: 1 }
    }

    /// The error that an answer to one request leads to; none if it says that all is well.
    fn error_after(answer: &'static [u8]) -> Option<String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // It may come in pieces.
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut piece = [0; 1024];
                let length = stream.read(&mut piece).unwrap();
                assert!(length > 0, "the request ended early");
                request.extend_from_slice(&piece[..length]);
            }
            assert!(request.starts_with(b"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1:"));
            stream.write_all(answer).unwrap();
        });
        let outcome = health(&arguments(url));
        server.join().unwrap();
        outcome.err().map(|error| format!("{error:#}"))
    }

    #[test]
    fn only_200_is_healthy() {
        assert_eq!(error_after(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"), None);
        let draining = error_after(b"HTTP/1.1 503 Service Unavailable\r\n\r\ndraining\nmore").unwrap();
        assert!(draining.ends_with("answered 503: draining"), "{draining}");
        for nonsense in [b"".as_slice(), b"HTTP/1.1 200 OK\r\n", b"SSH-2.0 200\r\n\r\n", b"HTTP/1.1 many\r\n\r\n", b"\xff\r\n\r\n"] {
            assert!(error_after(nonsense).unwrap().contains("not HTTP"), "{nonsense:?}");
        }
    }

    #[test]
    fn nobody_there_and_silence_are_errors() {
        // Accepted by the system, and never answered.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(error_from(silent.local_addr().unwrap()).starts_with("no answer from http://127.0.0.1:"));
        // Nobody else can have this port, and nobody listens on it.
        let unheard = tokio::net::TcpSocket::new_v4().unwrap();
        unheard.bind(([127, 0, 0, 1], 0).into()).unwrap();
        assert!(error_from(unheard.local_addr().unwrap()).contains("refused"));
    }

    fn error_from(address: SocketAddr) -> String {
        format!("{:#}", health(&arguments(format!("http://{address}/livez"))).unwrap_err())
    }

    #[test]
    fn addresses_are_whole() {
        let target = |url| Target::parse(url).ok();
        assert_eq!(target("http://h:1/readyz"), Some(Target { authority: "h:1", path: "/readyz" }));
        assert_eq!(target("http://[::1]:9464"), Some(Target { authority: "[::1]:9464", path: "/" }));
        for url in ["https://h:1/", "h:1", "http://h/", "http://:1/", "http://h:99999/", "http://h:1/a b", "http://h:1/\r\n"] {
            assert!(Target::parse(url).unwrap_err().to_string().contains("http://HOST:PORT/PATH"), "{url}");
        }
    }
}
