//! Keys of tokens that are fetched from their issuer: new ones, unknown ones, an issuer that is away or answers nonsense.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use zkinfer_server::Config;
use zkinfer_server::auth::{Authentication, KeyFile, KeySet, Scopes, TokenClaims};
use zkinfer_server::observe::{Exposure, HttpPort};

use crate::harness::{Service, config};
use crate::rotation::until;
use crate::tokens::{AUDIENCE, ISSUER, Signer, claims, tenant};
use crate::workers::any_port;

const NEVER: Duration = Duration::from_secs(24 * 3600);
const AT_ONCE: Duration = Duration::from_millis(1);

/// An issuer: answers every request with the same, until it is given another answer.
struct Issuer {
    address: SocketAddr,
    answer: Arc<Mutex<String>>,
    n_requests: Arc<AtomicUsize>,
    serving: tokio::task::JoinHandle<()>,
}

impl Issuer {
    async fn start(answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, answer, n_requests) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(answer)), Arc::<AtomicUsize>::default());
        let (told, counted) = (answer.clone(), n_requests.clone());
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                let answer = told.lock().unwrap().clone();
                tokio::spawn(tell(stream, answer));
            }
        });
        Self { address, answer, n_requests, serving }
    }

    fn set(&self) -> KeySet {
        set_at(self.address)
    }

    fn answers(&self, answer: String) {
        *self.answer.lock().unwrap() = answer;
    }

    fn n_requests(&self) -> usize {
        self.n_requests.load(Ordering::Relaxed)
    }

    /// Answers nobody any more.
    async fn end(&mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
    }
}

fn set_at(address: SocketAddr) -> KeySet {
    KeySet { patience: Duration::from_secs(60), ..KeySet::at(&format!("http://{address}/keys")).unwrap() }
}

async fn tell(mut stream: TcpStream, answer: String) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut part = [0; 1024];
        match stream.read(&mut part).await {
            Ok(n) if n > 0 => request.extend_from_slice(&part[..n]),
            _ => return,
        }
    }
    // Who reads only so much of it closes the connection.
    let _ = stream.write_all(answer.as_bytes()).await;
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn set_of(keys: &[Value]) -> String {
    ok(&json!({ "keys": keys }).to_string())
}

fn keys_of(signers: &[&Signer]) -> String {
    set_of(&signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>())
}

fn accepting(set: KeySet) -> Authentication {
    Authentication::none().with_key_set(set, TokenClaims::new(ISSUER, AUDIENCE)).unwrap()
}

async fn start(folder: &Path, set: KeySet) -> Service {
    Service::start(Config { authentication: accepting(set), ..config(folder) }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_of_the_issuer_is_known_with_the_first_token_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Signer::new("old", Algorithm::ES256), Signer::new("new", Algorithm::EdDSA));
    let issuer = Issuer::start(keys_of(&[&old])).await;
    let service = start(folder.path(), KeySet { refresh: NEVER, pause: AT_ONCE, ..issuer.set() }).await;
    let client = service.client().await;
    assert_eq!(tenant(&client, &old.sign(&claims())).await.as_deref(), Some("tenants/acme"));
    assert_eq!(tenant(&client, &new.sign(&claims())).await, None);
    issuer.answers(keys_of(&[&new]));
    // The pause has passed when a request has come and gone.
    until("the new key is known", async || tenant(&client, &new.sign(&claims())).await.is_some()).await;
    assert_eq!(tenant(&client, &old.sign(&claims())).await, None, "the issuer has taken it back");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_of_the_issuer_is_known_after_a_while_though_nobody_asks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Signer::new("old", Algorithm::ES256), Signer::new("new", Algorithm::RS256));
    let issuer = Issuer::start(keys_of(&[&old])).await;
    let service = start(folder.path(), KeySet { refresh: Duration::from_millis(20), pause: NEVER, ..issuer.set() }).await;
    let client = service.client().await;
    until("the first keys are known", async || tenant(&client, &old.sign(&claims())).await.is_some()).await;
    issuer.answers(keys_of(&[&new]));
    until("the key before is gone", async || tenant(&client, &old.sign(&claims())).await.is_none()).await;
    assert!(tenant(&client, &new.sign(&claims())).await.is_some());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_tokens_name_unknown_keys_the_issuer_is_asked_once_in_a_pause() {
    let folder = tempfile::tempdir().unwrap();
    let (known, stranger) = (Signer::new("known", Algorithm::ES256), Signer::new("stranger", Algorithm::ES256));
    let issuer = Issuer::start(keys_of(&[&known])).await;
    let service = start(folder.path(), KeySet { refresh: NEVER, pause: NEVER, ..issuer.set() }).await;
    let client = service.client().await;
    until("the keys are known", async || tenant(&client, &known.sign(&claims())).await.is_some()).await;
    let token = stranger.sign(&claims());
    let answers = join_all((0..200).map(|_| tenant(&client, &token))).await;
    assert!(answers.iter().all(Option::is_none));
    assert_eq!(issuer.n_requests(), 1, "the one of the start");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_wait_for_the_same_keys_make_one_request() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::new("a", Algorithm::ES256);
    // It hears the first request, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let set = KeySet { refresh: NEVER, pause: NEVER, ..set_at(silent.local_addr().unwrap()) };
    let service = start(folder.path(), set).await;
    let (stream, _) = silent.accept().await.unwrap();
    let client = service.client().await;
    let token = signer.sign(&claims());
    let answers = join_all((0..20).map(|_| tenant(&client, &token)));
    let (answers, ()) = tokio::join!(answers, tell(stream, keys_of(&[&signer])));
    assert!(answers.iter().all(Option::is_some), "who waited has got in: {answers:?}");
    let another = tokio::time::timeout(Duration::from_millis(50), silent.accept()).await;
    assert!(another.is_err(), "there was no other request");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_away_or_answers_nonsense_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (known, other) = (Signer::new("known", Algorithm::ES256), Signer::new("other", Algorithm::EdDSA));
    let mut issuer = Issuer::start(keys_of(&[&known])).await;
    let elsewhere = Issuer::start(keys_of(&[&other])).await;
    let service = start(folder.path(), KeySet { refresh: AT_ONCE, pause: AT_ONCE, ..issuer.set() }).await;
    let client = service.client().await;
    let (good, bad) = (known.sign(&claims()), other.sign(&claims()));
    until("the keys are known", async || tenant(&client, &good).await.is_some()).await;
    let secret = json!({ "kty": "oct", "kid": "other", "alg": "HS256", "k": "c2VjcmV0" });
    let hmac =
        encode(&Header { kid: Some("other".into()), ..Header::new(Algorithm::HS256) }, &claims(), &EncodingKey::from_secret(b"secret"));
    let hmac = hmac.unwrap();
    let too_long = json!({ "keys": [known.jwk(), other.jwk()], "padding": " ".repeat(2 << 20) }).to_string();
    let mut private = other.jwk();
    private["d"] = "AQAB".into();
    for (what, answer) in [
        ("an error", "HTTP/1.1 500 Oops\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned()),
        (
            "elsewhere",
            format!("HTTP/1.1 302 Found\r\nlocation: http://{}/keys\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", elsewhere.address),
        ),
        ("half of an answer", ok("{\"keys\": [").replace("content-length: 10", "content-length: 100")),
        ("no JSON", ok("<html>sign in</html>")),
        ("PEM", ok(&other.public_pem)),
        ("no key", ok("{\"keys\": []}")),
        ("a secret key", set_of(&[known.jwk(), other.jwk(), secret])),
        ("a private key", set_of(&[known.jwk(), private])),
        ("too long", ok(&too_long)),
    ] {
        issuer.answers(answer);
        // Two requests that began after that: the first of them was judged before the second began.
        let before = issuer.n_requests();
        until("the issuer is asked", async || issuer.n_requests() >= before + 3).await;
        assert!(tenant(&client, &good).await.is_some(), "{what}");
        for wrong in [&bad, &hmac] {
            assert_eq!(tenant(&client, wrong).await, None, "{what}");
        }
    }
    assert_eq!(elsewhere.n_requests(), 0, "redirections are not followed");
    issuer.end().await;
    for _ in 0..3 {
        assert_eq!(tenant(&client, &bad).await, None);
        assert!(tenant(&client, &good).await.is_some(), "the last keys stay");
    }
    service.stop().await;
}

/// What `/readyz` answers.
async fn readyz(address: SocketAddr) -> String {
    get(address, "/readyz").await
}

/// What a page answers.
async fn get(address: SocketAddr, page: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {page} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_valid_keys_is_not_ready_unless_others_may_call() {
    let signer = Signer::new("a", Algorithm::ES256);
    let issuer = Issuer::start("HTTP/1.1 503 Away\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned()).await;
    let set = KeySet { refresh: NEVER, pause: AT_ONCE, ..issuer.set() };
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    KeyFile::at(&keys).create("acme", "laptop", Scopes::of_tenant(), None).unwrap();
    let begin = async |authentication: Authentication, data: &str| {
        let port = HttpPort::bind(any_port(), Exposure::Loopback).unwrap();
        let address = port.address();
        (Service::start(Config { http: Some(port), authentication, ..config(&folder.path().join(data)) }).await, address)
    };
    let (tokens_alone, alone) = begin(accepting(set.clone()), "alone").await;
    let (tokens_and_keys, both) = begin(accepting(set.clone()).with_keys(&keys).unwrap(), "both").await;
    let away = readyz(alone).await;
    assert!(away.starts_with("HTTP/1.1 503") && away.contains("keys of tokens"), "{away}");
    assert!(readyz(both).await.starts_with("HTTP/1.1 200"));
    let client = tokens_alone.client().await;
    assert_eq!(tenant(&client, &signer.sign(&claims())).await, None);

    issuer.answers(keys_of(&[&signer]));
    until("it is ready", async || readyz(alone).await.starts_with("HTTP/1.1 200")).await;
    assert!(tenant(&client, &signer.sign(&claims())).await.is_some());
    for service in [tokens_alone, tokens_and_keys] {
        service.stop().await;
    }

    // Keys that are too old are none.
    let (service, address) = begin(accepting(KeySet { lifetime: Duration::ZERO, ..set }), "old").await;
    let client = service.client().await;
    assert_eq!(tenant(&client, &signer.sign(&claims())).await, None);
    assert!(readyz(address).await.starts_with("HTTP/1.1 503"));
    service.stop().await;
}

/// The age of the keys, in seconds, as the metrics tell it.
async fn age(address: SocketAddr) -> f64 {
    let metrics = get(address, "/metrics").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix("zkinfer_token_keys_age_seconds "));
    line.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_tell_how_old_the_keys_are_and_for_how_long_there_were_none() {
    const AWAY: &str = "HTTP/1.1 503 Away\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let signer = Signer::new("a", Algorithm::ES256);
    let issuer = Issuer::start(AWAY.to_owned()).await;
    let set = KeySet { refresh: AT_ONCE, pause: AT_ONCE, ..issuer.set() };
    let folder = tempfile::tempdir().unwrap();
    let port = HttpPort::bind(any_port(), Exposure::Loopback).unwrap();
    let address = port.address();
    let service = Service::start(Config { http: Some(port), authentication: accepting(set), ..config(folder.path()) }).await;
    until("there were none for a while", async || age(address).await > 0.5).await;
    issuer.answers(keys_of(&[&signer]));
    until("they are fresh", async || age(address).await < 0.5).await;
    issuer.answers(AWAY.to_owned());
    until("they are old", async || age(address).await > 0.5).await;
    let client = service.client().await;
    assert!(tenant(&client, &signer.sign(&claims())).await.is_some(), "they are believed still");
    service.stop().await;
}
