//! The bytes of artifacts, in an object store.
//!
//! An object is `class/tenant/xx/name`. Its name is the hash of its bytes, so that whoever writes a place writes the same bytes to it: nothing is lost
//! when two do so at once, or when one overwrites what the other has written. Small objects are created only; large ones are looked for first, written in
//! parts, and appear whole at the end. With keys, objects lie encrypted (`seal.rs`) under names that are keyed hashes.
//! Every read is compared with the hash.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use object_store::{GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, WriteMultipart};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::keys::{ArtifactKey, ArtifactKeys};
use super::place::{self, ArtifactPlace, ArtifactPlaceError};
use super::reader::{ArtifactReader, PART_BYTES as READER_PART_BYTES};
use super::seal::{self, ObjectSeal, Unopened};
use super::{ArtifactId, BytesError, Class};
use crate::engine::Digest;

/// Objects that are larger are written in parts of this size.
const PART_BYTES: usize = 8 << 20;
/// Parts on their way.
const PARTS_IN_FLIGHT: usize = 2;
/// Bytes that are read of a file at once: whole segments of an encrypted object.
const READ_BYTES: usize = 16 * seal::SEGMENT_BYTES as usize;

/// The bytes of all artifacts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ArtifactBytes {
    store: Arc<dyn ObjectStore>,
    /// How an object may lie there; the first is how it is written.
    forms: Arc<[Form]>,
    recent: Arc<Mutex<Recent>>,
}

/// Small objects that were put of late: the same inputs come again and again, and looking whether one is there costs less than to write it in vain.
#[derive(Debug, Default)]
struct Recent {
    known: HashSet<object_store::path::Path>,
    in_order: VecDeque<object_store::path::Path>,
}

/// Objects that are remembered.
const MAX_RECENT: usize = 4096;

impl Recent {
    fn note(&mut self, location: &object_store::path::Path) {
        if !self.known.insert(location.clone()) {
            return;
        }
        self.in_order.push_back(location.clone());
        if self.in_order.len() > MAX_RECENT
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

/// How an object lies in the store.
#[derive(Clone)]
enum Form {
    Plain,
    Sealed(Arc<ArtifactKey>),
}

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain => f.write_str("Plain"),
            Self::Sealed(key) => write!(f, "Sealed({})", hex::encode(key.id)),
        }
    }
}

/// Which artifact.
#[derive(Clone, Copy)]
struct Which<'a> {
    class: Class,
    tenant: &'a str,
    digest: Digest,
}

impl Form {
    /// `tenant` is a checked resource id and the name is hex, so no part can leave its folder.
    fn location(&self, which: Which<'_>) -> object_store::path::Path {
        let Which { class, tenant, digest } = which;
        let name = match self {
            Self::Plain => hex::encode(digest),
            Self::Sealed(key) => seal::sealed_name(key, class, tenant, digest),
        };
        object_store::path::Path::from(format!("{}/{tenant}/{}/{name}", class.folder(), &name[..2]))
    }

    fn seal(&self, which: Which<'_>) -> Option<ObjectSeal> {
        match self {
            Self::Plain => None,
            Self::Sealed(key) => Some(ObjectSeal::new(key, which.class, which.tenant, which.digest)),
        }
    }

    fn stored_bytes(&self, size_bytes: u64) -> u64 {
        match self {
            Self::Plain => size_bytes,
            Self::Sealed(_) => seal::sealed_bytes(size_bytes),
        }
    }

    /// The other way round.
    fn plain_bytes(&self, stored_bytes: u64) -> Result<u64, Unopened> {
        match self {
            Self::Plain => Ok(stored_bytes),
            Self::Sealed(_) => seal::plain_bytes(stored_bytes),
        }
    }
}

impl ArtifactBytes {
    /// Opens a place and makes sure that it can be used; `folder` is the one of the data directory. With keys, the first encrypts what is written from
    /// now on, and all decrypt; what is there unencrypted stays readable.
    ///
    /// # Errors
    /// The place cannot be used.
    pub async fn open(place: &ArtifactPlace, keys: Option<&ArtifactKeys>, folder: &Path) -> Result<Self, ArtifactPlaceError> {
        let opened = place::open(place, folder)?;
        place::probe(&opened).await?;
        tracing::info!(place = opened.name, encrypted = keys.is_some(), "artifact store");
        Ok(Self::over(opened.store, keys))
    }

    pub(super) fn over(store: Arc<dyn ObjectStore>, keys: Option<&ArtifactKeys>) -> Self {
        let sealed = keys.into_iter().flat_map(ArtifactKeys::iter).map(|key| Form::Sealed(key.clone()));
        Self { store, forms: sealed.chain([Form::Plain]).collect(), recent: Arc::default() }
    }

    /// Stores bytes; answers their hash. Bytes that are there stay, unless they are damaged.
    ///
    /// # Errors
    /// No space, or a failing store.
    pub async fn put(&self, class: Class, tenant: &str, bytes: Bytes) -> Result<Digest, BytesError> {
        let digest = hash(bytes.clone()).await;
        self.put_hashed(class, tenant, digest, bytes).await?;
        Ok(digest)
    }

    /// As [`Self::put`], for bytes whose hash this is.
    pub(super) async fn put_hashed(&self, class: Class, tenant: &str, digest: Digest, bytes: Bytes) -> Result<(), BytesError> {
        let which = Which { class, tenant, digest };
        match bytes.len() > PART_BYTES {
            true => self.put_parts(which, bytes.len() as u64, &mut &*bytes).await,
            false => self.put_whole(which, bytes).await,
        }
    }

    /// Creates a small object, if it is not there intact.
    async fn put_whole(&self, which: Which<'_>, bytes: Bytes) -> Result<(), BytesError> {
        let form = self.written_form();
        let size_bytes = bytes.len() as u64;
        let location = form.location(which);
        let is_recent = self.recent().known.contains(&location);
        if is_recent && self.is_intact(form, which, size_bytes).await? {
            return Ok(());
        }
        let stored = match form.seal(which) {
            None => bytes,
            Some(seal) => compute(bytes.len(), move || Bytes::from(seal.seal(&bytes))).await,
        };
        let create = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&location, stored.clone().into(), create).await {
            Ok(_) => {}
            Err(object_store::Error::AlreadyExists { .. }) => {
                if !self.is_intact(form, which, size_bytes).await? {
                    self.store.put(&location, stored.into()).await?;
                }
            }
            Err(error) => return Err(error.into()),
        }
        self.recent().note(&location);
        Ok(())
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a file whose hash is known.
    ///
    /// # Errors
    /// The file has another hash; no space, or a failing store.
    pub async fn put_file(&self, class: Class, tenant: &str, digest: Digest, file: &Path) -> Result<(), BytesError> {
        let mut file = tokio::fs::File::open(file).await?;
        let size_bytes = file.metadata().await?.len();
        let which = Which { class, tenant, digest };
        if size_bytes > PART_BYTES as u64 {
            return self.put_parts(which, size_bytes, &mut file).await;
        }
        let mut bytes = Vec::new();
        file.take(PART_BYTES as u64 + 1).read_to_end(&mut bytes).await?;
        let bytes = Bytes::from(bytes);
        match hash(bytes.clone()).await == digest {
            true => self.put_whole(which, bytes).await,
            false => Err(BytesError::Damaged),
        }
    }

    /// Writes in parts what is not there intact.
    async fn put_parts(&self, which: Which<'_>, size_bytes: u64, reader: &mut (impl AsyncRead + Unpin)) -> Result<(), BytesError> {
        let form = self.written_form();
        if self.is_intact(form, which, size_bytes).await? {
            return Ok(());
        }
        let upload = self.store.put_multipart(&form.location(which)).await?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        match write_parts(&mut writer, form.seal(which), which.digest, size_bytes, reader).await {
            Ok(()) => {
                writer.finish().await?;
                Ok(())
            }
            Err(error) => {
                // What was written is not visible; the store forgets it sooner or later.
                if let Err(error) = writer.abort().await {
                    tracing::debug!(%error, "a write in parts was not taken back");
                }
                Err(error)
            }
        }
    }

    /// All bytes, checked.
    ///
    /// # Errors
    /// Missing or damaged bytes, or a failing store.
    pub async fn get(&self, class: Class, tenant: &str, digest: Digest) -> Result<Bytes, BytesError> {
        let which = Which { class, tenant, digest };
        let (form, found) = self.find(which, GetOptions::default()).await?;
        whole(form, which, found).await
    }

    /// How large an artifact is; nothing of it is read.
    ///
    /// # Errors
    /// A missing artifact; one whose size none of its form has; a failing store.
    pub async fn size(&self, class: Class, tenant: &str, digest: Digest) -> Result<u64, BytesError> {
        let (form, found) = self.find(Which { class, tenant, digest }, GetOptions { head: true, ..GetOptions::default() }).await?;
        Ok(form.plain_bytes(found.meta.size)?)
    }

    /// Reads an artifact part by part.
    ///
    /// # Errors
    /// A missing artifact; a small one that is damaged; a failing store.
    pub async fn reader(&self, class: Class, tenant: &str, digest: Digest) -> Result<ArtifactReader, BytesError> {
        let which = Which { class, tenant, digest };
        let (form, found) = self.find(which, GetOptions::default()).await?;
        let size_bytes = form.plain_bytes(found.meta.size)?;
        // The rest of a larger one is not waited for: its parts are requests of their own, so that a slow reader keeps none open.
        let small = if size_bytes <= READER_PART_BYTES { Some(whole(form, which, found).await?) } else { None };
        Ok(ArtifactReader::new(self.clone(), ArtifactId { class, tenant: tenant.to_owned(), digest }, size_bytes, small))
    }

    /// Checks hash and size, without holding the whole in memory.
    ///
    /// # Errors
    /// Missing or damaged bytes, or a failing store.
    pub async fn check(&self, class: Class, tenant: &str, digest: Digest, size_bytes: u64) -> Result<(), BytesError> {
        let which = Which { class, tenant, digest };
        let (form, found) = self.find(which, GetOptions::default()).await?;
        check(form, which, size_bytes, found).await
    }

    /// Some bytes. Encrypted ones are authentic; others are unchecked.
    ///
    /// # Errors
    /// Missing or damaged bytes, or a failing store.
    pub async fn range(&self, class: Class, tenant: &str, digest: Digest, range: Range<u64>) -> Result<Bytes, BytesError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let which = Which { class, tenant, digest };
        for form in &*self.forms {
            let found = match form.seal(which) {
                None => self.store.get_range(&form.location(which), range.clone()).await.map_err(BytesError::from),
                Some(seal) => self.sealed_range(&form.location(which), seal, range.clone()).await,
            };
            match found {
                Err(BytesError::Missing) => {}
                // The store answers fewer bytes where the object ends early.
                Ok(bytes) if bytes.len() as u64 != range.end - range.start => return Err(BytesError::Damaged),
                found => return found,
            }
        }
        Err(BytesError::Missing)
    }

    async fn sealed_range(&self, location: &object_store::path::Path, seal: ObjectSeal, range: Range<u64>) -> Result<Bytes, BytesError> {
        let (first, last) = (range.start / seal::SEGMENT_BYTES, (range.end - 1) / seal::SEGMENT_BYTES);
        let asked = GetRange::Bounded(seal::segments_range(first, last));
        let found = self.store.get_opts(location, GetOptions { range: Some(asked), ..GetOptions::default() }).await?;
        let n_segments = seal::n_segments(seal::plain_bytes(found.meta.size)?);
        let stored = found.bytes().await?;
        let plain = compute(stored.len(), move || {
            let mut plain = BytesMut::with_capacity(stored.len());
            let segment_bytes = usize::try_from(seal::SEGMENT_BYTES + 16).unwrap_or(usize::MAX);
            for (index, segment) in (first..).zip(stored.chunks(segment_bytes)) {
                plain.extend_from_slice(seal.open_segment(index, n_segments, &mut segment.to_vec())?);
            }
            Ok::<_, Unopened>(plain.freeze())
        })
        .await?;
        let start = usize::try_from(range.start - first * seal::SEGMENT_BYTES).unwrap_or(usize::MAX);
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        if start.saturating_add(length) > plain.len() {
            return Err(BytesError::Damaged);
        }
        Ok(plain.slice(start..start + length))
    }

    /// Deletes the bytes of an artifact, in every form. That they are not there is no error.
    ///
    /// # Errors
    /// A failing store.
    pub async fn delete(&self, class: Class, tenant: &str, digest: Digest) -> Result<(), BytesError> {
        for form in &*self.forms {
            match self.store.delete(&form.location(Which { class, tenant, digest })).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn written_form(&self) -> &Form {
        self.forms.first().expect("there is always the plain form")
    }

    /// The object in the first form in which it is there.
    async fn find(&self, which: Which<'_>, options: GetOptions) -> Result<(&Form, GetResult), BytesError> {
        for form in &*self.forms {
            match self.store.get_opts(&form.location(which), options.clone()).await {
                Ok(found) => return Ok((form, found)),
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(BytesError::Missing)
    }

    /// Whether an object is there in a form, with the right bytes.
    async fn is_intact(&self, form: &Form, which: Which<'_>, size_bytes: u64) -> Result<bool, BytesError> {
        let checked = match self.store.get(&form.location(which)).await {
            Ok(found) => check(form, which, size_bytes, found).await,
            Err(error) => Err(error.into()),
        };
        match checked {
            Ok(()) => Ok(true),
            Err(BytesError::Missing | BytesError::Damaged) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// All bytes of a found object, checked.
async fn whole(form: &Form, which: Which<'_>, found: GetResult) -> Result<Bytes, BytesError> {
    let stored = found.bytes().await?;
    let seal = form.seal(which);
    let plain = compute(stored.len(), move || match seal {
        None => Ok(stored),
        Some(seal) => seal::open(seal, &stored),
    })
    .await?;
    if hash(plain.clone()).await == which.digest { Ok(plain) } else { Err(BytesError::Damaged) }
}

/// Compares a found object with the size and the hash that it must have.
async fn check(form: &Form, which: Which<'_>, size_bytes: u64, found: GetResult) -> Result<(), BytesError> {
    if found.meta.size != form.stored_bytes(size_bytes) {
        return Err(BytesError::Damaged);
    }
    let mut opener = form.seal(which).map(|seal| seal.opener(found.meta.size)).transpose()?;
    let mut hasher = Box::new(blake3::Hasher::new());
    let mut stream = found.into_stream();
    while let Some(part) = stream.next().await {
        let part = part?;
        (hasher, opener) = compute(part.len(), move || {
            match opener.as_mut() {
                None => hasher.update(&part),
                Some(opener) => hasher.update(&opener.push(&part)?),
            };
            Ok::<_, Unopened>((hasher, opener))
        })
        .await?;
    }
    if let Some(opener) = opener {
        hasher.update(&opener.finish()?);
    }
    if *hasher.finalize().as_bytes() == which.digest { Ok(()) } else { Err(BytesError::Damaged) }
}

/// Reads to the end, seals if there is a seal, and writes; what is read must have the size and the hash.
async fn write_parts(
    writer: &mut WriteMultipart,
    seal: Option<ObjectSeal>,
    digest: Digest,
    size_bytes: u64,
    reader: &mut (impl AsyncRead + Unpin),
) -> Result<(), BytesError> {
    let n_segments = seal::n_segments(size_bytes);
    let mut work = (Box::new(blake3::Hasher::new()), seal);
    if let (_, Some(seal)) = &work {
        writer.put(Bytes::copy_from_slice(seal.header()));
    }
    let (mut read_bytes, mut index) = (0u64, 0u64);
    while read_bytes < size_bytes {
        let mut part = Vec::with_capacity(READ_BYTES);
        reader.take(READ_BYTES as u64).read_to_end(&mut part).await?;
        read_bytes += part.len() as u64;
        if part.is_empty() || read_bytes > size_bytes {
            return Err(BytesError::Damaged);
        }
        let first = index;
        index += (part.len() as u64).div_ceil(seal::SEGMENT_BYTES);
        let stored;
        (work, stored) = compute(part.len(), move || {
            work.0.update(&part);
            let stored = match &work.1 {
                None => part,
                Some(seal) => seal_segments(seal, first, n_segments, &part),
            };
            (work, stored)
        })
        .await;
        writer.wait_for_capacity(PARTS_IN_FLIGHT).await?;
        writer.put(stored.into());
    }
    if *work.0.finalize().as_bytes() == digest { Ok(()) } else { Err(BytesError::Damaged) }
}

fn seal_segments(seal: &ObjectSeal, first: u64, n_segments: u64, plain: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(plain.len() + plain.len() / 1024);
    for (index, segment) in (first..).zip(plain.chunks(seal::SEGMENT_BYTES as usize)) {
        seal.seal_segment(index, n_segments, segment, &mut stored);
    }
    stored
}

pub(super) async fn hash(bytes: Bytes) -> Digest {
    compute(bytes.len(), move || *blake3::hash(&bytes).as_bytes()).await
}

/// Bytes that are hashed or encrypted where they are: it takes less than to hand them to another thread and to wait for it.
const FEW_BYTES: usize = 32 << 10;

/// Runs a computation over so many bytes, off the runtime's threads unless they are few.
pub(super) async fn compute<T: Send + 'static>(n_bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if n_bytes <= FEW_BYTES { work() } else { blocking(work).await }
}

/// Runs what blocks off the runtime's threads.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down and will not poll us again.
            Err(_) => std::future::pending().await,
        },
    }
}
