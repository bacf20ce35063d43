//! Floods of HTTP/2 frames: streams that are opened and reset, streams that the service is made to reset, headers without end.

use super::frames::{CANCEL, CONTINUATION, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, Raw, call_headers, frame, literal};
use super::{ROOM, is_served, peak_bytes, peak_from_now};
use crate::crash::Process;

const PATH: &str = "/zkinfer.v1.SystemService/GetServerInfo";
const CONNECTIONS: usize = 8;

/// Sends a flood over several connections, one after the other, and asserts that memory is bounded, that others are served, and that each flood is ended.
async fn a_flood_is_ended(pieces: impl Fn() -> Vec<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), 3).await;
    is_served(&mut process.client).await;
    let before = peak_from_now(process.id());
    for _ in 0..CONNECTIONS {
        let mut raw = Raw::connect(process.address, &[]).await;
        for piece in pieces() {
            // The service may have closed it already.
            if raw.send(&piece).await.is_err() {
                break;
            }
        }
        is_served(&mut process.client).await;
        assert!(raw.is_ended().await, "the flood goes on");
    }
    is_served(&mut process.client).await;
    let growth = peak_bytes(process.id()).saturating_sub(before);
    assert!(growth < ROOM, "{growth} bytes more");
}

/// Identifiers of streams that a client opens.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|index| 2 * index + 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_opened_and_reset_at_once_end_the_connection() {
    let headers = call_headers(PATH);
    a_flood_is_ended(|| {
        let open_and_reset =
            |stream| [frame(HEADERS, END_HEADERS | END_STREAM, stream, &headers), frame(RST_STREAM, 0, stream, &CANCEL)].concat();
        let all: Vec<Vec<u8>> = streams(10_000).map(open_and_reset).collect();
        all.chunks(500).map(<[_]>::concat).collect()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_the_service_is_made_to_reset_end_the_connection() {
    // What a header says about the connection is an error of the stream.
    let headers = [call_headers(PATH), literal("connection", "close")].concat();
    a_flood_is_ended(|| {
        let all: Vec<Vec<u8>> = streams(5_000).map(|stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &headers)).collect();
        all.chunks(500).map(<[_]>::concat).collect()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_end_end_the_connection() {
    let headers = call_headers(PATH);
    // A name of one byte and an empty value, again and again: 4 bytes that take far more once decoded.
    let more = [0, 1, b'a', 0].repeat(4000);
    a_flood_is_ended(|| {
        let first = frame(HEADERS, END_STREAM, 1, &headers);
        std::iter::once(first).chain((0..2000).map(|_| frame(CONTINUATION, 0, 1, &more))).collect()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_continuations_end_the_connection() {
    let headers = call_headers(PATH);
    a_flood_is_ended(|| {
        let first = frame(HEADERS, END_STREAM, 1, &headers);
        let empty = frame(CONTINUATION, 0, 1, &[]).repeat(5000);
        vec![first, empty.clone(), empty]
    })
    .await;
}
