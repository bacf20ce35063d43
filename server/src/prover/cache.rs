//! The cache as a folder: who uses it, what lies in it, and emptying it.
//!
//! Whoever uses the folder holds a lock on a file in it that many share; whoever empties it needs the lock alone. Only files are removed that the cache itself
//! made, so that a wrong folder loses nothing.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::store::partial_id;

/// The file that is locked. No key of an entry begins like this.
const LOCK: &str = ".lock";
/// How names of entries begin: built circuits, committed weights, registered nodes.
const KINDS: [&str; 3] = ["circuit", "weights", "registration"];
/// Entries that were not completed.
pub(super) const PARTIAL: &str = "partial";

/// Why a cache is not shown or emptied.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Its files are in use.
    #[error("the cache {folder} is used by a running process; stop that first (zkinferd serve, zkinferd worker, zkinfer demo)")]
    InUse {
        /// Which folder.
        folder: PathBuf,
    },
    /// The folder or a file of it.
    #[error("cannot read or empty the cache {path}; --cache-dir names another")]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Some files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Files {
    /// How many.
    pub n_files: u64,
    /// Bytes of all.
    pub n_bytes: u64,
}

impl Files {
    fn add(&mut self, n_bytes: u64) {
        self.n_files += 1;
        self.n_bytes += n_bytes;
    }
}

/// What lies in a cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheContents {
    /// Entries by kind: `circuit`, `weights`, `registration`, and `partial`, which were not completed.
    pub kinds: BTreeMap<&'static str, Files>,
    /// What is no entry, and is left alone.
    pub others: Files,
}

impl CacheContents {
    /// All entries.
    pub fn entries(&self) -> Files {
        let add = |all: Files, files: &Files| Files { n_files: all.n_files + files.n_files, n_bytes: all.n_bytes + files.n_bytes };
        self.kinds.values().fold(Files::default(), add)
    }
}

/// Takes part in the use of a cache, until the answer is dropped; waits while it is being emptied. None, where nothing can be locked: the cache is used all the
/// same.
pub(super) fn take_part(folder: &Path) -> Option<File> {
    let locked = lock_file(folder).and_then(|file| file.lock_shared().map(|()| file));
    let warn = |error: &io::Error| tracing::warn!(%error, folder = %folder.display(), "the cache cannot be locked against its emptying");
    locked.inspect_err(warn).ok()
}

fn lock_file(folder: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).open(folder.join(LOCK))
}

/// A folder that may be a cache.
#[derive(Debug, Clone)]
pub struct CacheFolder(PathBuf);

impl CacheFolder {
    /// The cache at `folder`.
    pub fn at(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Whether a running process uses it. One of a version before there was this lock is not seen.
    ///
    /// # Errors
    /// There is no such folder, or nothing can be locked there.
    pub fn is_used(&self) -> Result<bool, CacheError> {
        match self.lock_alone() {
            Ok(_lock) => Ok(false),
            Err(CacheError::InUse { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// What lies in it.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn contents(&self) -> Result<CacheContents, CacheError> {
        self.each(|_| Ok(()))
    }

    /// Removes all entries; answers what they were.
    ///
    /// # Errors
    /// [`CacheError::InUse`]; a file that cannot be removed.
    pub fn clear(&self) -> Result<CacheContents, CacheError> {
        let _lock = self.lock_alone()?;
        self.each(|path| fs::remove_file(path))
    }

    fn lock_alone(&self) -> Result<File, CacheError> {
        let file = lock_file(&self.0).map_err(|source| self.failed(&self.0, source))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(CacheError::InUse { folder: self.0.clone() }),
            Err(TryLockError::Error(source)) => Err(self.failed(&self.0, source)),
        }
    }

    /// Does something to each entry; answers what there was.
    fn each(&self, work: impl Fn(&Path) -> io::Result<()>) -> Result<CacheContents, CacheError> {
        let mut contents = CacheContents::default();
        for entry in fs::read_dir(&self.0).map_err(|source| self.failed(&self.0, source))? {
            let entry = entry.map_err(|source| self.failed(&self.0, source))?;
            let (path, name) = (entry.path(), entry.file_name());
            let facts = entry.metadata().map_err(|source| self.failed(&path, source))?;
            let kind = name.to_str().filter(|_| facts.is_file()).and_then(kind_of);
            match kind {
                Some(kind) => {
                    work(&path).map_err(|source| self.failed(&path, source))?;
                    contents.kinds.entry(kind).or_default().add(facts.len());
                }
                None if name == LOCK => {}
                None => contents.others.add(facts.len()),
            }
        }
        Ok(contents)
    }

    fn failed(&self, path: &Path, source: io::Error) -> CacheError {
        CacheError::Io { path: path.into(), source }
    }
}

/// The kind of the entry of this name; none if it is no entry's.
pub(super) fn kind_of(name: &str) -> Option<&'static str> {
    if partial_id(name).is_some() {
        return Some(PARTIAL);
    }
    KINDS.into_iter().find(|kind| name.strip_prefix(kind).is_some_and(|rest| rest.starts_with('-')))
}

#[cfg(test)]
mod tests {
    use zkinfer_circuits::recursion::prover::CircuitStore as _;

    use super::*;
    use crate::prover::store::FileStore;

    #[test]
    fn what_the_cache_made_is_removed_unless_somebody_uses_it_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_owned();
        let cache = CacheFolder::at(path.clone());
        let store = FileStore::open(path.clone()).expect("a cache");
        for (key, n_bytes) in [("circuit-v1-join-00", 3), ("weights-4-1-2-00", 5), ("weights-4-1-2-01", 7), ("registration-00", 11)] {
            store.store(key, &vec![0; n_bytes]);
        }
        fs::write(path.join(format!(".{}.partial", uuid::Uuid::new_v4())), [0; 13]).expect("a file");
        for other in ["notes", "weightsless", ".hidden"] {
            fs::write(path.join(other), [0; 2]).expect("a file");
        }
        fs::create_dir(path.join("circuit-folder")).expect("a folder");
        let contents = cache.contents().expect("readable");
        let files = |n_files, n_bytes| Files { n_files, n_bytes };
        let kinds = [("circuit", files(1, 3)), ("partial", files(1, 13)), ("registration", files(1, 11)), ("weights", files(2, 12))];
        assert_eq!(contents.kinds, kinds.into());
        assert_eq!((contents.entries(), contents.others.n_files), (files(5, 39), 4));

        let second = store.clone();
        drop(store);
        assert!(cache.is_used().expect("lockable"));
        let error = cache.clear().expect_err("it is used");
        assert!(matches!(&error, CacheError::InUse { folder } if *folder == path) && error.to_string().contains("stop"), "{error}");
        assert_eq!(cache.contents().expect("readable"), contents);
        drop(second);
        assert!(!cache.is_used().expect("lockable"));
        assert_eq!(cache.clear().expect("nobody uses it"), contents);
        assert_eq!(cache.contents().expect("readable"), CacheContents { kinds: BTreeMap::new(), others: contents.others });
        FileStore::open(path).expect("a cache again").store("weights-1", b"x");
        assert_eq!(cache.contents().expect("readable").entries(), files(1, 1));
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("missing");
        let cache = CacheFolder::at(missing.clone());
        for error in [cache.contents().expect_err("missing"), cache.clear().expect_err("missing")] {
            assert!(matches!(&error, CacheError::Io { path, .. } if *path == missing) && error.to_string().contains("--cache-dir"));
        }
        assert!(!missing.exists(), "it is not made");
    }
}
