//! Signed tokens: which are accepted, and each way to forge or misuse one.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};
use tonic::Code;
use zkinfer_proto::v1;
use zkinfer_proto::v1::system_service_client::SystemServiceClient;
use zkinfer_server::auth::{Authentication, TokenClaims};

use crate::harness::{Client, Service, config, expect_error, with_bearer};

pub(crate) const ISSUER: &str = "https://login.example";
pub(crate) const AUDIENCE: &str = "zkinfer.example";

/// The provider's key, under its name.
pub(crate) struct Signer {
    kid: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
    pub(crate) public_pem: String,
    public_raw: Vec<u8>,
}

impl Signer {
    pub(crate) fn new(kid: &'static str, algorithm: Algorithm) -> Self {
        let pair = match algorithm {
            Algorithm::RS256 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
            Algorithm::ES256 => KeyPair::generate(),
            Algorithm::EdDSA => KeyPair::generate_for(&PKCS_ED25519),
            other => panic!("{other:?} is not accepted"),
        };
        let pair = pair.unwrap();
        let pem = pair.serialize_pem();
        let key = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
            Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
            _ => EncodingKey::from_ed_pem(pem.as_bytes()),
        };
        Self { kid, algorithm, key: key.unwrap(), public_pem: pair.public_key_pem(), public_raw: pair.public_key_raw().to_vec() }
    }

    pub(crate) fn jwk(&self) -> Value {
        if self.algorithm == Algorithm::EdDSA {
            return json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": self.kid, "x": base64(&self.public_raw) });
        }
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.kid.to_owned());
        serde_json::to_value(jwk).unwrap()
    }

    fn header(&self) -> Header {
        Header { kid: Some(self.kid.to_owned()), ..Header::new(self.algorithm) }
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        encode(&self.header(), claims, &self.key).unwrap()
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

pub(crate) fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "exp": now() + 300, "sub": "ann", "tenant": "acme", "scope": "openid jobs.read" })
}

pub(crate) fn claims_with(claim: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[claim] = value;
    claims
}

fn claims_without(claim: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(claim).unwrap();
    claims
}

fn write_set(path: &Path, signers: &[&Signer]) {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
    let partial = path.with_extension("partial");
    std::fs::write(&partial, json!({ "keys": keys }).to_string()).unwrap();
    std::fs::rename(partial, path).unwrap();
}

async fn start(folder: &Path, keys: &Path) -> Service {
    let mut config = config(folder);
    config.authentication = Authentication::none().with_tokens(keys, TokenClaims::new(ISSUER, AUDIENCE)).unwrap();
    Service::start(config).await
}

/// The tenant that a token is taken for; `None`: it is refused, and nothing says why.
pub(crate) async fn tenant(client: &Client, token: &str) -> Option<String> {
    let mut system = SystemServiceClient::new(client.channel.clone());
    match system.get_server_info(with_bearer(v1::GetServerInfoRequest {}, token)).await {
        Ok(info) => Some(info.into_inner().tenant),
        Err(status) => {
            expect_error(&status, Code::Unauthenticated, "UNAUTHENTICATED");
            assert!(status.message().starts_with("send a valid API key or token"), "{status}");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_each_algorithm_tell_tenant_and_scopes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let signers = [("r", Algorithm::RS256), ("e", Algorithm::ES256), ("d", Algorithm::EdDSA)].map(|(kid, kind)| Signer::new(kid, kind));
    write_set(&path, &signers.each_ref());
    let service = start(folder.path(), &path).await;
    let mut client = service.client().await;
    for signer in &signers {
        let token = signer.sign(&claims());
        assert_eq!(tenant(&client, &token).await.as_deref(), Some("tenants/acme"), "{:?}", signer.algorithm);
        client.proofs.list_jobs(with_bearer(v1::ListJobsRequest::default(), &token)).await.unwrap();
        let status = client.models.list_models(with_bearer(v1::ListModelsRequest::default(), &token)).await.unwrap_err();
        let details = expect_error(&status, Code::PermissionDenied, "SCOPE_MISSING");
        assert_eq!(details.error_info().unwrap().metadata["scope"], "models.read");
        let list = signer.sign(&claims_with("scope", json!(["models.read", "jobs.*"])));
        client.models.list_models(with_bearer(v1::ListModelsRequest::default(), &list)).await.unwrap();
    }
    let audiences = signers[1].sign(&claims_with("aud", json!(["other", AUDIENCE])));
    assert!(tenant(&client, &audiences).await.is_some());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_wrong_times_audiences_issuers_tenants_and_missing_claims() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let signer = Signer::new("e", Algorithm::ES256);
    write_set(&path, &[&signer]);
    let service = start(folder.path(), &path).await;
    let client = service.client().await;
    for within_a_minute in [claims_with("exp", json!(now() - 40)), claims_with("nbf", json!(now() + 40))] {
        assert!(tenant(&client, &signer.sign(&within_a_minute)).await.is_some(), "{within_a_minute}");
    }
    for wrong in [
        claims_with("exp", json!(now() - 80)),
        claims_with("exp", json!("never")),
        claims_with("nbf", json!(now() + 80)),
        claims_with("aud", json!("other.example")),
        claims_with("aud", json!([])),
        claims_with("iss", json!("https://login.example.net")),
        claims_with("tenant", json!("Acme")),
        claims_with("tenant", json!(["acme"])),
        claims_without("exp"),
        claims_without("aud"),
        claims_without("iss"),
        claims_without("tenant"),
    ] {
        assert_eq!(tenant(&client, &signer.sign(&wrong)).await, None, "{wrong}");
    }
    service.stop().await;
}

/// Base64 as tokens have it.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        text.extend((0..=group.len()).map(|i| char::from(DIGITS[(word >> (18 - 6 * i)) as usize & 63])));
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_no_signature_swapped_algorithms_unknown_keys_and_changed_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let (rsa, ec) = (Signer::new("r", Algorithm::RS256), Signer::new("e", Algorithm::ES256));
    write_set(&path, &[&rsa, &ec]);
    let service = start(folder.path(), &path).await;
    let client = service.client().await;
    let body = base64(claims().to_string().as_bytes());
    for algorithm in ["none", "None", "NONE", "nOnE"] {
        let header = base64(json!({ "alg": algorithm, "kid": "r" }).to_string().as_bytes());
        assert_eq!(tenant(&client, &format!("{header}.{body}.")).await, None, "{algorithm}");
    }
    let good = rsa.sign(&claims());
    assert!(tenant(&client, &good).await.is_some());
    // HS256 with what everybody knows as the secret: the public key, in each form that it is seen in.
    let modulus = rsa.jwk()["n"].as_str().unwrap().to_owned();
    for secret in [rsa.public_pem.as_bytes(), rsa.public_pem.trim().as_bytes(), modulus.as_bytes()] {
        let header = Header { alg: Algorithm::HS256, ..rsa.header() };
        let token = encode(&header, &claims(), &EncodingKey::from_secret(secret)).unwrap();
        assert_eq!(tenant(&client, &token).await, None);
    }
    // One key's name on another one's signature; a stranger's key; a name that nobody has; an algorithm of the same key.
    let swapped = encode(&Header { kid: Some("e".into()), ..rsa.header() }, &claims(), &rsa.key).unwrap();
    let stranger = Signer::new("r", Algorithm::RS256).sign(&claims());
    let unknown = encode(&Header { kid: Some("x".into()), ..rsa.header() }, &claims(), &rsa.key).unwrap();
    let sibling = encode(&Header { alg: Algorithm::RS384, ..rsa.header() }, &claims(), &rsa.key).unwrap();
    let own_key = encode(
        &Header { jwk: serde_json::from_value(ec.jwk()).unwrap(), ..rsa.header() },
        &claims(),
        &Signer::new("r", Algorithm::RS256).key,
    );
    let critical = encode(&Header { crit: Some(vec!["exp".into()]), ..rsa.header() }, &claims(), &rsa.key).unwrap();
    let [header, _, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!() };
    let other_body = base64(claims_with("tenant", json!("rival")).to_string().as_bytes());
    let other_claims = format!("{header}.{other_body}.{signature}");
    let long = rsa.sign(&claims_with("padding", json!("x".repeat(9000))));
    let forged = [swapped, stranger, unknown, sibling, own_key.unwrap(), critical, other_claims, long, format!("{header}..{signature}")];
    for token in forged.iter().chain([&good[1..].to_owned(), &format!("{good}A"), &String::from("a.b.c"), &String::new()]) {
        assert_eq!(tenant(&client, token).await, None, "{token}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_exchanged_while_the_service_runs_and_pem_is_a_key_without_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let (old, new) = (Signer::new("old", Algorithm::EdDSA), Signer::new("new", Algorithm::ES256));
    std::fs::write(&path, &old.public_pem).unwrap();
    let service = start(folder.path(), &path).await;
    let client = service.client().await;
    assert!(tenant(&client, &old.sign(&claims())).await.is_some());
    assert_eq!(tenant(&client, &new.sign(&claims())).await, None);
    write_set(&path, &[&new]);
    let noticed = async {
        while tenant(&client, &new.sign(&claims())).await.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), noticed).await.expect("the service notices");
    assert_eq!(tenant(&client, &old.sign(&claims())).await, None);
    service.stop().await;
}
