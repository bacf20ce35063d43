//! Places of the HTTP port.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zkinfer_server::observe::{Exposure, HttpPort};

use super::PATIENCE;
use crate::harness::{Service, config};

/// Asks for a page; answers the code, and the connection over which the rest would come.
async fn ask(address: SocketAddr, path: &str) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let mut line = [0; 12];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut line)).await.expect("is answered").unwrap();
    (String::from_utf8_lossy(&line[9..]).into_owned(), stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_follow_something_are_counted_and_others_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    let port = HttpPort::bind("127.0.0.1:0".parse().unwrap(), Exposure::Loopback).unwrap();
    config.http = Some(port.clone());
    config.limits.dashboard_streams = 2;
    let service = Service::start(config).await;
    let live = "/dashboard/api/live";
    let (first, second) = (ask(port.address(), live).await, ask(port.address(), live).await);
    assert_eq!((first.0.as_str(), second.0.as_str()), ("200", "200"));
    assert_eq!(ask(port.address(), live).await.0, "503");
    assert_eq!(ask(port.address(), "/dashboard/api/overview").await.0, "200");
    drop(first);
    let free = async { while ask(port.address(), live).await.0 != "200" {} };
    tokio::time::timeout(PATIENCE, free).await.expect("the place is free again");
    drop(second);
    service.stop().await;
}
