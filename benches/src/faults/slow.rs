//! Clients that send a byte a second, and clients that do not read.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::task::JoinSet;
use zkinfer_client::proto::{ReadArtifactRequest, WatchJobRequest};
use zkinfer_client::{MediaType, UploadSource};
use zkinfer_server::limits::Limits;

use super::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, Raw, call, call_headers, frame};
use super::scene::Scene;
use super::{ROOM, Stage, Told};
use crate::cluster::Layout;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Without an entry: all as usual.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// What a loaded machine may take longer than a limit.
const SLACK: Duration = Duration::from_secs(10);
/// Connections that begin slowly, at each of the two ports, and those whose message comes slowly.
const N_BEGINNING: usize = 100;
const N_ASKING: usize = 50;
/// Files that the server may have open then more than before: connections of those who are served.
const FILES_ROOM: usize = 30;
/// As many calls as a connection may have.
const N_STREAMS: u32 = 100;
const WATCH: &str = "/zkinfer.v1.ProofService/WatchJob";
const READ: &str = "/zkinfer.v1.ArtifactService/ReadArtifact";

pub(super) async fn slow_loris(stage: &Stage) -> anyhow::Result<Told> {
    // Connections get as old as they do otherwise: nothing but these two ends them.
    let limits = Limits { first_byte: Duration::from_secs(3), unary: Duration::from_secs(24), ..stage.limits() };
    let (begins_by, answered_by) = (limits.first_byte + SLACK, limits.unary + SLACK);
    let mut scene = Scene::start(stage, &Layout { limits, ..stage.layout() }).await?;
    let (pid, _) = scene.server()?;
    let n_before = n_open_files(pid)?;
    let (clients, workers) = scene.cluster.ports()[0];
    let mut connections = JoinSet::new();
    for address in [clients, workers] {
        for _ in 0..N_BEGINNING {
            let preface = PREFACE.iter().map(|byte| vec![*byte]).collect();
            connections.spawn(dribble(address, Vec::new(), preface, Wanted::Close, begins_by));
        }
    }
    let head = [PREFACE, &SETTINGS, &frame(HEADERS, END_HEADERS, 1, &call_headers("/zkinfer.v1.ProofService/CreateJob"))].concat();
    for _ in 0..N_ASKING {
        connections.spawn(dribble(clients, head.clone(), vec![frame(DATA, 0, 1, &[0]); 60], Wanted::Refusal, answered_by));
    }
    scene.note("connections", connections.len() as f64);
    scene.serve(3).await?;
    while let Some(ended) = connections.join_next().await {
        ended??;
    }
    scene.serve(1).await?;
    let n_after = n_open_files(pid)?;
    ensure!(n_after < n_before + FILES_ROOM, "the server has {n_after} files open, {n_before} before");
    scene.finish().await
}

/// What is to become of a slow connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// It is closed.
    Close,
    /// Its call is answered with nothing but a status.
    Refusal,
}

/// Sends `head`, then a piece a second, until the service does what is wanted.
async fn dribble(address: SocketAddr, head: Vec<u8>, pieces: Vec<Vec<u8>>, wanted: Wanted, within: Duration) -> anyhow::Result<()> {
    let (mut read, mut write) = TcpStream::connect(address).await?.into_split();
    let writing = tokio::spawn(async move {
        for piece in std::iter::once(head).chain(pieces) {
            if write.write_all(&piece).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        write
    });
    let ended = tokio::time::timeout(within, async {
        match wanted {
            Wanted::Close => {
                let mut answer = [0; 4096];
                while read.read(&mut answer).await.is_ok_and(|n_bytes| n_bytes > 0) {}
                Ok(())
            }
            Wanted::Refusal => refused(&mut read).await,
        }
    });
    let ended = ended.await;
    writing.abort();
    ended.with_context(|| format!("{wanted:?} does not come within {within:?}"))?
}

/// Reads until the call is over: the first of its headers is the last.
async fn refused(read: &mut OwnedReadHalf) -> anyhow::Result<()> {
    loop {
        let mut head = [0; 9];
        read.read_exact(&mut head).await.context("the connection is closed before its call is answered")?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        read.read_exact(&mut payload).await?;
        let (kind, flags) = (head[3], head[4]);
        if kind == HEADERS {
            ensure!(flags & END_STREAM != 0, "a message that never came is answered");
            return Ok(());
        }
    }
}

fn n_open_files(pid: u32) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd")).context("the server is gone")?.count())
}

pub(super) async fn slow_watchers(stage: &Stage) -> anyhow::Result<Told> {
    let limits = Limits { heartbeat: Duration::from_millis(50), downloads: 8, ..stage.limits() };
    let mut scene = Scene::start(stage, &Layout { limits, ..stage.layout() }).await?;
    scene.serve(1).await?;
    let artifact = scene.client.upload(&UploadSource::Bytes(vec![7_u8; 8 << 20].into()), MediaType::OctetStream).await?.name;
    let before = scene.server_from_now()?;
    let (address, _) = scene.cluster.ports()[0];
    // Others are asked for first, so that these wait, and are watched all the time.
    let others = tokio::spawn({
        let clients = scene.clients();
        async move { clients.run(6).await }
    });
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let job = scene.begin().await?;
        let message = WatchJobRequest { name: job, from_sequence: 1 }.encode_to_vec();
        let mut raw = unread(address, WATCH, &message).await?;
        ensure!(raw.has_answers(N_STREAMS as usize).await, "watchers are refused");
        stalled.push(raw);
    }
    let message = ReadArtifactRequest { name: artifact, ..ReadArtifactRequest::default() }.encode_to_vec();
    stalled.push(unread(address, READ, &message).await?);
    others.await??.into_iter().for_each(|job| scene.know(job));
    for job in scene.known() {
        scene.ended(&job).await?;
    }
    scene.note("watchers", f64::from(4 * N_STREAMS));
    scene.check_memory(before, ROOM)?;
    drop(stalled);
    scene.finish().await
}

/// A connection with as many calls as it may have, which takes no byte of their answers.
async fn unread(address: SocketAddr, path: &str, message: &[u8]) -> anyhow::Result<Raw> {
    let mut raw = Raw::connect(address, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let calls: Vec<u8> = (0..N_STREAMS).flat_map(|index| call(2 * index + 1, path, message)).collect();
    raw.send(&calls).await?;
    Ok(raw)
}
