//! An object store that fails on command, around one that works.

use std::fmt;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt as _,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// What goes wrong, every time until it is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A write finds no space.
    Full,
    /// A request is not answered, and nothing happens.
    Silent,
    /// A write happens, but its answer is lost.
    AnswerLost,
    /// A write leaves its first half and fails, as a power cut may.
    Torn,
    /// A read answers one wrong bit.
    FlippedBit,
    /// A read ends early, as if that were all.
    Short,
}

#[derive(Debug, Clone)]
pub(crate) struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    fault: Arc<Mutex<Option<Fault>>>,
}

impl FaultyStore {
    pub(crate) fn around(inner: impl ObjectStore) -> Self {
        Self { inner: Arc::new(inner), fault: Arc::default() }
    }

    pub(crate) fn set(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap() = fault;
    }

    fn fault(&self) -> Option<Fault> {
        *self.fault.lock().unwrap()
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {}", self.inner)
    }
}

/// What a store's errors tell, and no tenant may read.
pub(crate) const ENDPOINT: &str = "http://store.internal.example:9000/a-bucket";

fn io(kind: ErrorKind) -> Error {
    Error::Generic { store: "faulty", source: Box::new(std::io::Error::new(kind, format!("error sending request for url ({ENDPOINT})"))) }
}

/// The first half of what was to be written.
fn half(payload: &PutPayload) -> PutPayload {
    let bytes: Vec<u8> = payload.iter().flat_map(|part| part.to_vec()).collect();
    bytes[..bytes.len() / 2].to_vec().into()
}

#[async_trait::async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        match self.fault() {
            Some(Fault::Full) => Err(io(ErrorKind::StorageFull)),
            Some(Fault::Silent) => Err(io(ErrorKind::TimedOut)),
            Some(Fault::AnswerLost) => {
                self.inner.put_opts(location, payload, options).await?;
                Err(io(ErrorKind::ConnectionReset))
            }
            Some(Fault::Torn) => {
                self.inner.put(location, half(&payload)).await?;
                Err(io(ErrorKind::ConnectionReset))
            }
            Some(Fault::FlippedBit | Fault::Short) | None => self.inner.put_opts(location, payload, options).await,
        }
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(location, options).await?;
        Ok(Box::new(FaultyUpload { store: self.clone(), inner }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.fault();
        if fault == Some(Fault::Silent) {
            return Err(io(ErrorKind::TimedOut));
        }
        let found = self.inner.get_opts(location, options).await?;
        if !matches!(fault, Some(Fault::FlippedBit | Fault::Short)) {
            return Ok(found);
        }
        let (meta, range, attributes, extensions) =
            (found.meta.clone(), found.range.clone(), found.attributes.clone(), found.extensions.clone());
        let mut bytes = found.bytes().await?.to_vec();
        if fault == Some(Fault::Short) {
            bytes.truncate(bytes.len() / 2);
        } else if let Some(middle) = bytes.len().checked_sub(1).map(|last| last / 2) {
            bytes[middle] ^= 0x10;
        }
        let payload = GetResultPayload::Stream(futures::stream::iter([Ok(bytes.into())]).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A write in parts. It is visible only when it is complete: it can be refused, not torn.
#[derive(Debug)]
struct FaultyUpload {
    store: FaultyStore,
    inner: Box<dyn MultipartUpload>,
}

#[async_trait::async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match self.store.fault() {
            Some(Fault::Full) => Box::pin(async { Err(io(ErrorKind::StorageFull)) }),
            Some(Fault::Silent | Fault::Torn) => Box::pin(async { Err(io(ErrorKind::TimedOut)) }),
            Some(Fault::AnswerLost | Fault::FlippedBit | Fault::Short) | None => self.inner.put_part(data),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let done = self.inner.complete().await?;
        match self.store.fault() {
            Some(Fault::AnswerLost) => Err(io(ErrorKind::ConnectionReset)),
            _ => Ok(done),
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
