//! Changes of a key file: keys are added and revoked in one step each, so that a service that reads the file never sees half of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::keys::{ApiKeys, Entry, KeyState, N_PREFIX_DIGITS, NewKey, START as KEY_START};
use super::line::{check_name, check_tenant, time_text};
use super::scope::Scopes;
use super::{AccessFileError, read_text};

/// Why a key file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read, or a line is wrong.
    #[error(transparent)]
    Access(#[from] AccessFileError),
    /// It cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The tenant or the name cannot be in a key file.
    #[error("{0}")]
    Argument(String),
    /// The operating system gives no random bytes.
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
    /// No key has that prefix or that name.
    #[error("no key that is not revoked has the prefix or the name {given:?}; see `keys list`")]
    NoKey {
        /// What was given.
        given: String,
    },
    /// More than one key has it.
    #[error("{count} keys have the name {given:?}; give the prefix, see `keys list`")]
    Ambiguous {
        /// What was given.
        given: String,
        /// How many keys.
        count: usize,
    },
}

/// What a key file tells about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    /// The key's first digits; those that were written by hand may not tell it.
    pub prefix: Option<String>,
    /// Whose it is.
    pub tenant: String,
    /// What it is told by.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// Whether it can be used.
    pub state: KeyState,
    /// When it was made, if that is known.
    pub created: Option<String>,
    /// When its time is over, if ever.
    pub expires: Option<String>,
}

/// A key file.
#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// The file at `path`; [`KeyFile::create`] makes it if it is not there.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Makes a key and adds its hash.
    ///
    /// # Errors
    /// See [`KeyFileError`].
    pub fn create(&self, tenant: &str, name: &str, scopes: Scopes, expires: Option<SystemTime>) -> Result<NewKey, KeyFileError> {
        check_tenant(tenant).and_then(|()| check_name(name)).map_err(KeyFileError::Argument)?;
        let _lock = self.lock()?;
        let mut text = if self.path.exists() { read_text(&self.path)? } else { String::new() };
        let keys = self.parse(&text)?;
        let key = loop {
            let key = NewKey::make(tenant, name, scopes, SystemTime::now(), expires).map_err(KeyFileError::Random)?;
            if keys.entries().iter().all(|entry| entry.prefix.as_ref() != Some(&key.prefix)) {
                break key;
            }
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&key.line);
        text.push('\n');
        self.replace(&text)?;
        Ok(key)
    }

    /// What the file holds, in its order.
    ///
    /// # Errors
    /// See [`KeyFileError`].
    pub fn list(&self) -> Result<Vec<ListedKey>, KeyFileError> {
        let keys = self.parse(&read_text(&self.path)?)?;
        let now = SystemTime::now();
        let listed = |entry: &Entry| ListedKey {
            prefix: entry.prefix.clone(),
            tenant: entry.principal.tenant.clone(),
            name: entry.principal.name.clone(),
            scopes: entry.principal.scopes,
            state: entry.state(now),
            created: entry.created.map(time_text),
            expires: entry.expires.map(time_text),
        };
        Ok(keys.entries().iter().map(listed).collect())
    }

    /// Revokes the key that is told by its first digits (with or without `zki_`), or by `TENANT/NAME`. It stays in the list.
    ///
    /// # Errors
    /// See [`KeyFileError`].
    pub fn revoke(&self, given: &str) -> Result<(), KeyFileError> {
        let _lock = self.lock()?;
        let text = read_text(&self.path)?;
        self.parse(&text)?;
        let now = SystemTime::now();
        // Of a whole key, what tells it: the rest is nobody's business, and not to be printed.
        let given = given.get(..KEY_START.len() + N_PREFIX_DIGITS).filter(|_| given.starts_with(KEY_START)).unwrap_or(given);
        let digits = given.strip_prefix(KEY_START).unwrap_or(given);
        let is_meant = |line: &str| {
            let Ok(Some(entry)) = Entry::parse(line) else { return false };
            let is_named = format!("{}/{}", entry.principal.tenant, entry.principal.name) == given;
            entry.state(now) != KeyState::Revoked && (is_named || entry.prefix.as_deref() == Some(digits))
        };
        match text.lines().filter(|line| is_meant(line)).count() {
            0 => return Err(KeyFileError::NoKey { given: given.to_owned() }),
            1 => {}
            count => return Err(KeyFileError::Ambiguous { given: given.to_owned(), count }),
        }
        let mut changed = String::with_capacity(text.len() + 64);
        for line in text.lines() {
            changed.push_str(line.trim_end());
            if is_meant(line) {
                changed.push_str(&format!(" revoked={}", time_text(now)));
            }
            changed.push('\n');
        }
        self.replace(&changed)
    }

    fn parse(&self, text: &str) -> Result<ApiKeys, AccessFileError> {
        ApiKeys::parse(text).map_err(|source| AccessFileError::Line { path: self.path.clone(), source })
    }

    /// One change at a time. The lock is on a file beside: the key file itself is replaced.
    fn lock(&self) -> Result<File, KeyFileError> {
        let path = self.beside("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let locked = lock.and_then(|file| file.lock().map(|()| file));
        locked.map_err(|source| KeyFileError::Write { path, source })
    }

    /// Puts a file in the place of the file: with the owner and the mode of the one before, so that who could read that can read this; a first one is
    /// readable by this user alone.
    fn replace(&self, text: &str) -> Result<(), KeyFileError> {
        let partial = self.beside("partial");
        let write = || {
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&partial)?;
            if let Some(before) = metadata(&self.path)? {
                let made = file.metadata()?;
                if (before.uid(), before.gid()) != (made.uid(), made.gid()) {
                    fchown(&file, Some(before.uid()), Some(before.gid()))?;
                }
                file.set_permissions(before.permissions())?;
            }
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&partial, &self.path)
        };
        write().map_err(|source| KeyFileError::Write { path: self.path.clone(), source })
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".");
        name.push(ending);
        name.into()
    }
}

/// `None`: there is no file.
fn metadata(path: &Path) -> io::Result<Option<std::fs::Metadata>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn keys_are_created_listed_and_revoked_and_other_lines_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let by_hand = format!("# ours\nacme old {}", "ab".repeat(32));
        std::fs::write(&path, &by_hand).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let file = KeyFile::at(&path);
        let scopes = Scopes::parse("jobs.read,verify").unwrap();
        let first = file.create("acme", "laptop", scopes, None).unwrap();
        let second = file.create("acme", "laptop", scopes, Some(SystemTime::now() - Duration::from_secs(1))).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&by_hand) && !text.contains(first.secret.expose_secret()));
        assert_eq!(mode(&path), 0o640, "who could read the file still can");

        let states = || file.list().unwrap().iter().map(|key| key.state).collect::<Vec<_>>();
        assert_eq!(states(), [KeyState::Active, KeyState::Active, KeyState::Expired]);
        let listed = &file.list().unwrap()[1];
        assert_eq!((listed.prefix.as_deref(), listed.scopes), (Some(first.prefix.as_str()), scopes));
        assert!(matches!(file.revoke("acme/laptop"), Err(KeyFileError::Ambiguous { count: 2, .. })));
        file.revoke(&first.prefix).unwrap();
        file.revoke("acme/old").unwrap();
        file.revoke(second.secret.expose_secret()).unwrap();
        assert_eq!(states(), [KeyState::Revoked; 3]);
        let refused = file.revoke(first.secret.expose_secret()).unwrap_err();
        assert!(
            matches!(&refused, KeyFileError::NoKey { .. }) && !refused.to_string().contains(&first.secret.expose_secret()[20..]),
            "{refused}"
        );
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("# ours\n"));
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_first_key_makes_a_file_that_its_user_alone_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        KeyFile::at(&path).create("acme", "laptop", Scopes::of_tenant(), None).unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn wrong_names_and_wrong_files_are_refused_and_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::at(&folder.path().join("keys"));
        for (tenant, name) in [("Acme", "laptop"), ("acme", ""), ("acme", "two words"), ("acme", "line\nbreak")] {
            let error = file.create(tenant, name, Scopes::NONE, None).unwrap_err();
            assert!(matches!(error, KeyFileError::Argument(_)), "{error}");
        }
        assert!(!file.path.exists());
        std::fs::write(&file.path, "nonsense").unwrap();
        assert!(matches!(file.create("acme", "laptop", Scopes::NONE, None), Err(KeyFileError::Access(AccessFileError::Line { .. }))));
        assert_eq!(std::fs::read_to_string(&file.path).unwrap(), "nonsense");
    }
}
