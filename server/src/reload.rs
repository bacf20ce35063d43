//! Values that are read from files, and read again when the files change. A file that cannot be read, or makes no sense, changes nothing: the
//! value before it stays, and the log says why.

use std::error::Error;
use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

/// Why a value was not read.
type ReadError = Box<dyn Error + Send + Sync>;

/// A value and the files that it comes from.
pub(crate) struct Reloaded<T> {
    /// For the log.
    what: &'static str,
    files: Vec<PathBuf>,
    read: Box<dyn Fn() -> Result<T, ReadError> + Send + Sync>,
    current: ArcSwap<T>,
    seen: Mutex<Seen>,
}

/// What the files were like.
struct Seen {
    /// Before the value was read.
    read: Vec<Stamp>,
    /// Before the last attempt that failed, so that the log says it once.
    failed: Option<Vec<Stamp>>,
}

/// Tells one state of a file from another: a file put in its place has another inode, a changed one another time or size. `None`: not there.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp(Option<[i128; 4]>);

impl Stamp {
    fn of(path: &Path) -> Self {
        let numbers = |file: Metadata| {
            let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
            let modified = nanoseconds(file.mtime(), file.mtime_nsec());
            let changed = nanoseconds(file.ctime(), file.ctime_nsec());
            [modified, changed, i128::from(file.size()), i128::from(file.ino())]
        };
        Self(std::fs::metadata(path).ok().map(numbers))
    }
}

impl<T> Reloaded<T> {
    /// Reads the value for the first time.
    ///
    /// # Errors
    /// Those of `read`.
    pub(crate) fn open<E: Error + Send + Sync + 'static>(
        what: &'static str,
        files: Vec<PathBuf>,
        read: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        // Looked at before the reading: what changes meanwhile is read again.
        let seen = Mutex::new(Seen { read: stamps(&files), failed: None });
        let current = ArcSwap::from_pointee(read()?);
        Ok(Self { what, files, read: Box::new(move || read().map_err(ReadError::from)), current, seen })
    }

    /// The value as it is now.
    pub(crate) fn get(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Reads the value again if a file has changed since it was read. Blocks while it reads. What fails is tried again at every call: it need not be the
    /// file's fault.
    pub(crate) fn reload_changed(&self) {
        // Held to the end, so that of two attempts the later one stores last.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&self.files);
        if seen.read == now {
            return;
        }
        let what = self.what;
        match (self.read)() {
            Ok(value) => {
                self.current.store(Arc::new(value));
                *seen = Seen { read: now, failed: None };
                tracing::info!(what, "read again");
            }
            Err(error) if seen.failed.as_ref() != Some(&now) => {
                let error = &*error as &dyn Error;
                tracing::error!(what, error, "changed, but not to be used; what was read before stays in force");
                seen.failed = Some(now);
            }
            Err(_) => {}
        }
    }
}

impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reloaded").field("what", &self.what).field("files", &self.files).finish_non_exhaustive()
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    files.iter().map(|path| Stamp::of(path)).collect()
}

/// A file's text, at most `max_bytes` of it.
pub(crate) fn read_text(path: &Path, max_bytes: u64) -> io::Result<String> {
    let size_bytes = std::fs::metadata(path)?.len();
    if size_bytes > max_bytes {
        return Err(io::Error::other(format!("has {size_bytes} bytes; at most {max_bytes} are taken")));
    }
    std::fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        let put = |text: &str| {
            let partial = folder.path().join("partial");
            std::fs::write(&partial, text).unwrap();
            std::fs::rename(&partial, &path).unwrap();
        };
        put("1");
        let file = path.clone();
        let number = Reloaded::open("number", vec![path.clone()], move || {
            let text = std::fs::read_to_string(&file).map_err(|error| error.to_string());
            text.and_then(|text| text.parse::<u32>().map_err(|error| error.to_string())).map_err(io::Error::other)
        })
        .unwrap();
        assert_eq!(*number.get(), 1);
        for (text, expected) in [("2", 2), ("two", 2), ("3", 3)] {
            put(text);
            number.reload_changed();
            assert_eq!(*number.get(), expected, "{text}");
        }
        std::fs::remove_file(&path).unwrap();
        number.reload_changed();
        assert_eq!(*number.get(), 3);
        put("4");
        number.reload_changed();
        assert_eq!(*number.get(), 4);
    }

    #[test]
    fn what_could_not_be_read_is_tried_again_though_the_file_is_the_same() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        std::fs::write(&path, "one").unwrap();
        let is_broken = Arc::new(AtomicBool::new(false));
        let (file, broken) = (path.clone(), is_broken.clone());
        let text = Reloaded::open("text", vec![path.clone()], move || match broken.load(Ordering::Relaxed) {
            true => Err(io::Error::other("no file descriptor is free")),
            false => std::fs::read_to_string(&file),
        })
        .unwrap();
        is_broken.store(true, Ordering::Relaxed);
        std::fs::write(&path, "other").unwrap();
        text.reload_changed();
        assert_eq!(*text.get(), "one");
        is_broken.store(false, Ordering::Relaxed);
        text.reload_changed();
        assert_eq!(*text.get(), "other");
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "12345");
        assert!(read_text(&path, 4).unwrap_err().to_string().contains("5 bytes"));
    }
}
