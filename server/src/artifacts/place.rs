//! Where the bytes of artifacts are kept, by URL, and whether that place can be used.
//!
//! Credentials, regions and endpoints of S3, Google Cloud Storage and Azure are read from the environment, under the names that the crate
//! `object_store` documents. Plaintext HTTP is spoken only where the environment names an endpoint that begins with `http://`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, RetryConfig};
use url::Url;

use crate::directory::make_private_directory;

/// Repeats of a request that a remote store did not answer, or answered with a fault of its own: about 3 s in all.
const RETRIES: usize = 5;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A request is not repeated after this. Less than what a client waits for a call.
const RETRY_FOR: Duration = Duration::from_secs(30);
/// Of a remote store: until it accepts a connection; between two parts of an answer; for one request.
const TIMES: [(ClientConfigKey, &str); 3] = [
    (ClientConfigKey::ConnectTimeout, "5 seconds"),
    (ClientConfigKey::ReadTimeout, "20 seconds"),
    (ClientConfigKey::Timeout, "120 seconds"),
];

/// A place for artifacts: `file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactUrl(Url);

/// A URL that names no place for artifacts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; a place for artifacts is file:///folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix")]
pub struct ArtifactUrlError {
    problem: String,
}

impl FromStr for ArtifactUrl {
    type Err = ArtifactUrlError;

    fn from_str(text: &str) -> Result<Self, ArtifactUrlError> {
        let wrong = |problem: String| ArtifactUrlError { problem };
        let url = Url::parse(text).map_err(|error| wrong(format!("no URL: {error}")))?;
        // Such a URL ends up in logs. It is not repeated here.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("the URL holds credentials, which belong into the environment".into()));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("the URL has a query or a fragment".into()));
        }
        let has_host = url.host_str().is_some_and(|host| !host.is_empty());
        match (url.scheme(), has_host) {
            ("file", false) => {}
            ("file", true) => return Err(wrong("a file URL names a host; it begins with three slashes".into())),
            ("s3" | "gs" | "az", true) => {}
            ("s3" | "gs" | "az", false) => return Err(wrong("the URL names no bucket".into())),
            (scheme, _) => return Err(wrong(format!("{scheme} is no store"))),
        }
        Ok(Self(url))
    }
}

impl fmt::Display for ArtifactUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where artifacts are kept.
#[derive(Debug, Clone, Default)]
pub enum ArtifactPlace {
    /// In a folder of the data directory.
    #[default]
    DataDirectory,
    /// Where a URL says.
    Url(ArtifactUrl),
    /// In a store that the program brings.
    Store(Arc<dyn ObjectStore>),
}

/// Why artifacts cannot be kept in a place.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactPlaceError {
    /// The folder cannot be made.
    #[error("cannot make the artifact folder {path}; name one that this user can write with --artifacts file:///folder")]
    Folder {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It cannot be set up.
    #[error("cannot set up the artifact store {place}; {}", hint(place))]
    SetUp {
        /// Which one.
        place: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// A small object cannot be written, read or deleted.
    #[error("cannot {step} a small object in the artifact store {place}; {}", hint(place))]
    Probe {
        /// Which one.
        place: String,
        /// What fails.
        step: &'static str,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// What was read is not what was written.
    #[error("the artifact store {place} answers other bytes than were written; it cannot be used")]
    OtherBytes {
        /// Which one.
        place: String,
    },
    /// It overwrites where it was asked to create.
    #[error(
        "the artifact store {place} overwrites an object that it was asked to create only; use a store that supports If-None-Match on writes"
    )]
    Overwrites {
        /// Which one.
        place: String,
    },
}

/// What to look at, by the kind of the store.
fn hint(place: &str) -> &'static str {
    match place.split(':').next() {
        Some("s3") => {
            "check that the bucket exists, AWS_REGION, AWS_ENDPOINT_URL for stores that are not Amazon's, and that the credentials \
             (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role) may get, put and delete objects under the prefix"
        }
        Some("gs") => {
            "check that the bucket exists and that the credentials (GOOGLE_SERVICE_ACCOUNT, or the machine's) may get, create and delete objects \
             under the prefix"
        }
        Some("az") => {
            "check that the container exists, AZURE_STORAGE_ACCOUNT_NAME, and that the credentials (AZURE_STORAGE_ACCOUNT_KEY, or an identity) may read, \
             write and delete blobs under the prefix"
        }
        _ => "check that the folder's disk has space and that this user can write it",
    }
}

/// An opened place.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    pub(super) store: Arc<dyn ObjectStore>,
    /// For messages.
    pub(super) name: String,
}

/// Opens a place; the folder in the data directory is `folder`.
pub(super) fn open(place: &ArtifactPlace, folder: &Path) -> Result<Opened, ArtifactPlaceError> {
    let url = match place {
        ArtifactPlace::DataDirectory => return open_folder(folder, format!("file://{}", folder.display())),
        ArtifactPlace::Store(store) => return Ok(Opened { store: store.clone(), name: store.to_string() }),
        ArtifactPlace::Url(ArtifactUrl(url)) => url,
    };
    let name = url.to_string();
    let failed = |source| ArtifactPlaceError::SetUp { place: name.clone(), source };
    let prefix = object_store::path::Path::from_url_path(url.path()).map_err(|error| failed(error.into()))?;
    let store: Arc<dyn ObjectStore> = match url.scheme() {
        "s3" => Arc::new(PrefixStore::new(s3(url).build().map_err(failed)?, prefix)),
        "gs" => Arc::new(PrefixStore::new(google(url).build().map_err(failed)?, prefix)),
        "az" => Arc::new(PrefixStore::new(azure(url).build().map_err(failed)?, prefix)),
        _ => {
            let folder = url.to_file_path().unwrap_or_else(|()| PathBuf::from(url.path()));
            return open_folder(&folder, name);
        }
    };
    Ok(Opened { store, name })
}

fn open_folder(folder: &Path, name: String) -> Result<Opened, ArtifactPlaceError> {
    make_private_directory(folder).map_err(|source| ArtifactPlaceError::Folder { path: folder.into(), source })?;
    // Every write is on disk before it is answered.
    match LocalFileSystem::new_with_prefix(folder) {
        Ok(store) => Ok(Opened { store: Arc::new(store.with_fsync(true)), name }),
        Err(source) => Err(ArtifactPlaceError::SetUp { place: name, source }),
    }
}

fn retries() -> RetryConfig {
    let backoff = BackoffConfig { init_backoff: FIRST_WAIT, max_backoff: LONGEST_WAIT, ..BackoffConfig::default() };
    RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_FOR }
}

/// Whether an endpoint of the environment asks for plaintext.
fn is_plaintext(endpoint: Option<String>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"))
}

fn s3(url: &Url) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(url.host_str().unwrap_or_default()).with_retry(retries());
    for (key, time) in TIMES {
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), time);
    }
    let is_plaintext = is_plaintext(builder.get_config_value(&AmazonS3ConfigKey::Endpoint));
    builder.with_allow_http(is_plaintext)
}

fn azure(url: &Url) -> MicrosoftAzureBuilder {
    let mut builder = MicrosoftAzureBuilder::from_env().with_container_name(url.host_str().unwrap_or_default()).with_retry(retries());
    for (key, time) in TIMES {
        builder = builder.with_config(AzureConfigKey::Client(key), time);
    }
    let is_plaintext = is_plaintext(builder.get_config_value(&AzureConfigKey::Endpoint));
    builder.with_allow_http(is_plaintext)
}

fn google(url: &Url) -> GoogleCloudStorageBuilder {
    let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(url.host_str().unwrap_or_default()).with_retry(retries());
    for (key, time) in TIMES {
        builder = builder.with_config(GoogleConfigKey::Client(key), time);
    }
    builder
}

/// Writes a small object, writes it again, reads it and deletes it.
pub(super) async fn probe(opened: &Opened) -> Result<(), ArtifactPlaceError> {
    let Opened { store, name } = opened;
    let failed = |step| move |source| ArtifactPlaceError::Probe { place: name.clone(), step, source };
    let id = uuid::Uuid::new_v4();
    let (location, bytes) = (object_store::path::Path::from(format!("probe/{id}")), Bytes::from(id.to_string()));
    let create = || store.put_opts(&location, bytes.clone().into(), PutOptions::from(PutMode::Create));
    create().await.map_err(failed("write"))?;
    let again = create().await;
    let read = match store.get(&location).await {
        Ok(found) => found.bytes().await,
        Err(error) => Err(error),
    };
    store.delete(&location).await.map_err(failed("delete"))?;
    if read.map_err(failed("read"))? != bytes {
        return Err(ArtifactPlaceError::OtherBytes { place: name.clone() });
    }
    match again {
        Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
        Err(source) => Err(failed("write")(source)),
        Ok(_) => Err(ArtifactPlaceError::Overwrites { place: name.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_name_no_place_are_refused_with_the_reason() {
        for (text, expected) in [
            ("s3://bucket", None),
            ("s3://bucket/some/prefix", None),
            ("gs://bucket/prefix", None),
            ("az://container/prefix", None),
            ("file:///var/lib/artifacts", None),
            ("artifacts", Some("no URL")),
            ("https://example.com/a", Some("https is no store")),
            ("file://var/lib", Some("three slashes")),
            ("s3:///prefix", Some("no bucket")),
            ("s3://id:secret@bucket", Some("credentials")),
            ("s3://bucket?region=x", Some("query")),
        ] {
            match (text.parse::<ArtifactUrl>(), expected) {
                (Ok(url), None) => assert_eq!(url.to_string(), text),
                (Err(error), Some(expected)) => {
                    let message = error.to_string();
                    assert!(message.contains(expected) && message.contains("file:///folder"), "{message}");
                    assert!(!message.contains("secret"), "{message}");
                }
                (result, _) => panic!("{text}: {result:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_usable_folder_passes_the_probe_and_keeps_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let url: ArtifactUrl = format!("file://{}/a/b", folder.path().display()).parse().unwrap();
        let opened = open(&ArtifactPlace::Url(url), Path::new("unused")).unwrap();
        probe(&opened).await.unwrap();
        let left = std::fs::read_dir(folder.path().join("a/b/probe")).unwrap().count();
        assert_eq!(left, 0);
    }

    #[tokio::test]
    async fn places_that_cannot_be_used_are_named_with_cause_and_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let error = open(&ArtifactPlace::DataDirectory, &file.join("artifacts")).unwrap_err();
        assert!(matches!(&error, ArtifactPlaceError::Folder { path, .. } if path.starts_with(&file)), "{error}");

        let inside = folder.path().join("artifacts");
        let opened = open(&ArtifactPlace::DataDirectory, &inside).unwrap();
        std::fs::remove_dir(&inside).unwrap();
        std::fs::write(&inside, b"").unwrap();
        let error = probe(&opened).await.unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, ArtifactPlaceError::Probe { step: "write", .. }), "{message}");
        assert!(message.contains(&*inside.to_string_lossy()) && message.contains("can write"), "{message}");
    }
}
