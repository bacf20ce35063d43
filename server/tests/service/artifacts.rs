//! Uploads and downloads in chunks: resumed, refused, and only of what is public.

use tonic::Code;
use zkinfer_proto::v1;

use crate::harness::{Client, Service, chunks, config, expect_error, fields};

async fn begin(client: &mut Client, bytes: &[u8]) -> v1::UploadSession {
    let request =
        v1::BeginUploadRequest { size_bytes: bytes.len() as i64, blake3: blake3::hash(bytes).as_bytes().to_vec(), ..Default::default() };
    client.artifacts.begin_upload(request).await.unwrap().into_inner()
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * i % 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_resumes_where_it_stopped_also_in_a_later_run() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let bytes = content(9_000_000);
    let upload = begin(&mut client, &bytes).await.upload;
    let mut messages = chunks(&upload, &bytes, 0, 1 << 20);
    messages.truncate(3);
    let session = client.artifacts.write_chunks(tokio_stream::iter(messages)).await.unwrap();
    let session = session.into_inner();
    assert_eq!((session.committed_bytes, session.complete), (3 << 20, false));
    service.stop().await;

    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let request = v1::GetUploadRequest { upload: upload.clone() };
    let session = client.artifacts.get_upload(request).await.unwrap().into_inner();
    assert_eq!(session.committed_bytes, 3 << 20);
    let messages = chunks(&upload, &bytes, 3 << 20, 700_000);
    let session = client.artifacts.write_chunks(tokio_stream::iter(messages)).await.unwrap();
    let artifact = session.into_inner().artifact.unwrap();
    assert_eq!(artifact.size_bytes, 9_000_000);
    assert!(client.read(&artifact.name).await.unwrap() == bytes);

    let again = begin(&mut client, &bytes).await;
    assert!(again.complete, "known bytes need no upload");
    let request = v1::ReadArtifactRequest { name: artifact.name.clone(), read_offset: 8_999_000, read_limit: 10 };
    let mut stream = client.artifacts.read_artifact(request).await.unwrap().into_inner();
    let part = stream.message().await.unwrap().unwrap();
    assert_eq!(part.data, &bytes[8_999_000..8_999_010]);
    let request = v1::GetArtifactRequest { name: artifact.name.clone() };
    assert_eq!(client.artifacts.get_artifact(request).await.unwrap().into_inner(), artifact);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_chunks_are_refused_and_what_came_before_stays() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let bytes = content(3000);
    let upload = begin(&mut client, &bytes).await.upload;
    let mut messages = chunks(&upload, &bytes, 0, 1000);
    messages[1].crc32c ^= 1;
    let status = client.artifacts.write_chunks(tokio_stream::iter(messages)).await.unwrap_err();
    expect_error(&status, Code::InvalidArgument, "CHECKSUM_MISMATCH");
    let request = v1::GetUploadRequest { upload: upload.clone() };
    let session = client.artifacts.get_upload(request).await.unwrap().into_inner();
    assert_eq!(session.committed_bytes, 1000);

    let messages = chunks(&upload, &bytes, 2000, 1000);
    let status = client.artifacts.write_chunks(tokio_stream::iter(messages)).await.unwrap_err();
    expect_error(&status, Code::OutOfRange, "OFFSET_MISMATCH");
    let messages = chunks(&upload, &content(4000), 1000, 3000);
    let status = client.artifacts.write_chunks(tokio_stream::iter(messages)).await.unwrap_err();
    expect_error(&status, Code::OutOfRange, "UPLOAD_TOO_LONG");
    let mut messages = chunks(&upload, &bytes, 1000, 1000);
    messages[0].data = Default::default();
    messages[1].upload = "tenants/default/uploads/other".into();
    let status = client.artifacts.write_chunks(tokio_stream::iter(messages)).await.unwrap_err();
    assert_eq!(fields(&expect_error(&status, Code::InvalidArgument, "INVALID_FIELDS")), ["data"]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_with_another_hash_never_become_an_artifact() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let bytes = content(2000);
    let upload = begin(&mut client, &bytes).await.upload;
    let mut wrong = bytes.clone();
    wrong[77] ^= 1;
    let messages = chunks(&upload, &wrong, 0, 1000);
    let status = client.artifacts.write_chunks(tokio_stream::iter(messages)).await.unwrap_err();
    expect_error(&status, Code::FailedPrecondition, "HASH_MISMATCH");
    let request = v1::GetUploadRequest { upload: upload.clone() };
    let session = client.artifacts.get_upload(request).await.unwrap().into_inner();
    assert_eq!(session.committed_bytes, 0);
    let messages = chunks(&upload, &bytes, 0, 1000);
    let session = client.artifacts.write_chunks(tokio_stream::iter(messages)).await.unwrap();
    assert!(session.into_inner().complete);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_bytes_on_disk_are_data_loss_and_no_byte_of_them_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let bytes = content(5000);
    let name = client.upload(&bytes).await;
    let hash = name.rsplit('/').next().unwrap();
    let file = folder.path().join("artifacts/public/default").join(&hash[..2]).join(hash);
    let mut stored = std::fs::read(&file).unwrap();
    stored[4999] ^= 1;
    std::fs::write(&file, stored).unwrap();
    let status = client.read(&name).await.unwrap_err();
    let details = expect_error(&status, Code::DataLoss, "STORED_BYTES_DAMAGED");
    assert_eq!(details.resource_info().unwrap().resource_name, name);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_and_names_are_checked_before_anything_else() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    for size_bytes in [-1, 0, i64::MAX] {
        let request = v1::BeginUploadRequest { size_bytes, blake3: vec![0; 31], ..Default::default() };
        let status = client.artifacts.begin_upload(request).await.unwrap_err();
        let details = expect_error(&status, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&details), ["blake3", "size_bytes"]);
    }
    for name in ["", "tenants/default/artifacts/..", "/etc/passwd"] {
        let request = v1::GetArtifactRequest { name: name.into() };
        let status = client.artifacts.get_artifact(request).await.unwrap_err();
        expect_error(&status, Code::InvalidArgument, "INVALID_FIELDS");
    }
    let upload = "tenants/default/uploads/01923c5e-7b1c-7d3a-9a55-0123456789ab";
    let messages = chunks(upload, b"x", 0, 1);
    let status = client.artifacts.write_chunks(tokio_stream::iter(messages)).await.unwrap_err();
    expect_error(&status, Code::NotFound, "NOT_FOUND");
    service.stop().await;
}
