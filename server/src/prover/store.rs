//! Built circuits and committed oracles on disk: a cache whose loss only costs time.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use zkinfer_circuits::recursion::prover::CircuitStore;

use super::cache::{PARTIAL, kind_of, take_part};
use crate::directory::make_private_directory;

/// An entry that nobody has written to for so long is not being written any more. Processes share a folder.
const GIVEN_UP: Duration = Duration::from_secs(600);

/// A folder of cache entries, one file each.
#[derive(Debug, Clone)]
pub struct FileStore {
    folder: PathBuf,
    /// The most bytes that its entries take; without it there is no bound.
    max_bytes: Arc<OnceLock<u64>>,
    /// Nobody empties it meanwhile.
    _part: Arc<Option<fs::File>>,
}

impl FileStore {
    /// A cache in `folder`, which is made if it is missing. What processes that died have left half written is removed.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(folder: PathBuf) -> std::io::Result<Self> {
        // Committed weights are private.
        make_private_directory(&folder)?;
        if let Err(error) = remove_partial(&folder) {
            tracing::warn!(%error, folder = %folder.display(), "cannot look for cache entries that were not completed");
        }
        let part = Arc::new(take_part(&folder));
        Ok(Self { folder, max_bytes: Arc::default(), _part: part })
    }

    /// From now on, also for clones, entries take no more than so many bytes: those that were used longest ago make room. The first bound stays.
    pub(super) fn limit(&self, max_bytes: Option<u64>) {
        if let Some(max_bytes) = max_bytes {
            let _ = self.max_bytes.set(max_bytes);
        }
    }

    /// Keys are made of names and hashes; anything else is hashed, so that a key is always one file name.
    fn path(&self, key: &str) -> PathBuf {
        let plain =
            (1..=200).contains(&key.len()) && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c)) && !key.starts_with('.');
        let name = if plain { key.to_owned() } else { blake3::hash(key.as_bytes()).to_hex().to_string() };
        self.folder.join(name)
    }

    /// Removes an entry, if it is there.
    pub(super) fn remove(&self, key: &str) {
        match fs::remove_file(self.path(key)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => tracing::warn!(%error, key, "a cache entry was not removed"),
            Ok(()) | Err(_) => {}
        }
    }

    fn write(&self, key: &str, bytes: &[u8]) -> std::io::Result<()> {
        let n_bytes = bytes.len() as u64;
        if let Some(&max_bytes) = self.max_bytes.get() {
            if n_bytes > max_bytes {
                tracing::warn!(key, n_bytes, max_bytes, "an entry is larger than the whole cache may be (--cache-mib), and is not kept");
                return Ok(());
            }
            make_room(&self.folder, max_bytes - n_bytes)?;
        }
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

/// The id in the name of an entry that is not complete.
pub(super) fn partial_id(name: &str) -> Option<uuid::Uuid> {
    name.strip_prefix('.')?.strip_suffix(".partial")?.parse().ok()
}

fn remove_partial(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_partial = entry.file_name().to_str().is_some_and(|name| partial_id(name).is_some());
        let is_old = || entry.metadata()?.modified().map(|at| at.elapsed().is_ok_and(|age| age >= GIVEN_UP));
        // Another process may have removed it in the meantime.
        if is_partial && is_old().unwrap_or(false) && fs::remove_file(entry.path()).is_ok() {
            tracing::info!(file = %entry.path().display(), "removed a cache entry that was never completed");
        }
    }
    Ok(())
}

/// Removes entries, those first that were used longest ago, until the others take no more than so many bytes. Who reads one goes on reading.
fn make_room(folder: &Path, max_bytes: u64) -> std::io::Result<()> {
    let (mut entries, mut n_bytes) = (Vec::new(), 0_u64);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        // Another process may have removed it in the meantime.
        let (Some(kind), Ok(facts)) = (name.to_str().and_then(kind_of), entry.metadata()) else { continue };
        n_bytes = n_bytes.saturating_add(facts.len());
        if kind != PARTIAL {
            entries.push((facts.modified()?, facts.len(), entry.path()));
        }
    }
    entries.sort_unstable();
    for (_, freed, path) in entries {
        if n_bytes <= max_bytes {
            break;
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => tracing::info!(file = %path.display(), n_bytes = freed, "a cache entry made room for another"),
        }
        n_bytes = n_bytes.saturating_sub(freed);
    }
    Ok(())
}

impl CircuitStore for FileStore {
    fn load(&self, key: &str) -> Option<Vec<u8>> {
        let mut file = fs::File::open(self.path(key)).ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        if self.max_bytes.get().is_some() {
            // When it was used last. Without that it goes as one that was never used.
            let _ = file.set_modified(SystemTime::now());
        }
        Some(bytes)
    }

    fn store(&self, key: &str, bytes: &[u8]) {
        if let Err(error) = self.write(key, bytes) {
            tracing::warn!(%error, key, "a cache entry was not written");
        }
    }
}

/// A cache that is not believed: nothing comes from it, and what is stored replaces what is there.
pub(super) struct Anew<'a>(pub(super) &'a FileStore);

impl CircuitStore for Anew<'_> {
    fn load(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    fn store(&self, key: &str, bytes: &[u8]) {
        self.0.store(key, bytes);
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
        store.remove("plain-1");
        store.remove("plain-1");
        assert_eq!((store.load("plain-1"), store.load("a/b").is_some()), (None, true));
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1);
    }

    #[test]
    fn what_was_used_longest_ago_makes_room_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = FileStore::open(folder.path().to_owned()).expect("a cache");
        fs::write(folder.path().join("notes"), [0; 100]).expect("a file");
        let used = |key: &str, seconds_ago| {
            let file = fs::File::open(store.path(key)).expect("an entry");
            file.set_modified(SystemTime::now() - Duration::from_secs(seconds_ago)).expect("the file's time");
        };
        for (key, seconds_ago) in [("weights-a", 30), ("weights-b", 20), ("circuit-c", 10)] {
            store.store(key, &[0; 4]);
            used(key, seconds_ago);
        }
        let is_there = |key: &str| store.path(key).exists();
        let clone = store.clone();
        clone.limit(Some(12));
        assert!(store.load("weights-a").is_some(), "it is used now");
        store.store("weights-d", &[0; 4]);
        assert!(is_there("weights-a") && !is_there("weights-b") && is_there("circuit-c") && is_there("weights-d"));
        store.store("weights-a", &[0; 8]);
        assert!(is_there("weights-a") && !is_there("circuit-c"), "what is replaced was counted too");
        store.store("weights-e", &[0; 13]);
        assert!(!is_there("weights-e") && is_there("weights-a"), "for what is too large nothing goes");
        store.store("weights-f", &[0; 12]);
        assert!(is_there("weights-f") && !is_there("weights-a") && !is_there("weights-d") && is_there("notes"));
    }

    #[test]
    fn what_a_dead_process_left_half_written_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let partial = || format!(".{}.partial", uuid::Uuid::new_v4());
        let (left, being_written) = (partial(), partial());
        for name in [left.as_str(), being_written.as_str(), "entry", ".other.partial"] {
            let file = fs::File::create(folder.path().join(name)).expect("a file");
            if name != being_written {
                file.set_modified(std::time::SystemTime::now() - GIVEN_UP).expect("the file's time");
            }
        }
        FileStore::open(folder.path().to_owned()).expect("a cache");
        let is_there = |name: &str| folder.path().join(name).exists();
        assert!(!is_there(&left) && is_there(&being_written) && is_there("entry") && is_there(".other.partial"));
    }
}
