//! Messages that lie about themselves.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::codegen::http::{Request, Uri};

use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::{Service as _, ServiceExt as _};
use zkinfer_proto::v1;

use super::{ROOM, is_served, peak_bytes, peak_from_now};
use crate::crash::Process;
use crate::harness::{Service, chunks, config, expect_error};

const CREATE: &str = "/zkinfer.v1.ProofService/CreateJob";

/// A call whose body is these bytes, after which the client ends it or falls silent; answers how it is refused.
async fn refusal(channel: &Channel, encoding: Option<&str>, body: Vec<u8>, is_ended: bool) -> Status {
    let first = futures::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(body)))]);
    let body = match is_ended {
        true => tonic::body::Body::new(StreamBody::new(first)),
        false => tonic::body::Body::new(StreamBody::new(first.chain(futures::stream::pending()))),
    };
    let mut request = Request::post(Uri::from_static(CREATE)).header("content-type", "application/grpc").header("te", "trailers");
    if let Some(encoding) = encoding {
        request = request.header("grpc-encoding", encoding);
    }
    let mut channel = channel.clone();
    let response = channel.ready().await.unwrap().call(request.body(body).unwrap()).await.unwrap();
    Status::from_header_map(response.headers()).expect("the call is refused")
}

/// A message of gRPC with a flag and a length that need not be true.
fn message(flag: u8, length: u32, content: &[u8]) -> Vec<u8> {
    [&[flag], &length.to_be_bytes()[..], content].concat()
}

/// `n_bytes` zeros in gzip: one literal, then matches of length 258 at distance 1, in fixed Huffman codes.
fn gzip_of_zeros(n_bytes: usize) -> Vec<u8> {
    let mut bits: Vec<bool> = Vec::new();
    // Last block, of type 01; the code of a literal 0 is 00110000.
    bits.extend([true, true, false]);
    bits.extend([false, false, true, true, false, false, false, false]);
    for _ in 0..n_bytes / 258 {
        // Length 258 is 11000101; distance 1 is 00000.
        bits.extend([true, true, false, false, false, true, false, true, false, false, false, false, false]);
    }
    bits.extend([false; 7]);
    let packed = bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |sum, bit| sum << 1 | u8::from(*bit)));
    let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    // A decoder writes its output long before it compares the sum and the size at the end.
    header.into_iter().chain(packed).chain([0; 8]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_and_encodings_that_lie_are_refused_without_the_memory_they_ask_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), 3).await;
    is_served(&mut process.client).await;
    let channel = process.client.channel.clone();
    let before = peak_from_now(process.id());
    for _ in 0..20 {
        let status = refusal(&channel, None, message(0, u32::MAX, b"short"), false).await;
        let details = expect_error(&status, Code::ResourceExhausted, "MESSAGE_TOO_LARGE");
        assert!(details.quota_failure().is_some());
    }
    let bomb = gzip_of_zeros(256 << 20);
    let length = u32::try_from(bomb.len()).unwrap();
    let status = refusal(&channel, Some("gzip"), message(1, length, &bomb), true).await;
    expect_error(&status, Code::Unimplemented, "UNIMPLEMENTED");
    let status = refusal(&channel, None, message(1, length, &bomb), true).await;
    expect_error(&status, Code::InvalidArgument, "UNDECODABLE_MESSAGE");
    let status = refusal(&channel, None, message(0, 100, b"short"), true).await;
    expect_error(&status, Code::InvalidArgument, "UNDECODABLE_MESSAGE");
    let status = refusal(&channel, None, message(0, 3, &[0xff; 3]), true).await;
    expect_error(&status, Code::InvalidArgument, "UNDECODABLE_MESSAGE");
    is_served(&mut process.client).await;
    let growth = peak_bytes(process.id()).saturating_sub(before);
    assert!(growth < ROOM, "{growth} bytes more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_message_does_not_arrive_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.unary = Duration::from_millis(300);
    let service = Service::start(config).await;
    let client = service.client().await;
    let status = tokio::time::timeout(super::PATIENCE, refusal(&client.channel, None, message(0, 100, b"slow"), false)).await;
    expect_error(&status.expect("ends"), Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    drop(client);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_lie_about_their_size_take_no_space_for_it_and_never_complete() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let bytes = vec![5; 3000];
    let request = v1::BeginUploadRequest { size_bytes: 2 << 30, blake3: blake3::hash(&bytes).as_bytes().to_vec(), ..Default::default() };
    let upload = client.artifacts.begin_upload(request).await.unwrap().into_inner().upload;
    let session = client.artifacts.write_chunks(tokio_stream::iter(chunks(&upload, &bytes, 0, 1000))).await.unwrap().into_inner();
    assert_eq!((session.committed_bytes, session.complete), (3000, false));
    let file = folder.path().join("uploads").join(upload.rsplit('/').next().unwrap());
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 3000);
    // The end cannot be claimed, nor written where it would be.
    for (write_offset, data) in [(3000, vec![]), (2 << 30, vec![]), ((2 << 30) - 1, vec![1]), (i64::MAX, vec![1]), (-1, vec![1])] {
        let crc32c = crc32c::crc32c(&data);
        let message = v1::WriteChunksRequest { upload: upload.clone(), write_offset, data: data.into(), crc32c };
        let status = client.artifacts.write_chunks(tokio_stream::iter([message])).await.unwrap_err();
        assert!(matches!(status.code(), Code::InvalidArgument | Code::OutOfRange), "{write_offset}: {status:?}");
    }
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 3000);
    service.stop().await;
}
