//! The keys under which artifacts lie encrypted, if they do.
//!
//! A key file has one key a line, 32 bytes in hexadecimal digits or in base64; empty lines and lines that begin with `#` are skipped. The first key
//! encrypts, all decrypt: a key is replaced by putting another one before it. From each key come, by BLAKE3's key derivation, four values that tell
//! nothing of one another: the id that is written down, the key of names, the key of contents, and the key of secrets that lie in the database.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::process;

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Largest key file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;

const OF_IDS: &str = "zkinfer artifacts v1: id of a key";
const OF_NAMES: &str = "zkinfer artifacts v1: key of names";
const OF_CONTENTS: &str = "zkinfer artifacts v1: key of contents";
const OF_RECORDS: &str = "zkinfer artifacts v1: key of secrets in the database";

/// Why a key file cannot be used. No message holds anything of a key.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactKeysError {
    /// It cannot be read.
    #[error("cannot read the artifact keys in {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others could read it.
    #[error(
        "the artifact keys in {path} have the mode {mode:03o}: nobody but their owner may read or write them, or root may own them and a group of this \
         process read them; chmod 600 {path}"
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A line is no key.
    #[error(
        "line {line} of the artifact keys in {path} is no key: it must be {KEY_BYTES} random bytes in hexadecimal or base64 (openssl rand -hex 32)"
    )]
    Line {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// A key is there twice.
    #[error("line {line} of the artifact keys in {path} repeats a key; remove it")]
    Repeated {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// There is none.
    #[error("there is no key in {path}; make one with openssl rand -hex 32")]
    Empty {
        /// Which file.
        path: PathBuf,
    },
}

/// One key and what is derived from it.
pub(crate) struct ArtifactKey {
    pub(crate) id: [u8; 8],
    pub(super) of_names: Zeroizing<[u8; 32]>,
    pub(super) of_contents: Zeroizing<[u8; 32]>,
    pub(crate) of_records: Zeroizing<[u8; 32]>,
}

impl ArtifactKey {
    fn derive(secret: &[u8; KEY_BYTES]) -> Self {
        let mut id = [0; 8];
        for (to, from) in id.iter_mut().zip(blake3::derive_key(OF_IDS, secret)) {
            *to = from;
        }
        Self {
            id,
            of_names: Zeroizing::new(blake3::derive_key(OF_NAMES, secret)),
            of_contents: Zeroizing::new(blake3::derive_key(OF_CONTENTS, secret)),
            of_records: Zeroizing::new(blake3::derive_key(OF_RECORDS, secret)),
        }
    }
}

/// All keys of a service, in order. Cheap to clone; the keys are erased with the last clone.
#[derive(Clone)]
pub struct ArtifactKeys {
    keys: Arc<[Arc<ArtifactKey>]>,
}

/// With the ids of the keys only.
impl fmt::Debug for ArtifactKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| hex::encode(key.id))).finish()
    }
}

impl ArtifactKeys {
    /// The keys of a file, which nobody but its owner may read; of root's file, a group of this process may too, as orchestrators mount secrets.
    ///
    /// # Errors
    /// See [`ArtifactKeysError`].
    pub fn read(path: &Path) -> Result<Self, ArtifactKeysError> {
        let failed = |source| ArtifactKeysError::Read { path: path.into(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        // Of the file that was opened, so that it cannot be exchanged in between.
        let found = file.metadata().map_err(failed)?;
        let mode = found.mode() & 0o777;
        if !is_private(mode, found.uid(), || process::groups().contains(&found.gid())) {
            return Err(ArtifactKeysError::Exposed { path: path.into(), mode });
        }
        let mut text = Zeroizing::new(String::with_capacity(4096));
        std::io::Read::read_to_string(&mut std::io::Read::take(file, MAX_FILE_BYTES), &mut text).map_err(failed)?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ArtifactKeysError> {
        let mut keys: Vec<Arc<ArtifactKey>> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let (line, number) = (line.trim(), index + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let secret = parse_secret(line).ok_or_else(|| ArtifactKeysError::Line { path: path.into(), line: number })?;
            let key = ArtifactKey::derive(&secret);
            if keys.iter().any(|known| known.id == key.id) {
                return Err(ArtifactKeysError::Repeated { path: path.into(), line: number });
            }
            keys.push(Arc::new(key));
        }
        if keys.is_empty() {
            return Err(ArtifactKeysError::Empty { path: path.into() });
        }
        Ok(Self { keys: keys.into() })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<ArtifactKey>> {
        self.keys.iter()
    }
}

/// Whether a file is nobody's business but its owner's; or it is root's, and a group may read it in which this process is, so that it is there for the
/// process and not for others.
fn is_private(mode: u32, owner: u32, is_in_group: impl FnOnce() -> bool) -> bool {
    const ROOT: u32 = 0;
    match mode & 0o077 {
        0 => true,
        0o040 => owner == ROOT && is_in_group(),
        _ => false,
    }
}

/// 64 hexadecimal digits, or 44 of base64. One byte 32 times is a placeholder that somebody forgot.
fn parse_secret(line: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let mut bytes = match line.len() {
        64 => hex::decode(line).ok()?,
        _ => base64::engine::general_purpose::STANDARD.decode(line).ok()?,
    };
    let secret: Option<[u8; KEY_BYTES]> = bytes.as_slice().try_into().ok();
    bytes.zeroize();
    secret.map(Zeroizing::new).filter(|secret| secret.iter().any(|byte| *byte != secret[0]))
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Keys that are told by numbers, in order.
    pub(crate) fn keys(numbers: &[u8]) -> ArtifactKeys {
        let line = |number: &u8| hex::encode(blake3::hash(&[*number]).as_bytes());
        ArtifactKeys::parse(&numbers.iter().map(line).collect::<Vec<_>>().join("\n"), Path::new("test")).unwrap()
    }

    #[test]
    fn hexadecimal_and_base64_are_the_same_key() {
        let secret = *blake3::hash(b"secret").as_bytes();
        let base64 = base64::engine::general_purpose::STANDARD.encode(secret);
        let both = [hex::encode(secret), format!("# a comment\n\n  {base64}\n")];
        let [first, second] = both.map(|text| ArtifactKeys::parse(&text, Path::new("f")).unwrap());
        assert_eq!(format!("{first:?}"), format!("{second:?}"));
        assert!(!format!("{first:?}").contains(&hex::encode(&secret[..4])));
    }

    #[test]
    fn files_that_are_no_keys_are_refused_by_line_without_their_text() {
        let good = hex::encode(blake3::hash(b"a").as_bytes());
        let zero = "00".repeat(32);
        for (text, expected) in [
            (String::new(), "there is no key"),
            ("# nothing\n".into(), "there is no key"),
            (format!("{good}\n{}", &good[2..]), "line 2"),
            (format!("{good}\n\n{good}"), "line 3 of the artifact keys in f repeats"),
            (zero, "line 1"),
            ("a secret that is no key".into(), "line 1"),
        ] {
            let message = ArtifactKeys::parse(&text, Path::new("f")).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
            assert!(!message.contains("secret") && !message.contains(&good[..8]), "{message}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, hex::encode(blake3::hash(b"a").as_bytes())).unwrap();
        // What root's process makes is root's, in a group of it.
        let is_roots = std::fs::metadata(&path).unwrap().uid() == 0;
        for (mode, is_right) in [(0o600, true), (0o400, true), (0o660, false), (0o604, false), (0o620, false), (0o440, is_roots)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            match ArtifactKeys::read(&path) {
                Ok(_) => assert!(is_right, "{mode:o}"),
                Err(ArtifactKeysError::Exposed { mode: found, .. }) => assert!(!is_right && found == mode, "{mode:o}"),
                Err(other) => panic!("{other}"),
            }
        }
        assert!(matches!(ArtifactKeys::read(&folder.path().join("none")), Err(ArtifactKeysError::Read { .. })));
    }

    #[test]
    fn a_group_may_read_the_file_of_root_and_of_nobody_else() {
        let (member, stranger) = (|| true, || false);
        for mode in [0o440, 0o640, 0o040] {
            assert!(is_private(mode, 0, member), "{mode:o}");
            assert!(!is_private(mode, 0, stranger) && !is_private(mode, 1000, member), "{mode:o}");
        }
        for mode in [0o444, 0o460, 0o450, 0o660, 0o004] {
            assert!(!is_private(mode, 0, member), "{mode:o}");
        }
        assert!(is_private(0o400, 1000, stranger));
        assert!(!process::groups().is_empty());
    }
}
