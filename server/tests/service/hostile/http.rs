//! Clients of the HTTP port that are slow on purpose, or too many.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zkinfer_server::Config;
use zkinfer_server::observe::{Exposure, HttpPort};

use super::PATIENCE;
use crate::harness::{Service, config};

fn config_with_port(folder: &Path) -> (Config, SocketAddr) {
    let port = HttpPort::bind("127.0.0.1:0".parse().unwrap(), Exposure::Loopback).unwrap();
    let mut config = config(folder);
    config.http = Some(port.clone());
    (config, port.address())
}

/// Whether a new connection is answered.
async fn is_answered(address: SocketAddr) -> bool {
    let answer = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, answer).await.expect("is answered or closed");
    answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

async fn becomes_free(address: SocketAddr) {
    let free = async {
        while !is_answered(address).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("a place is free again");
}

/// Sends a head, a byte at a time, that has no end.
async fn dribble(mut half: tokio::net::tcp::OwnedWriteHalf) {
    let _ = half.write_all(b"GET /livez HTTP/1.1\r\nx: ").await;
    while half.write_all(b"y").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_never_end_and_silent_connections_are_closed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, address) = config_with_port(folder.path());
    config.limits.http_head = Duration::from_secs(1);
    let service = Service::start(config).await;
    let mut reading = Vec::new();
    for index in 0..20 {
        let (read, write) = TcpStream::connect(address).await.unwrap().into_split();
        match index % 2 {
            0 => drop(tokio::spawn(dribble(write))),
            // Kept open: that the client ends its side would close it too.
            _ => write.forget(),
        }
        reading.push(read);
    }
    assert!(is_answered(address).await, "others are served meanwhile");
    for mut stream in reading {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "the service closes it");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_too_many_is_closed_and_its_place_is_free_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, address) = config_with_port(folder.path());
    config.limits.http_connections = 3;
    config.limits.http_head = Duration::from_secs(300);
    let service = Service::start(config).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // Accepted in order: those above hold the places.
    assert!(!is_answered(address).await);
    drop(silent);
    becomes_free(address).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_no_answer_loses_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, address) = config_with_port(folder.path());
    config.limits.http_connections = 1;
    config.limits.http_head = Duration::from_secs(300);
    config.limits.http_stall = Duration::from_secs(1);
    let service = Service::start(config).await;
    let (unread, mut asking) = TcpStream::connect(address).await.unwrap().into_split();
    // More answers than all buffers on the way hold.
    let asked = tokio::spawn(async move {
        for _ in 0..20_000 {
            if asking.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await.is_err() {
                break;
            }
        }
        asking
    });
    // It came first, and holds the only place.
    assert!(!is_answered(address).await);
    becomes_free(address).await;
    asked.abort();
    drop(unread);
    service.stop().await;
}
