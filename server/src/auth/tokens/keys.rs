//! The public keys that tokens are verified with, from a key set (JWKS, RFC 7517) or from PEM.

use std::collections::HashSet;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::Refused;

const MIN_RSA_BITS: usize = 2048;

/// A token's key is none of these: a newer set may have it.
pub(super) const UNKNOWN_KEY: Refused = Refused("the token's key is not known");

/// Why a file holds no keys to verify tokens with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenKeyError {
    /// Neither a key set nor PEM.
    #[error("it is neither a JSON key set nor PEM: {0}")]
    Form(String),
    /// A key cannot be used.
    #[error("key {number} {problem}")]
    Key {
        /// From 1.
        number: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// Two keys have the same id.
    #[error("two keys have the kid {0:?}")]
    SameId(String),
    /// None of the keys is for one of the accepted signatures.
    #[error("it has no key for RS256, ES256 or EdDSA (Ed25519)")]
    None,
}

/// A key, and the one algorithm that signatures are verified with.
#[derive(Debug)]
pub(super) struct VerifyingKey {
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// The accepted keys.
#[derive(Debug)]
pub(super) struct VerifyingKeys(Vec<VerifyingKey>);

impl VerifyingKeys {
    /// Parses a key set, or public keys as PEM.
    pub(super) fn parse(text: &str) -> Result<Self, TokenKeyError> {
        if text.trim_start().starts_with('{') { Self::parse_set(text) } else { Self::of(parse_pem(text)?) }
    }

    /// Parses a key set.
    pub(super) fn parse_set(text: &str) -> Result<Self, TokenKeyError> {
        Self::of(parse_set(text)?)
    }

    fn of(keys: Vec<VerifyingKey>) -> Result<Self, TokenKeyError> {
        if keys.is_empty() {
            return Err(TokenKeyError::None);
        }
        let mut ids = HashSet::new();
        match keys.iter().filter_map(|key| key.id.as_ref()).find(|id| !ids.insert(*id)) {
            Some(id) => Err(TokenKeyError::SameId(id.clone())),
            None => Ok(Self(keys)),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The key that a token's header names. A key without id (PEM has none) may be the key of any token, if no other one may.
    pub(super) fn select(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&VerifyingKey, Refused> {
        let may_be = |key: &&VerifyingKey| id.is_none() || key.id.is_none() || key.id.as_deref() == id;
        let mut named = self.0.iter().filter(may_be).peekable();
        if named.peek().is_none() {
            return Err(UNKNOWN_KEY);
        }
        let mut fitting = named.filter(|key| key.algorithm == algorithm);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (None, _) => Err(Refused("the token's algorithm is not its key's")),
            (Some(_), Some(_)) => Err(Refused("the token does not say which key it is signed with")),
        }
    }
}

/// Of a key set, the keys that verify one of the accepted signatures. Providers publish others beside them: those are skipped.
fn parse_set(text: &str) -> Result<Vec<VerifyingKey>, TokenKeyError> {
    let form = |error: serde_json::Error| TokenKeyError::Form(error.to_string());
    let set: Value = serde_json::from_str(text).map_err(form)?;
    let Some(list) = set.get("keys").and_then(Value::as_array) else {
        return Err(TokenKeyError::Form("there is no list `keys`".to_owned()));
    };
    let mut keys = Vec::new();
    for (i, value) in list.iter().enumerate() {
        let number = i + 1;
        if value.get("d").is_some() || value.get("kty").and_then(Value::as_str) == Some("oct") {
            return Err(TokenKeyError::Key { number, problem: "is secret: only public keys belong into a key set" });
        }
        let jwk = serde_json::from_value::<Jwk>(value.clone()).ok();
        match jwk.and_then(|jwk| algorithm(&jwk).map(|algorithm| (jwk, algorithm))) {
            Some((jwk, algorithm)) => {
                let key = DecodingKey::from_jwk(&jwk).map_err(|_| TokenKeyError::Key { number, problem: "cannot be decoded" })?;
                keys.push(VerifyingKey { id: jwk.common.key_id, algorithm, key });
            }
            None => tracing::warn!(number, "a key of the key set is for no accepted signature; it is skipped"),
        }
    }
    Ok(keys)
}

/// The accepted algorithm that a key is for.
fn algorithm(jwk: &Jwk) -> Option<Algorithm> {
    if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(key) if rsa_bits(&key.n) >= MIN_RSA_BITS => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    let fits = jwk.common.key_algorithm.is_none_or(|named| named == KeyAlgorithm::from(algorithm));
    fits.then_some(algorithm)
}

/// Bits of a modulus in base64, to six bits.
fn rsa_bits(modulus: &str) -> usize {
    modulus.trim_end_matches('=').len() * 6
}

fn parse_pem(text: &str) -> Result<Vec<VerifyingKey>, TokenKeyError> {
    let mut keys = Vec::new();
    for (i, block) in SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes()).enumerate() {
        let block = block.map_err(|error| TokenKeyError::Form(error.to_string()))?;
        let problem = "is not a public key for RS256 (of at least 2048 bits), ES256 or EdDSA (Ed25519)";
        let (algorithm, key) = public_key(&block).ok_or(TokenKeyError::Key { number: i + 1, problem })?;
        keys.push(VerifyingKey { id: None, algorithm, key });
    }
    if keys.is_empty() { Err(TokenKeyError::Form("there is no block PUBLIC KEY".to_owned())) } else { Ok(keys) }
}

fn public_key(block: &[u8]) -> Option<(Algorithm, DecodingKey)> {
    let (_, info) = SubjectPublicKeyInfo::from_der(block).ok()?;
    let bits = info.subject_public_key.data.as_ref();
    let kind = &info.algorithm.algorithm;
    if *kind == OID_PKCS1_RSAENCRYPTION {
        // Modulus and exponent, with a few bytes around them.
        return (bits.len() * 8 >= MIN_RSA_BITS).then(|| (Algorithm::RS256, DecodingKey::from_rsa_der(bits)));
    }
    if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
        return (curve == OID_EC_P256).then(|| (Algorithm::ES256, DecodingKey::from_ec_der(bits)));
    }
    (*kind == OID_SIG_ED25519).then(|| (Algorithm::EdDSA, DecodingKey::from_ed_der(bits)))
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
    use serde_json::json;

    use super::*;

    fn algorithms(text: &str) -> Vec<Algorithm> {
        VerifyingKeys::parse(text).unwrap().0.iter().map(|key| key.algorithm).collect()
    }

    fn pem(key: &KeyPair) -> String {
        key.public_key_pem()
    }

    #[test]
    fn the_algorithm_of_a_pem_key_is_its_kind() {
        let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let (p256, ed25519) = (KeyPair::generate().unwrap(), KeyPair::generate_for(&PKCS_ED25519).unwrap());
        let text = [pem(&rsa), pem(&p256), pem(&ed25519)].concat();
        assert_eq!(algorithms(&text), [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]);
        let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        assert!(matches!(VerifyingKeys::parse(&pem(&p384)), Err(TokenKeyError::Key { number: 1, .. })));
        assert!(matches!(VerifyingKeys::parse(&p256.serialize_pem()), Err(TokenKeyError::Form(_))));
    }

    #[test]
    fn of_a_key_set_the_keys_for_other_purposes_are_skipped_and_secret_ones_refused() {
        let ed25519 = |kid: &str| json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        let with = |name: &str, value: &str| {
            let mut key = ed25519("b");
            key[name] = value.into();
            key
        };
        let set = |keys: &[Value]| json!({ "keys": keys }).to_string();
        assert_eq!(algorithms(&set(&[ed25519("a"), with("use", "enc"), with("alg", "HS256"), with("crv", "P-256")])), [Algorithm::EdDSA]);
        let weak = json!({ "kty": "RSA", "n": "AQAB".repeat(40), "e": "AQAB" });
        assert_eq!(VerifyingKeys::parse(&set(&[weak])).unwrap_err(), TokenKeyError::None);
        assert_eq!(VerifyingKeys::parse(&set(&[ed25519("a"), ed25519("a")])).unwrap_err(), TokenKeyError::SameId("a".into()));
        for secret in [json!({ "kty": "oct", "k": "AQAB" }), with("d", "AQAB")] {
            assert!(matches!(VerifyingKeys::parse(&set(&[ed25519("a"), secret])), Err(TokenKeyError::Key { number: 2, .. })));
        }
        for form in ["", "{}", "{", r#"{"keys": 1}"#] {
            assert!(matches!(VerifyingKeys::parse(form), Err(TokenKeyError::Form(_))), "{form}");
        }
    }

    #[test]
    fn a_token_must_name_its_key_unless_there_is_one_only() {
        let key =
            |id: Option<&str>, algorithm| VerifyingKey { id: id.map(str::to_owned), algorithm, key: DecodingKey::from_ed_der(&[0; 32]) };
        let named =
            VerifyingKeys(vec![key(Some("a"), Algorithm::EdDSA), key(Some("b"), Algorithm::EdDSA), key(Some("c"), Algorithm::RS256)]);
        assert_eq!(named.select(Some("b"), Algorithm::EdDSA).unwrap().id.as_deref(), Some("b"));
        assert_eq!(named.select(None, Algorithm::RS256).unwrap().id.as_deref(), Some("c"));
        for (id, algorithm) in
            [(Some("d"), Algorithm::EdDSA), (None, Algorithm::EdDSA), (Some("a"), Algorithm::RS256), (None, Algorithm::HS256)]
        {
            assert!(named.select(id, algorithm).is_err(), "{id:?} {algorithm:?}");
        }
        let unnamed = VerifyingKeys(vec![key(None, Algorithm::EdDSA)]);
        assert!(unnamed.select(Some("any"), Algorithm::EdDSA).is_ok() && unnamed.select(Some("any"), Algorithm::HS256).is_err());
    }
}
