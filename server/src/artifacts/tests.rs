//! What every place for artifacts must do, run against each: local files, and S3 where the environment names one (server/tests/s3.sh).

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt as _};

use super::keys::tests::keys;
use super::place::{self, Opened};
use super::{ArtifactBytes, ArtifactKeys, ArtifactPlace, BytesError, Class};
use crate::engine::Digest;

/// A bucket that tests may write, as URL; credentials and endpoint are in the environment.
const S3_URL: &str = "ZKINFER_TEST_S3_URL";
const PART: usize = 8 << 20;
/// Largest part of a reader.
const READER_PART: usize = 4 << 20;
/// The ends of what is written and read at once and in parts, and of a segment.
const LENGTHS: [usize; 9] = [0, 1, 65_535, 65_536, 65_537, READER_PART + 1, PART, PART + 1, 2 * PART + 12_345];

fn content(length: usize) -> Bytes {
    (0..length).map(|i| (i * i % 251) as u8).collect::<Vec<u8>>().into()
}

async fn conforms(opened: &Opened) {
    place::probe(opened).await.unwrap();
    for keys in [None, Some(keys(&[1]))] {
        bytes_come_back_whole_and_in_part(opened, keys.as_ref()).await;
        classes_and_tenants_are_apart(opened, keys.as_ref()).await;
        writers_at_once_all_succeed(opened, keys.as_ref()).await;
        damage_is_found_and_mended(opened, keys.as_ref()).await;
        deleted_bytes_are_gone(opened, keys.as_ref()).await;
    }
    keys_rotate(opened).await;
}

fn over(opened: &Opened, keys: Option<&ArtifactKeys>) -> ArtifactBytes {
    ArtifactBytes::over(opened.store.clone(), keys)
}

async fn bytes_come_back_whole_and_in_part(opened: &Opened, keys: Option<&ArtifactKeys>) {
    let store = over(opened, keys);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    for length in LENGTHS {
        let bytes = content(length);
        let digest = store.put(Class::Public, "a", bytes.clone()).await.unwrap();
        assert_eq!(digest, *blake3::hash(&bytes).as_bytes());
        assert_eq!(store.put(Class::Public, "a", bytes.clone()).await.unwrap(), digest, "again is no error");
        std::fs::write(&file, &bytes).unwrap();
        store.put_file(Class::Public, "b", digest, &file).await.unwrap();
        for tenant in ["a", "b"] {
            assert!(store.get(Class::Public, tenant, digest).await.unwrap() == bytes, "{length} bytes");
            store.check(Class::Public, tenant, digest, length as u64).await.unwrap();
            let wrong_size = store.check(Class::Public, tenant, digest, length as u64 + 1).await;
            assert!(matches!(wrong_size, Err(BytesError::Damaged)));
            let parts = parts(&store, Class::Public, tenant, digest).await.unwrap();
            assert!(parts.iter().all(|part| (1..=READER_PART).contains(&part.len())), "{length} bytes");
            assert!(parts.concat() == bytes, "{length} bytes");
        }
        for range in
            [0..length, 0..length.min(1), length / 3..length / 2, length.saturating_sub(1)..length, 65_530.min(length)..length.min(65_550)]
        {
            let part = store.range(Class::Public, "a", digest, range.start as u64..range.end as u64).await.unwrap();
            assert!(part == bytes[range.clone()], "{range:?} of {length} bytes");
        }
        if length > 0 {
            let beyond = store.range(Class::Public, "a", digest, length as u64 - 1..length as u64 + 1).await;
            assert!(matches!(beyond, Err(BytesError::Damaged)), "{beyond:?}");
        }
    }
    std::fs::write(&file, b"other").unwrap();
    let other = store.put_file(Class::Public, "b", [9; 32], &file).await;
    assert!(matches!(other, Err(BytesError::Damaged)), "a file with another hash");
    assert!(matches!(store.get(Class::Public, "b", [9; 32]).await, Err(BytesError::Missing)));
}

/// What a reader gives until its end.
async fn parts(store: &ArtifactBytes, class: Class, tenant: &str, digest: Digest) -> Result<Vec<Bytes>, BytesError> {
    let mut reader = store.reader(class, tenant, digest).await?;
    let mut parts = Vec::new();
    while let Some(part) = reader.next().await? {
        parts.push(part);
    }
    assert_eq!(parts.iter().map(Bytes::len).sum::<usize>() as u64, reader.size_bytes());
    Ok(parts)
}

async fn classes_and_tenants_are_apart(opened: &Opened, keys: Option<&ArtifactKeys>) {
    let store = over(opened, keys);
    let tenant = if keys.is_some() { "apart-sealed" } else { "apart" };
    let digest = store.put(Class::Internal, tenant, content(99)).await.unwrap();
    for (class, tenant) in [(Class::Public, tenant), (Class::Internal, "another")] {
        assert!(matches!(store.get(class, tenant, digest).await, Err(BytesError::Missing)));
        assert!(matches!(store.check(class, tenant, digest, 99).await, Err(BytesError::Missing)));
        assert!(matches!(store.range(class, tenant, digest, 0..1).await, Err(BytesError::Missing)));
        assert!(matches!(store.reader(class, tenant, digest).await, Err(BytesError::Missing)));
    }
    let location = only_object(&*opened.store, &format!("internal/{tenant}")).await;
    assert_eq!(location.to_string().contains(&hex::encode(digest)), keys.is_none());
    let stored = opened.store.get(&location).await.unwrap().bytes().await.unwrap();
    assert_eq!(stored.windows(16).any(|window| window == &content(99)[20..36]), keys.is_none());
}

async fn writers_at_once_all_succeed(opened: &Opened, keys: Option<&ArtifactKeys>) {
    for length in [1000, PART + 1] {
        let bytes = content(length);
        let writers = (0..4).map(|_| {
            let (store, bytes) = (over(opened, keys), bytes.clone());
            async move { store.put(Class::Internal, "many", bytes).await }
        });
        let digests: Vec<_> = futures::future::join_all(writers).await.into_iter().map(Result::unwrap).collect();
        assert!(over(opened, keys).get(Class::Internal, "many", digests[0]).await.unwrap() == bytes);
    }
}

/// The one object under a prefix.
async fn only_object(store: &dyn ObjectStore, prefix: &str) -> object_store::path::Path {
    let objects: Vec<_> = futures::StreamExt::collect(store.list(Some(&prefix.into()))).await;
    assert_eq!(objects.len(), 1);
    objects.into_iter().next().unwrap().unwrap().location
}

async fn damage_is_found_and_mended(opened: &Opened, keys: Option<&ArtifactKeys>) {
    let store = over(opened, keys);
    for length in [10_000, PART + 1] {
        let tenant = format!("damage-{}-{length}", if keys.is_some() { "sealed" } else { "plain" });
        let bytes = content(length);
        let digest = store.put(Class::Internal, &tenant, bytes.clone()).await.unwrap();
        let location = only_object(&*opened.store, &format!("internal/{tenant}")).await;
        let right = opened.store.get(&location).await.unwrap().bytes().await.unwrap();
        let (mut flipped, mut longer) = (right.to_vec(), right.to_vec());
        flipped[5000] ^= 1;
        longer.push(0);
        for wrong in [Bytes::from(flipped), right.slice(..right.len() - 1), right.slice(..16), Bytes::new(), longer.into()] {
            opened.store.put(&location, wrong.into()).await.unwrap();
            assert!(matches!(store.get(Class::Internal, &tenant, digest).await, Err(BytesError::Damaged)));
            let checked = store.check(Class::Internal, &tenant, digest, length as u64).await;
            assert!(matches!(checked, Err(BytesError::Damaged)));
            assert!(matches!(parts(&store, Class::Internal, &tenant, digest).await, Err(BytesError::Damaged)));
            store.put(Class::Internal, &tenant, bytes.clone()).await.unwrap();
            assert!(store.get(Class::Internal, &tenant, digest).await.unwrap() == bytes);
        }
    }
    if keys.is_none() {
        return;
    }
    // An intact object in the place of another one.
    let [first, second] = [content(100), content(101)];
    let digest = store.put(Class::Internal, "swap-a", first).await.unwrap();
    store.put(Class::Internal, "swap-b", second).await.unwrap();
    let (from, to) = (only_object(&*opened.store, "internal/swap-b").await, only_object(&*opened.store, "internal/swap-a").await);
    opened.store.copy(&from, &to).await.unwrap();
    assert!(matches!(store.get(Class::Internal, "swap-a", digest).await, Err(BytesError::Damaged)));
    assert!(matches!(store.range(Class::Internal, "swap-a", digest, 0..5).await, Err(BytesError::Damaged)));
}

async fn deleted_bytes_are_gone(opened: &Opened, keys: Option<&ArtifactKeys>) {
    let store = over(opened, keys);
    let digest = store.put(Class::Public, "gone", content(500)).await.unwrap();
    // The unencrypted form is deleted too.
    over(opened, None).put(Class::Public, "gone", content(500)).await.unwrap();
    store.delete(Class::Public, "gone", digest).await.unwrap();
    store.delete(Class::Public, "gone", digest).await.unwrap();
    assert!(matches!(store.get(Class::Public, "gone", digest).await, Err(BytesError::Missing)));
}

async fn keys_rotate(opened: &Opened) {
    let [plain, old, both, new] = [None, Some(keys(&[1])), Some(keys(&[2, 1])), Some(keys(&[2]))].map(|keys| over(opened, keys.as_ref()));
    let unsealed = plain.put(Class::Internal, "turn", content(70_001)).await.unwrap();
    let before = old.put(Class::Internal, "turn", content(70_002)).await.unwrap();
    let after = both.put(Class::Internal, "turn", content(70_003)).await.unwrap();
    for (digest, length) in [(unsealed, 70_001), (before, 70_002), (after, 70_003)] {
        assert!(both.get(Class::Internal, "turn", digest).await.unwrap() == content(length));
        assert_eq!(both.range(Class::Internal, "turn", digest, 65_000..66_000).await.unwrap(), content(length)[65_000..66_000]);
    }
    assert!(matches!(new.get(Class::Internal, "turn", before).await, Err(BytesError::Missing)), "an object of a key that is gone");
    assert!(matches!(old.get(Class::Internal, "turn", after).await, Err(BytesError::Missing)), "an object of a key that is not known");
    assert!(matches!(plain.get(Class::Internal, "turn", after).await, Err(BytesError::Missing)), "an object without its key");
    new.get(Class::Internal, "turn", after).await.unwrap();
}

#[tokio::test]
async fn local_files_conform() {
    let folder = tempfile::tempdir().unwrap();
    let opened = place::open(&ArtifactPlace::DataDirectory, &folder.path().join("artifacts")).unwrap();
    conforms(&opened).await;
}

#[tokio::test]
async fn s3_conforms() {
    let Ok(url) = std::env::var(S3_URL) else {
        println!("{S3_URL} names no bucket: not tested; server/tests/s3.sh starts one");
        return;
    };
    let url = format!("{url}/{}", uuid::Uuid::new_v4()).parse().unwrap();
    let opened = place::open(&ArtifactPlace::Url(url), std::path::Path::new("unused")).unwrap();
    conforms(&opened).await;
}
