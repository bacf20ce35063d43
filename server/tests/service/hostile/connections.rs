//! What one connection may do: calls and headers, resets, silence, and how long it lives.

use std::time::Duration;

use prost::Message as _;
use zkinfer_proto::v1;

use super::frames::{
    ACK, CANCEL, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, Raw, call, call_headers, frame, literal,
};
use super::{PATIENCE, is_served};
use crate::harness::{Service, config};

const INFO: &str = "/zkinfer.v1.SystemService/GetServerInfo";
const UPLOAD: &str = "/zkinfer.v1.ArtifactService/WriteChunks";
const REFUSED_STREAM: [u8; 4] = 7u32.to_be_bytes();
/// `431` as HPACK's Huffman code has it.
const CODE_431: [u8; 3] = [0x69, 0x90, 0xff];

/// Whether a call on the connection is answered with a message.
async fn answers(raw: &mut Raw, stream: u32) -> bool {
    if raw.send(&call(stream, INFO, &[])).await.is_err() {
        return false;
    }
    loop {
        match raw.next().await {
            Some(frame) if frame.kind == DATA && frame.stream == stream => return true,
            Some(frame) if frame.kind != GOAWAY => {}
            Some(_) | None => return false,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_too_many_of_a_connection_is_refused_and_the_next_has_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.streams_per_connection = 3;
    let service = Service::start(config).await;
    let mut raw = Raw::connect(service.address, &[]).await;
    let open = |stream| frame(HEADERS, END_HEADERS, stream, &call_headers(UPLOAD));
    raw.send(&[open(1), open(3), open(5), open(7)].concat()).await.unwrap();
    let refused = loop {
        let frame = raw.next().await.expect("the connection stays");
        if frame.kind == RST_STREAM {
            break frame;
        }
    };
    assert_eq!((refused.stream, &refused.payload[..]), (7, &REFUSED_STREAM[..]));
    raw.send(&frame(RST_STREAM, 0, 1, &CANCEL)).await.unwrap();
    assert!(answers(&mut raw, 9).await, "there is a place again");
    is_served(&mut service.client().await).await;
    drop(raw);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_too_long_are_refused_and_the_connection_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.header_list_bytes = 2048;
    let service = Service::start(config).await;
    let mut raw = Raw::connect(service.address, &[]).await;
    // Each counts with 137 bytes; those of the call with less than 600.
    let padded = |stream, n: usize| {
        let headers = [call_headers(INFO), literal("x-pad", &"y".repeat(100)).repeat(n)].concat();
        let message = frame(DATA, END_STREAM, stream, &[0; 5]);
        [frame(HEADERS, END_HEADERS, stream, &headers), message].concat()
    };
    for (stream, n, is_taken) in [(1, 10, true), (3, 15, false), (5, 10, true)] {
        raw.send(&padded(stream, n)).await.unwrap();
        let mut is_refused = false;
        loop {
            let frame = raw.next().await.expect("the connection stays");
            if frame.kind == HEADERS && frame.stream == stream && frame.payload.windows(3).any(|bytes| bytes == CODE_431) {
                is_refused = true;
            }
            if frame.stream == stream && frame.flags & END_STREAM != 0 && matches!(frame.kind, HEADERS | DATA) {
                break;
            }
        }
        assert_eq!(is_refused, !is_taken, "{n}");
    }
    drop(raw);
    service.stop().await;
}

/// Calls that are reset right after they were opened, from a stream on.
fn opened_and_reset(from: u32, n: u32) -> Vec<u8> {
    let streams = (0..n).map(|index| from + 2 * index);
    let one =
        |stream| [frame(HEADERS, END_HEADERS | END_STREAM, stream, &call_headers(INFO)), frame(RST_STREAM, 0, stream, &CANCEL)].concat();
    streams.flat_map(one).collect()
}

/// Calls that the service has to reset: what a header says about the connection is an error of the stream.
fn opened_and_wrong(from: u32, n: u32) -> Vec<u8> {
    let streams = (0..n).map(|index| from + 2 * index);
    let headers = [call_headers(INFO), literal("connection", "close")].concat();
    streams.flat_map(|stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &headers)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_end_a_connection_from_the_number_on_that_is_configured() {
    for (resets, errors) in [(5, 5), (300, 300)] {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        config.limits.pending_accept_reset_streams = resets;
        config.limits.local_error_reset_streams = errors;
        let service = Service::start(config).await;
        let mut client = service.client().await;
        for opened in [opened_and_reset, opened_and_wrong] {
            let mut raw = Raw::connect(service.address, &[]).await;
            raw.send(&opened(1, 5)).await.unwrap();
            assert!(answers(&mut raw, 11).await, "so many are taken");
            // In one piece, of which the service sees far more than five before it looks at any.
            let is_sent = raw.send(&opened(13, 200)).await.is_ok();
            assert_eq!(is_sent && answers(&mut raw, 1001).await, resets > 200);
            is_served(&mut client).await;
        }
        drop(client);
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_answers_no_pings_is_closed_and_one_that_does_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.keepalive_interval = Duration::from_millis(100);
    config.limits.keepalive_timeout = Duration::from_secs(2);
    let service = Service::start(config).await;
    let mut silent = Raw::connect(service.address, &[]).await;
    let mut answering = Raw::connect(service.address, &[]).await;
    // For longer than the other has.
    let mut n_pings = 0;
    while n_pings < 40 {
        let ping = answering.next().await.expect("who answers stays");
        if ping.kind == PING && ping.flags & ACK == 0 {
            answering.send(&frame(PING, ACK, 0, &ping.payload)).await.unwrap();
            n_pings += 1;
        }
    }
    assert!(answers(&mut answering, 1).await);
    assert!(silent.is_closed().await, "who does not is closed");
    drop(answering);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_is_told_to_go_away_ends_what_runs_and_is_cut_after_its_grace() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    // The model stays as it is, and so does the stream that watches it.
    config.workers = 0;
    config.limits.heartbeat = Duration::from_millis(50);
    config.limits.connection_age = Duration::from_secs(1);
    config.limits.connection_age_grace = Duration::from_secs(2);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let name = client.create_model("mlp", "steps=1").await.name;
    let mut raw = Raw::connect(service.address, &[]).await;
    let watch = v1::WatchModelRequest { name: name.clone(), from_sequence: 0 }.encode_to_vec();
    raw.send(&call(1, "/zkinfer.v1.ModelService/WatchModel", &watch)).await.unwrap();
    let (mut before, mut after, mut is_told) = (0, 0, false);
    let life = async {
        while let Some(frame) = raw.next().await {
            match frame.kind {
                GOAWAY => is_told = true,
                DATA if is_told => after += 1,
                DATA => before += 1,
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, life).await.expect("it is cut in the end");
    assert!(before > 0 && is_told && after > 0, "{before} {is_told} {after}");
    // A client goes to another connection by itself.
    is_served(&mut client).await;
    drop(client);
    service.stop().await;
}
