//! Signed tokens (JWT, RFC 7519) of somebody else's identity provider. Accepted signatures: RS256, ES256, EdDSA with Ed25519.
//!
//! Which algorithm a signature is verified with is said by the key, never by the token alone; a token names its key by `kid`. Required
//! claims are `exp`, `iss`, `aud` and the tenant's; `nbf` counts where it is there; clocks may differ by a minute.

mod issuer;
mod keys;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use zkinfer_proto::name::is_resource_id;

use issuer::Issuer;
pub use issuer::{KeySet, KeySetUrl, KeySetUrlError};
pub use keys::TokenKeyError;
use keys::{UNKNOWN_KEY, VerifyingKeys};

use super::scope::{Scope, Scopes};
use super::{AccessFileError, Principal, Refused, read_text};
use crate::reload::Reloaded;

const LEEWAY_SECONDS: u64 = 60;

/// What a token must claim, and where it tells tenant and scopes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenClaims {
    /// Who must have issued it (`iss`).
    pub issuer: String,
    /// Whom it must be meant for (`aud`): this service.
    pub audience: String,
    /// Name of the claim that is the tenant.
    pub tenant_claim: String,
    /// Name of the claim that lists scopes: a text with spaces between them, or an array. Names that are no scope's are skipped.
    pub scope_claim: String,
}

impl TokenClaims {
    /// Tenant and scopes in the claims `tenant` and `scope`.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        let (issuer, audience) = (issuer.into(), audience.into());
        Self { issuer, audience, tenant_claim: "tenant".to_owned(), scope_claim: "scope".to_owned() }
    }
}

/// Verifies tokens.
#[derive(Debug)]
pub struct Tokens {
    keys: Keys,
    claims: TokenClaims,
}

/// Where the keys come from.
#[derive(Debug)]
enum Keys {
    File(Reloaded<VerifyingKeys>),
    Issuer(Arc<Issuer>),
}

impl Tokens {
    /// Reads keys from a file: a key set (JWKS), or public keys as PEM.
    ///
    /// # Errors
    /// The file cannot be read, or holds no key that can be used.
    pub fn open(path: &Path, claims: TokenClaims) -> Result<Self, AccessFileError> {
        let file = path.to_owned();
        let read = move || {
            let text = read_text(&file)?;
            VerifyingKeys::parse(&text).map_err(|source| AccessFileError::TokenKeys { path: file.clone(), source })
        };
        Ok(Self { keys: Keys::File(Reloaded::open("keys of tokens", vec![path.to_owned()], read)?), claims })
    }

    /// Fetches keys from an issuer, once the service runs.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn fetched(set: KeySet, claims: TokenClaims) -> Result<Self, reqwest::Error> {
        Ok(Self { keys: Keys::Issuer(Arc::new(Issuer::new(set)?)), claims })
    }

    pub(super) fn reload_changed(&self) {
        match &self.keys {
            Keys::File(keys) => keys.reload_changed(),
            Keys::Issuer(_) => {}
        }
    }

    /// Keeps keys that are fetched fresh until `closing`.
    pub(super) async fn keep_fresh(&self, closing: CancellationToken) {
        match &self.keys {
            Keys::File(_) => {}
            Keys::Issuer(issuer) => issuer.keep_fresh(closing).await,
        }
    }

    /// Whether there are keys now.
    pub(super) fn has_keys(&self) -> bool {
        match &self.keys {
            Keys::File(_) => true,
            Keys::Issuer(issuer) => issuer.keys(Instant::now()).is_some(),
        }
    }

    /// How long ago keys were fetched, or have been needed if none ever were; none if they come from a file.
    pub(super) fn keys_age(&self) -> Option<Duration> {
        match &self.keys {
            Keys::File(_) => None,
            Keys::Issuer(issuer) => Some(issuer.age(Instant::now())),
        }
    }

    /// Who the token says is calling, if all of it is right. If its key is unknown, a newer set is fetched, if that may be.
    pub(super) async fn verify(&self, token: &[u8]) -> Result<Principal, Refused> {
        let issuer = match &self.keys {
            Keys::File(keys) => return self.verify_with(&keys.get(), token),
            Keys::Issuer(issuer) => issuer,
        };
        let verify = || match issuer.keys(Instant::now()) {
            Some(keys) => self.verify_with(&keys, token),
            None => Err(UNKNOWN_KEY),
        };
        match verify() {
            Err(UNKNOWN_KEY) => {
                issuer.look_for_unknown().await;
                verify()
            }
            verdict => verdict,
        }
    }

    fn verify_with(&self, keys: &VerifyingKeys, token: &[u8]) -> Result<Principal, Refused> {
        let header = decode_header(token).map_err(|error| refused(error.kind()))?;
        if header.crit.is_some() {
            return Err(Refused("the token has critical headers, of which none is known"));
        }
        let key = keys.select(header.kid.as_deref(), header.alg)?;
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[&self.claims.issuer]);
        validation.set_audience(&[&self.claims.audience]);
        let data = decode::<Map<String, Value>>(token, &key.key, &validation).map_err(|error| refused(error.kind()))?;
        self.principal(&data.claims)
    }

    fn principal(&self, claims: &Map<String, Value>) -> Result<Principal, Refused> {
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
        let tenant = text(&self.claims.tenant_claim).filter(|tenant| is_resource_id(tenant)).ok_or(Refused("the token names no tenant"))?;
        let name = text("sub").unwrap_or("token").to_owned();
        Ok(Principal { tenant: tenant.to_owned(), name, scopes: scopes(claims.get(&self.claims.scope_claim)) })
    }
}

/// The scopes among the names of a claim.
fn scopes(claim: Option<&Value>) -> Scopes {
    match claim {
        Some(Value::String(names)) => names.split_ascii_whitespace().filter_map(Scope::of_name).collect(),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).filter_map(Scope::of_name).collect(),
        _ => Scopes::NONE,
    }
}

/// The rule that a token breaks; nothing of what it holds.
fn refused(error: &ErrorKind) -> Refused {
    Refused(match error {
        ErrorKind::InvalidSignature => "the token's signature is wrong",
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidAudience => "the token is meant for another service",
        ErrorKind::InvalidIssuer => "the token is another issuer's",
        ErrorKind::InvalidAlgorithm => "the token's algorithm is not its key's",
        ErrorKind::MissingRequiredClaim(_) => "the token lacks exp, iss or aud",
        _ => "no token that can be read",
    })
}
