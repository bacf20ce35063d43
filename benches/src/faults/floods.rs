//! Floods of HTTP/2 frames, of a bounded number.

use std::net::SocketAddr;

use anyhow::ensure;

use super::frames::{CONTINUATION, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, Raw, call_headers, frame};
use super::scene::Scene;
use super::{ROOM, Stage, Told};

const PATH: &str = "/zkinfer.v1.SystemService/GetServerInfo";
const CANCEL: [u8; 4] = 8u32.to_be_bytes();
/// Connections of each flood, one after the other.
const N_CONNECTIONS: usize = 6;
const N_STREAMS: u32 = 10_000;

pub(super) async fn reset_flood(stage: &Stage) -> anyhow::Result<Told> {
    let mut scene = Scene::start(stage, &stage.layout()).await?;
    scene.serve(1).await?;
    let before = scene.server_from_now()?;
    let (address, _) = scene.cluster.ports()[0];
    for pieces in [resets(), endless_headers()] {
        let (flooded, served) = tokio::join!(flood(address, &pieces), scene.serve(3));
        flooded?;
        served?;
    }
    scene.note("connections", 2.0 * N_CONNECTIONS as f64);
    scene.check_memory(before, ROOM)?;
    scene.finish().await
}

/// Streams that are opened and reset at once.
fn resets() -> Vec<Vec<u8>> {
    let headers = call_headers(PATH);
    let open_and_reset =
        |stream| [frame(HEADERS, END_HEADERS | END_STREAM, stream, &headers), frame(RST_STREAM, 0, stream, &CANCEL)].concat();
    let all: Vec<Vec<u8>> = (0..N_STREAMS).map(|index| open_and_reset(2 * index + 1)).collect();
    all.chunks(500).map(<[_]>::concat).collect()
}

/// The head of a call that has no end.
fn endless_headers() -> Vec<Vec<u8>> {
    let first = frame(HEADERS, END_STREAM, 1, &call_headers(PATH));
    // A name of one byte and an empty value, again and again: 4 bytes that take far more once decoded.
    let more = [0, 1, b'a', 0].repeat(4000);
    std::iter::once(first).chain((0..2000).map(|_| frame(CONTINUATION, 0, 1, &more))).collect()
}

/// Sends these bytes over several connections; each is to be ended by the service.
async fn flood(address: SocketAddr, pieces: &[Vec<u8>]) -> anyhow::Result<()> {
    for _ in 0..N_CONNECTIONS {
        let mut raw = Raw::connect(address, &[]).await;
        for piece in pieces {
            // The service may have closed it already.
            if raw.send(piece).await.is_err() {
                break;
            }
        }
        ensure!(raw.is_ended().await, "a flood goes on");
    }
    Ok(())
}
