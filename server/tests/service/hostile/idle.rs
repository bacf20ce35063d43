//! Connections that say nothing, or next to nothing.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{PATIENCE, is_served};
use crate::daemon::{Daemon, zkinferd};
use crate::harness::Client;

const IDLE: usize = 450;
const DRIBBLING: usize = 50;

/// Sends the HTTP/2 preface, a byte a second.
async fn dribble(mut stream: TcpStream) {
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Files that a process has open.
fn n_open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_silent_connections_hold_up_neither_answers_nor_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let limits = folder.path().join("limits");
    // They could stay for longer than this test takes.
    std::fs::write(&limits, r#"{"first_byte_seconds": 300}"#).unwrap();
    let mut daemon = Daemon::start(folder.path(), &["--drain-seconds", "1", "--limits", limits.to_str().unwrap()]).await;
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(TcpStream::connect(&daemon.address).await.unwrap());
    }
    for _ in 0..DRIBBLING {
        tokio::spawn(dribble(TcpStream::connect(&daemon.address).await.unwrap()));
    }
    let mut client = Client::connect(daemon.address.parse().unwrap()).await;
    for _ in 0..10 {
        is_served(&mut client).await;
    }
    assert!(n_open_files(daemon.id()) > IDLE + DRIBBLING, "they are all there");
    drop(client);
    daemon.signal("-TERM");
    // One second for running work, and the daemon's ten for connections that do not end.
    let ended = tokio::time::timeout(Duration::from_secs(30), daemon.exit_code()).await.expect("the daemon ends");
    assert!(matches!(ended, 0 | 3), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_are_never_finished_are_closed_and_hold_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (certificates, limits, map) = (folder.path().join("certificates"), folder.path().join("limits"), folder.path().join("map"));
    let file = |name: &str| certificates.join(name).to_str().unwrap().to_owned();
    let made = zkinferd(&[
        "certs",
        "--out",
        certificates.to_str().unwrap(),
        "--name",
        "zkinfer.test",
        "127.0.0.1",
        "--client",
        "spiffe://acme/ci",
    ]);
    assert!(made.status.success());
    std::fs::write(&limits, r#"{"first_byte_seconds": 2}"#).unwrap();
    std::fs::write(&map, "spiffe://acme/ci acme scopes=jobs.read\n").unwrap();
    let (server, key, ca) = (file("server.pem"), file("server-key.pem"), file("ca.pem"));
    let tls = ["--tls-cert", &server, "--tls-key", &key, "--tls-client-ca", &ca, "--tls-client-map", map.to_str().unwrap()];
    let daemon = Daemon::start(folder.path(), &[&tls[..], &["--limits", limits.to_str().unwrap()]].concat()).await;
    let mut halves = Vec::new();
    for length in (0..5).cycle().take(100) {
        let mut stream = TcpStream::connect(&daemon.address).await.unwrap();
        // The beginning of a ClientHello of 512 bytes.
        stream.write_all(&[0x16, 3, 1, 2, 0][..length]).await.unwrap();
        halves.push(stream);
    }
    let mut client = daemon.connect(&certificates).await;
    is_served(&mut client).await;
    for stream in &mut halves {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "the service closes it");
    }
    is_served(&mut client).await;
}
