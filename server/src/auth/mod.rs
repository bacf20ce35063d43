//! Who calls, and what they may do: by API key, by signed token, by client certificate; or, on loopback only, anybody.
//!
//! Each way has a file that says who is who; all of them are read again when they change. A request with credentials is judged by these
//! alone: a wrong key is not made good by a certificate.

mod certificates;
mod key_file;
mod keys;
mod line;
pub(crate) mod methods;
mod scope;
mod tokens;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use certificates::{CertificateMap, ClientIdentity};
pub use key_file::{KeyFile, KeyFileError, ListedKey};
pub use keys::{ApiKeys, KeyState, NewKey};
pub use line::LineError;
pub use scope::{Scope, Scopes, UnknownScope};
pub use tokens::{KeySet, KeySetUrl, KeySetUrlError, TokenClaims, TokenKeyError, Tokens};
use tokio_util::sync::CancellationToken;

use crate::limits::Limits;
use crate::reload::Reloaded;

/// The tenant of every caller when there is no authentication.
pub const DEFAULT_TENANT: &str = "default";

/// Bytes that a file with keys or principals may have.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// What the caller owns is the tenant's.
    pub tenant: String,
    /// For logs.
    pub name: String,
    /// What the caller may do.
    pub scopes: Scopes,
}

/// Why a file that says who is who is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AccessFileError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line is wrong.
    #[error("{path}, {source}")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, and what is wrong.
        #[source]
        source: LineError,
    },
    /// There is nobody in it, so that nobody could call.
    #[error("{path} names nobody; {remedy}")]
    Empty {
        /// Which file.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// Keys of tokens.
    #[error("{path} holds no keys that tokens could be verified with")]
    TokenKeys {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TokenKeyError,
    },
}

/// How callers are recognised. Cheap to clone; the clones share their files.
#[derive(Debug, Clone)]
pub struct Authentication {
    keys: Option<Arc<Reloaded<ApiKeys>>>,
    tokens: Option<Arc<Tokens>>,
    certificates: Option<Arc<Reloaded<CertificateMap>>>,
    /// Longest token.
    token_bytes: usize,
}

impl Authentication {
    /// Everybody is the default tenant and may do everything. Accepted on loopback addresses only.
    pub fn none() -> Self {
        Self { keys: None, tokens: None, certificates: None, token_bytes: Limits::default().token_bytes }
    }

    /// Reads no token that is longer; without this, none that is longer than the default of [`Limits`].
    pub fn with_token_bytes(mut self, token_bytes: usize) -> Self {
        self.token_bytes = token_bytes;
        self
    }

    /// Whether everybody may do everything.
    pub fn is_none(&self) -> bool {
        self.keys.is_none() && self.tokens.is_none() && self.certificates.is_none()
    }

    /// Accepts API keys too: those of a key file, see [`KeyFile`].
    ///
    /// # Errors
    /// The file cannot be read, a line is wrong, or there is no key in it.
    pub fn with_keys(mut self, path: &Path) -> Result<Self, AccessFileError> {
        let keys = open("API keys", path, ApiKeys::parse)?;
        if keys.get().is_empty() {
            return Err(AccessFileError::Empty { path: path.into(), remedy: "make a key with `zkinferd keys create`" });
        }
        self.keys = Some(Arc::new(keys));
        Ok(self)
    }

    /// Accepts signed tokens (JWT) too, that verify with a key of the file at `path` and make the claims that are asked for.
    ///
    /// # Errors
    /// The file cannot be read, or holds no key that can be used.
    pub fn with_tokens(mut self, path: &Path, claims: TokenClaims) -> Result<Self, AccessFileError> {
        self.tokens = Some(Arc::new(Tokens::open(path, claims)?));
        Ok(self)
    }

    /// Accepts signed tokens (JWT) too, that verify with a key that their issuer publishes and make the claims that are asked for. Keys are fetched while
    /// [`Authentication::keep_fresh`] runs.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn with_key_set(mut self, set: KeySet, claims: TokenClaims) -> Result<Self, reqwest::Error> {
        self.tokens = Some(Arc::new(Tokens::fetched(set, claims)?));
        Ok(self)
    }

    /// Accepts client certificates too: of those that the listener's authority signed, the ones that the file at `path` names, see
    /// [`CertificateMap`].
    ///
    /// # Errors
    /// The file cannot be read, a line is wrong, or there is nobody in it.
    pub fn with_certificates(mut self, path: &Path) -> Result<Self, AccessFileError> {
        let map = open("names of client certificates", path, CertificateMap::parse)?;
        if map.get().is_empty() {
            return Err(AccessFileError::Empty { path: path.into(), remedy: "write a line PRINCIPAL TENANT for each" });
        }
        self.certificates = Some(Arc::new(map));
        Ok(self)
    }

    /// Whether client certificates tell who calls.
    pub fn has_certificates(&self) -> bool {
        self.certificates.is_some()
    }

    /// Reads the files again that have changed. One that is wrong now changes nothing, and the log says why.
    pub fn reload_changed(&self) {
        if let Some(keys) = &self.keys {
            keys.reload_changed();
        }
        if let Some(tokens) = &self.tokens {
            tokens.reload_changed();
        }
        if let Some(certificates) = &self.certificates {
            certificates.reload_changed();
        }
    }

    /// Keeps keys that are fetched from elsewhere fresh, until `closing`.
    pub async fn keep_fresh(&self, closing: CancellationToken) {
        if let Some(tokens) = &self.tokens {
            tokens.keep_fresh(closing).await;
        }
    }

    /// How long ago the keys of tokens were fetched from their issuer, or have been needed if none ever were; none if they come from nowhere else.
    pub fn token_keys_age(&self) -> Option<Duration> {
        self.tokens.as_ref().and_then(|tokens| tokens.keys_age())
    }

    /// Whether somebody can be recognised now: not, if all that there is are the tokens of an issuer whose keys could not be fetched, or are too old.
    pub fn is_able(&self) -> bool {
        self.keys.is_some() || self.certificates.is_some() || self.tokens.as_ref().is_none_or(|tokens| tokens.has_keys())
    }

    /// The caller, from the values of the `authorization` header and the connection's certificate. Why there is none goes to the log
    /// only: who has no valid credentials must not learn which part of them was wrong. Waits for seconds at most, and only for the keys of an issuer.
    pub async fn authenticate(&self, authorization: Presented<'_>, certificate: Option<&ClientIdentity>) -> Option<Principal> {
        if self.is_none() {
            return Some(Principal { tenant: DEFAULT_TENANT.to_owned(), name: "anonymous".to_owned(), scopes: Scopes::every() });
        }
        let caller = match authorization {
            Presented::Nothing => self.by_certificate(certificate),
            Presented::Header(header) => self.by_header(header).await,
            Presented::Several => Err(Refused("more than one authorization header")),
        };
        caller.inspect_err(|why| tracing::debug!(%why, "a caller is not recognised")).ok()
    }

    async fn by_header(&self, header: &[u8]) -> Result<Principal, Refused> {
        let (scheme, credentials) = header.split_at_checked(BEARER.len()).ok_or(Refused("no bearer credentials"))?;
        if !scheme.eq_ignore_ascii_case(BEARER) {
            return Err(Refused("no bearer credentials"));
        }
        if keys::is_key(credentials) {
            let keys = self.keys.as_ref().ok_or(Refused("API keys are not accepted"))?;
            return keys.get().find(credentials, std::time::SystemTime::now()).cloned();
        }
        let tokens = self.tokens.as_ref().ok_or(Refused("tokens are not accepted"))?;
        if credentials.len() > self.token_bytes {
            return Err(Refused("the token is too long"));
        }
        tokens.verify(credentials).await
    }

    fn by_certificate(&self, certificate: Option<&ClientIdentity>) -> Result<Principal, Refused> {
        let map = self.certificates.as_ref().ok_or(Refused("no credentials"))?;
        let identity = certificate.ok_or(Refused("neither credentials nor a certificate with one name"))?;
        map.get().find(identity).cloned().ok_or(Refused("the certificate's name is not in the file"))
    }
}

const BEARER: &[u8] = b"Bearer ";

/// What a request has in its `authorization` header.
#[derive(Clone, Copy)]
pub enum Presented<'a> {
    /// There is none.
    Nothing,
    /// Its value.
    Header(&'a [u8]),
    /// There are several: which one counts is not guessed.
    Several,
}

/// Why a caller is not recognised: for the log, and never more than which rule it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) &'static str);

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

/// Opens a file of lines.
fn open<T>(what: &'static str, path: &Path, parse: fn(&str) -> Result<T, LineError>) -> Result<Reloaded<T>, AccessFileError>
where
    T: 'static,
{
    let file = path.to_owned();
    Reloaded::open(what, vec![file.clone()], move || {
        let text = read_text(&file)?;
        parse(&text).map_err(|source| AccessFileError::Line { path: file.clone(), source })
    })
}

fn read_text(path: &Path) -> Result<String, AccessFileError> {
    crate::reload::read_text(path, MAX_FILE_BYTES).map_err(|source| AccessFileError::Read { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[tokio::test]
    async fn finds_the_tenant_of_a_key_and_nobody_for_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let file = KeyFile::at(&path);
        file.create("umbrella", "server", Scopes::of_tenant(), None).unwrap();
        let key = file.create("acme", "laptop", Scopes::from_iter([Scope::Verify]), None).unwrap();
        let authentication = Authentication::none().with_keys(&path).unwrap();
        let header = format!("Bearer {}", key.secret.expose_secret());
        let principal = authentication.authenticate(Presented::Header(header.as_bytes()), None).await.unwrap();
        assert_eq!((principal.tenant.as_str(), principal.scopes.to_string().as_str()), ("acme", "verify"));
        let lower = header.replacen("Bearer", "bearer", 1);
        assert_eq!(authentication.authenticate(Presented::Header(lower.as_bytes()), None).await, Some(principal));
        for wrong in ["", "Bearer", "Bearer ", "Bearer zki_", "Basic eDp5", &header[..header.len() - 1], key.secret.expose_secret()] {
            assert_eq!(authentication.authenticate(Presented::Header(wrong.as_bytes()), None).await, None, "{wrong}");
        }
        assert_eq!(authentication.authenticate(Presented::Nothing, None).await, None);
        assert_eq!(authentication.authenticate(Presented::Several, None).await, None);
    }

    #[tokio::test]
    async fn a_file_without_keys_is_refused_at_first_and_locks_everybody_out_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, "# nobody\n").unwrap();
        let error = Authentication::none().with_keys(&path).unwrap_err();
        assert!(matches!(error, AccessFileError::Empty { .. }) && error.to_string().contains("keys create"), "{error}");
        let key = KeyFile::at(&path).create("acme", "laptop", Scopes::of_tenant(), None).unwrap();
        let authentication = Authentication::none().with_keys(&path).unwrap();
        let header = format!("Bearer {}", key.secret.expose_secret());
        assert!(authentication.authenticate(Presented::Header(header.as_bytes()), None).await.is_some());
        std::fs::write(&path, "# nobody any more\n").unwrap();
        authentication.reload_changed();
        assert_eq!(authentication.authenticate(Presented::Header(header.as_bytes()), None).await, None);
    }
}
