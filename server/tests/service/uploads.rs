//! Uploads through kill -9: what was acknowledged is there, what was not is sent again, and the artifact is the one that was announced.

use tokio_stream::StreamExt as _;
use zkinfer_proto::v1;

use crate::crash::Process;
use crate::harness::{Client, chunks};

const SIZE: usize = 12_000_000;
const CHUNK: usize = 200_000;

fn content() -> Vec<u8> {
    (0..SIZE).map(|i| (i * i % 253) as u8).collect()
}

async fn begin(client: &mut Client, bytes: &[u8], request_id: &str) -> v1::UploadSession {
    let request = v1::BeginUploadRequest {
        size_bytes: bytes.len() as i64,
        blake3: blake3::hash(bytes).as_bytes().to_vec(),
        request_id: request_id.into(),
        ..Default::default()
    };
    client.artifacts.begin_upload(request).await.unwrap().into_inner()
}

async fn session(client: &mut Client, upload: &str) -> v1::UploadSession {
    client.artifacts.get_upload(v1::GetUploadRequest { upload: upload.into() }).await.unwrap().into_inner()
}

/// Sends `n_chunks` from `offset` on, and leaves the stream open until it breaks.
async fn send_and_hang(client: &mut Client, upload: &str, bytes: &[u8], offset: usize, n_chunks: usize) {
    let mut messages = chunks(upload, bytes, offset, CHUNK);
    messages.truncate(n_chunks);
    let stream = tokio_stream::iter(messages).chain(tokio_stream::pending());
    let _broken = client.artifacts.write_chunks(stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_resumes_after_every_kill_with_no_byte_lost_or_doubled() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, request_id) = (content(), uuid::Uuid::new_v4().to_string());
    let mut process = Process::start(folder.path(), 1000).await;
    let upload = begin(&mut process.client, &bytes, &request_id).await.upload;
    let mut committed = 0;
    for n_chunks in [7, 23, 1, 30] {
        let mut sender = process.client.clone();
        let (name, content) = (upload.clone(), bytes.clone());
        let sending = tokio::spawn(async move { send_and_hang(&mut sender, &name, &content, committed, n_chunks).await });
        // The kill comes when all these chunks are written and only some, or none, are acknowledged.
        let (file, id) = (folder.path().join("uploads"), upload.rsplit('/').next().unwrap());
        let wanted = (committed + n_chunks * CHUNK) as u64;
        let arrived = async {
            while std::fs::metadata(file.join(id)).map_or(0, |meta| meta.len()) < wanted {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), arrived).await.expect("chunks arrive");
        process.kill();
        sending.await.unwrap();
        process = Process::start(folder.path(), 1000).await;
        let found = session(&mut process.client, &upload).await;
        assert!(found.committed_bytes as usize >= committed && found.committed_bytes as usize <= committed + n_chunks * CHUNK);
        assert!(!found.complete);
        committed = found.committed_bytes as usize;
        // The same request finds the same upload, as far as it is.
        let again = begin(&mut process.client, &bytes, &request_id).await;
        assert_eq!((again.upload, again.committed_bytes as usize), (upload.clone(), committed));
    }
    let messages = chunks(&upload, &bytes, committed, 1 << 20);
    let done = process.client.artifacts.write_chunks(tokio_stream::iter(messages)).await.unwrap().into_inner();
    assert!(done.complete);
    assert!(process.client.read(&done.artifact.unwrap().name).await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_was_killed_before_it_was_published_needs_no_byte_more() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = content();
    let mut process = Process::start(folder.path(), 1000).await;
    let upload = begin(&mut process.client, &bytes, "").await.upload;
    // In the way of what the last chunk makes: the bytes are on disk, and cannot be published.
    let public = folder.path().join("artifacts/public");
    std::fs::write(&public, b"").unwrap();
    let messages = chunks(&upload, &bytes, 0, 1 << 20);
    process.client.artifacts.write_chunks(tokio_stream::iter(messages)).await.unwrap_err();
    process.kill();
    std::fs::remove_file(&public).unwrap();
    let mut process = Process::start(folder.path(), 1000).await;
    let found = session(&mut process.client, &upload).await;
    assert_eq!((found.committed_bytes as usize, found.complete), (SIZE, false));
    let message = v1::WriteChunksRequest { upload: upload.clone(), write_offset: SIZE as i64, ..Default::default() };
    let done = process.client.artifacts.write_chunks(tokio_stream::iter([message])).await.unwrap().into_inner();
    assert!(process.client.read(&done.artifact.unwrap().name).await.unwrap() == bytes);
    assert!(!folder.path().join("uploads").join(upload.rsplit('/').next().unwrap()).exists());
}
