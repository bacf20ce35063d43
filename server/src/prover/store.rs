//! Built circuits and committed oracles on disk: a cache whose loss only costs time.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use zkinfer_circuits::recursion::prover::CircuitStore;

use crate::directory::make_private_directory;

/// A folder of cache entries, one file each.
#[derive(Debug, Clone)]
pub struct FileStore {
    folder: PathBuf,
}

impl FileStore {
    /// A cache in `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(folder: PathBuf) -> std::io::Result<Self> {
        // Committed weights are private.
        make_private_directory(&folder)?;
        Ok(Self { folder })
    }

    /// Keys are made of names and hashes; anything else is hashed, so that a key is always one file name.
    fn path(&self, key: &str) -> PathBuf {
        let plain =
            (1..=200).contains(&key.len()) && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c)) && !key.starts_with('.');
        let name = if plain { key.to_owned() } else { blake3::hash(key.as_bytes()).to_hex().to_string() };
        self.folder.join(name)
    }

    fn write(&self, key: &str, bytes: &[u8]) -> std::io::Result<()> {
        let path = self.path(key);
        let temporary = self.folder.join(format!(".{}.partial", uuid::Uuid::new_v4()));
        let mut file = fs::File::create(&temporary)?;
        let written = file.write_all(bytes).and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            // The cache is optional: an entry that cannot be completed is dropped.
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

impl CircuitStore for FileStore {
    fn load(&self, key: &str) -> Option<Vec<u8>> {
        fs::read(self.path(key)).ok()
    }

    fn store(&self, key: &str, bytes: &[u8]) {
        if let Err(error) = self.write(key, bytes) {
            tracing::warn!(%error, key, "a cache entry was not written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_and_odd_keys_stay_inside_the_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = FileStore::open(folder.path().join("cache")).expect("a cache");
        for key in ["plain-1", "../escape", "a/b", ".hidden", ""] {
            assert_eq!(store.load(key), None);
            store.store(key, key.as_bytes());
            assert_eq!(store.load(key), Some(key.as_bytes().to_vec()));
        }
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1);
    }
}
