//! Who calls. Modes: none (on loopback only), or API keys.
//!
//! A key is `zki_` and 64 hex digits (256 random bits). Only SHA-256 hashes are kept, in a file with one key per line:
//! `TENANT NAME SHA256-IN-HEX`; empty lines and lines that start with `#` are skipped.

use std::fmt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use zkinfer_proto::name::is_resource_id;

/// The tenant of every caller when there is no authentication.
pub const DEFAULT_TENANT: &str = "default";

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// What the caller owns is the tenant's.
    pub tenant: String,
    /// For logs.
    pub name: String,
}

/// How callers are recognised.
#[derive(Debug, Clone)]
pub enum Authentication {
    /// Everybody is the default tenant. Accepted on loopback addresses only.
    None,
    /// By API key.
    ApiKeys(ApiKeys),
}

impl Authentication {
    /// The caller, from the value of the `authorization` header.
    pub fn authenticate(&self, authorization: Option<&[u8]>) -> Option<Principal> {
        match self {
            Self::None => Some(Principal { tenant: DEFAULT_TENANT.to_owned(), name: "anonymous".to_owned() }),
            Self::ApiKeys(keys) => keys.find(authorization?.strip_prefix(b"Bearer ")?).cloned(),
        }
    }
}

/// Why a key file is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("cannot read the key file {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line is wrong.
    #[error("line {line}: {problem}; write TENANT NAME SHA256-IN-HEX")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// There is no key in it, so that nobody could call.
    #[error("the key file holds no key; make one with `zkinferd keygen`")]
    Empty,
}

#[derive(Clone)]
struct Entry {
    principal: Principal,
    sha256: [u8; 32],
}

/// The accepted keys, as hashes.
#[derive(Clone)]
pub struct ApiKeys {
    entries: Vec<Entry>,
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeys({} keys)", self.entries.len())
    }
}

impl ApiKeys {
    /// Reads a key file.
    ///
    /// # Errors
    /// See [`KeyFileError`].
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let text = std::fs::read_to_string(path).map_err(|source| KeyFileError::Read { path: path.into(), source })?;
        Self::parse(&text)
    }

    /// Parses the contents of a key file.
    ///
    /// # Errors
    /// See [`KeyFileError`].
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let mut entries = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let line_text = line.trim();
            if line_text.is_empty() || line_text.starts_with('#') {
                continue;
            }
            let wrong = |problem| KeyFileError::Line { line: i + 1, problem };
            let words: Vec<&str> = line_text.split_whitespace().collect();
            let [tenant, name, hash] = words[..] else {
                return Err(wrong("not three words"));
            };
            if !is_resource_id(tenant) {
                return Err(wrong("the tenant is not of the form [a-z]([a-z0-9-]*[a-z0-9])?"));
            }
            let mut sha256 = [0; 32];
            hex::decode_to_slice(hash, &mut sha256).map_err(|_| wrong("the hash is not 64 hex digits"))?;
            let principal = Principal { tenant: tenant.to_owned(), name: name.to_owned() };
            entries.push(Entry { principal, sha256 });
        }
        if entries.is_empty() { Err(KeyFileError::Empty) } else { Ok(Self { entries }) }
    }

    /// Compares with every entry, in a time that does not depend on which one it is.
    fn find(&self, key: &[u8]) -> Option<&Principal> {
        let hash: [u8; 32] = Sha256::digest(key).into();
        let mut found = u32::MAX;
        for (i, entry) in self.entries.iter().enumerate() {
            let is_equal: Choice = entry.sha256.ct_eq(&hash);
            found.conditional_assign(&u32::try_from(i).unwrap_or(u32::MAX), is_equal);
        }
        self.entries.get(found as usize).map(|entry| &entry.principal)
    }
}

/// Makes a key: the key itself, and the line for the key file.
///
/// # Errors
/// The operating system gives no random bytes.
pub fn generate_key(tenant: &str, name: &str) -> Result<(String, String), getrandom::Error> {
    let mut secret = zeroize::Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut())?;
    let key = format!("zki_{}", hex::encode(secret.as_ref()));
    let hash = hex::encode(Sha256::digest(key.as_bytes()));
    let line = format!("{tenant} {name} {hash}");
    Ok((key, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_tenant_of_a_key_and_nobody_for_another() {
        let (key, line) = generate_key("acme", "laptop").unwrap();
        let (_, other) = generate_key("umbrella", "server").unwrap();
        let keys = ApiKeys::parse(&format!("# keys\n\n{other}\n{line}\n")).unwrap();
        let authentication = Authentication::ApiKeys(keys);
        let header = format!("Bearer {key}");
        let principal = authentication.authenticate(Some(header.as_bytes())).unwrap();
        assert_eq!(principal.tenant, "acme");
        for wrong in ["", "Bearer ", "Bearer zki_", &header[..header.len() - 1], key.as_str()] {
            assert_eq!(authentication.authenticate(Some(wrong.as_bytes())), None, "{wrong}");
        }
        assert_eq!(authentication.authenticate(None), None);
    }

    #[test]
    fn names_the_wrong_line_of_a_key_file() {
        let error = ApiKeys::parse("# a comment\nacme laptop 12").unwrap_err();
        assert!(matches!(error, KeyFileError::Line { line: 2, .. }), "{error}");
        assert!(matches!(ApiKeys::parse("# nothing"), Err(KeyFileError::Empty)));
        let error = ApiKeys::parse("Acme laptop 00").unwrap_err();
        assert!(error.to_string().contains("tenant"));
    }
}
