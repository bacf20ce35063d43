//! Uploads through kill -9: what was acknowledged is there, what was not is sent again, and the artifact is the one that was announced.

use tokio_stream::StreamExt as _;
use tonic::Code;
use zkinfer_proto::v1;

use crate::crash::Process;
use crate::harness::{Client, Service, chunks, config, expect_error};

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

/// Sends `length` bytes of an upload, ends the stream, and answers how many were taken.
async fn send(client: &mut Client, upload: &str, bytes: &[u8], length: usize) -> usize {
    let messages = chunks(upload, &bytes[..length], 0, CHUNK);
    client.artifacts.write_chunks(tokio_stream::iter(messages)).await.unwrap().into_inner().committed_bytes as usize
}

/// The file of an upload.
fn file(folder: &std::path::Path, upload: &str) -> std::path::PathBuf {
    folder.join("uploads").join(upload.rsplit('/').next().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_bytes_are_at_another_server_starts_again_at_0() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    for (number, kept_bytes) in [None, Some(1000)].into_iter().enumerate() {
        let mut bytes = content();
        bytes[0] = 100 + number as u8;
        let upload = begin(&mut client, &bytes, "").await.upload;
        let sent = send(&mut client, &upload, &bytes, SIZE / 2).await;
        assert_eq!(sent, SIZE / 2);
        // As on the disk of another server: nothing, or what it got before the upload went on elsewhere.
        match kept_bytes {
            None => std::fs::remove_file(file(folder.path(), &upload)).unwrap(),
            Some(length) => std::fs::File::options().write(true).open(file(folder.path(), &upload)).unwrap().set_len(length).unwrap(),
        }
        let found = session(&mut client, &upload).await;
        assert_eq!((found.committed_bytes, found.complete), (0, false));
        let finish = v1::WriteChunksRequest { upload: upload.clone(), write_offset: sent as i64, ..Default::default() };
        for messages in [chunks(&upload, &bytes, sent, CHUNK), vec![finish]] {
            let status = client.artifacts.write_chunks(tokio_stream::iter(messages)).await.unwrap_err();
            let details = expect_error(&status, Code::Aborted, "UPLOAD_STARTS_AGAIN");
            assert!(status.message().contains("offset 0") && details.retry_info().is_some(), "{status:?}");
        }
        assert_eq!(send(&mut client, &upload, &bytes, 5 * CHUNK).await, 5 * CHUNK);
        assert_eq!(session(&mut client, &upload).await.committed_bytes as usize, 5 * CHUNK);
        let rest = chunks(&upload, &bytes, 5 * CHUNK, 1 << 20);
        let done = client.artifacts.write_chunks(tokio_stream::iter(rest)).await.unwrap().into_inner();
        assert!(client.read(&done.artifact.unwrap().name).await.unwrap() == bytes);
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_an_upload_that_was_given_up_are_removed_at_the_start_and_later() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = folder.path().join("uploads");
    std::fs::create_dir_all(&uploads).unwrap();
    let (left, other) = (uploads.join(uuid::Uuid::now_v7().to_string()), uploads.join("notes"));
    for path in [&left, &other] {
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
        std::fs::File::create(path).unwrap().set_modified(old).unwrap();
    }
    let mut config = config(folder.path());
    config.limits.upload_file = std::time::Duration::from_millis(500);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let bytes = content();
    let upload = begin(&mut client, &bytes, "").await.upload;
    send(&mut client, &upload, &bytes, CHUNK).await;
    let gone = async {
        while left.exists() || file(folder.path(), &upload).exists() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), gone).await.expect("what was given up is removed");
    assert!(other.exists(), "what is no upload stays");
    assert_eq!(session(&mut client, &upload).await.committed_bytes, 0);
    let done = client.artifacts.write_chunks(tokio_stream::iter(chunks(&upload, &bytes, 0, 1 << 20))).await.unwrap().into_inner();
    assert!(done.complete);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_has_no_room_on_the_disk_waits_until_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.model_bytes = SIZE as u64;
    config.limits.input_bytes = 1 << 20;
    config.limits.upload_disk_bytes = SIZE as u64 + 1_000_000;
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let (first, mut second) = (content(), content());
    second[0] = 1;
    let uploads = [begin(&mut client, &first, "").await.upload, begin(&mut client, &second, "").await.upload];
    // What lies there counts, whole chunks of it, and of the one that begins all that was announced.
    assert_eq!(send(&mut client, &uploads[0], &first, 10 * CHUNK).await, 10 * CHUNK);
    let status = client.artifacts.write_chunks(tokio_stream::iter(chunks(&uploads[1], &second, 0, CHUNK))).await.unwrap_err();
    let details = expect_error(&status, Code::ResourceExhausted, "STORAGE_FULL");
    assert!(details.retry_info().is_some());
    assert!(!file(folder.path(), &uploads[1]).exists());
    // The one that has a part there goes on, and then there is room.
    for (upload, bytes, offset) in [(&uploads[0], &first, 10 * CHUNK), (&uploads[1], &second, 0)] {
        let rest = chunks(upload, bytes, offset, CHUNK);
        let done = client.artifacts.write_chunks(tokio_stream::iter(rest)).await.unwrap().into_inner();
        assert!(done.complete);
    }
    service.stop().await;
}
