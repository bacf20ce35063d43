//! The keys that an issuer publishes at a URL: fetched when the service starts, every few minutes, and at once when a token names a key that is not among
//! them, but that seldom, so that whoever sends nonsense has nobody flooded.
//!
//! An answer that is too late, too long, no key set, a redirection, or that has a secret key in it changes nothing: the keys before it stay, for as long as
//! [`KeySet::lifetime`] after they were fetched, and the log says why.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use url::{Host, Url};

use super::keys::{TokenKeyError, VerifyingKeys};

/// Longest URL.
const MAX_URL_BYTES: usize = 2048;
/// Largest key set.
const MAX_SET_BYTES: usize = 1 << 20;

/// Where an issuer publishes its keys, and how often they are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySet {
    /// Where.
    pub url: KeySetUrl,
    /// After keys were fetched, until they are fetched again.
    pub refresh: Duration,
    /// After a failure, until the next attempt; and what lies at least between an attempt and another one because of a token with an unknown key.
    pub pause: Duration,
    /// Keys are believed for so long after they were fetched.
    pub lifetime: Duration,
    /// An answer must be there within this, to its last byte.
    pub patience: Duration,
}

/// URL of a key set: https, or http of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySetUrl(Url);

/// No URL of a key set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetUrlError {
    /// It cannot be read, or is too long.
    #[error("is not a URL of at most {MAX_URL_BYTES} bytes with a host")]
    Unreadable,
    /// Others on the way could put in keys of their own.
    #[error("must be https (http is taken for 127.0.0.1, [::1] and localhost only)")]
    Scheme,
    /// It is logged.
    #[error("must not hold a user name or a password")]
    Credentials,
}

impl KeySet {
    /// The set at `url`: fetched every five minutes, because of unknown keys at most every 30 seconds, and believed for a day. An answer may
    /// take five seconds.
    ///
    /// # Errors
    /// See [`KeySetUrlError`].
    pub fn at(url: &str) -> Result<Self, KeySetUrlError> {
        let text = url;
        let url = Url::parse(text).ok().filter(|_| text.len() <= MAX_URL_BYTES).ok_or(KeySetUrlError::Unreadable)?;
        let is_here = match url.host().ok_or(KeySetUrlError::Unreadable)? {
            Host::Domain(name) => name == "localhost",
            Host::Ipv4(address) => IpAddr::V4(address).is_loopback(),
            Host::Ipv6(address) => IpAddr::V6(address).is_loopback(),
        };
        match url.scheme() {
            "https" => {}
            "http" if is_here => {}
            _ => return Err(KeySetUrlError::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(KeySetUrlError::Credentials);
        }
        let [refresh, pause, lifetime, patience] = [300, 30, 24 * 3600, 5].map(Duration::from_secs);
        Ok(Self { url: KeySetUrl(url), refresh, pause, lifetime, patience })
    }
}

/// Why there are no keys of a fetch.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    /// No answer, or not in time.
    #[error("the issuer does not answer")]
    Request(#[source] reqwest::Error),
    /// Another answer; redirections are not followed.
    #[error("the issuer answered {0}")]
    Status(u16),
    /// More than is read.
    #[error("the issuer's answer has more than {MAX_SET_BYTES} bytes")]
    TooLong,
    /// Not what it should be.
    #[error("the issuer's answer is no key set that can be used")]
    Keys(#[source] TokenKeyError),
}

/// Keys as they were fetched.
struct Fetched {
    keys: Arc<VerifyingKeys>,
    /// Before the request was made.
    at: Instant,
    /// Tells whether the next answer is the same.
    text: blake3::Hash,
}

/// The keys of an issuer.
pub(super) struct Issuer {
    set: KeySet,
    client: reqwest::Client,
    fetched: ArcSwapOption<Fetched>,
    /// When the service began to need them.
    since: Instant,
    /// When the last attempt was made. Held while one is: others wait for its end.
    attempted: Mutex<Option<Instant>>,
}

impl Issuer {
    /// Fetches nothing yet.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub(super) fn new(set: KeySet) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(set.patience)
            // Another place is not what the operator named.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("zkinfer/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { set, client, fetched: ArcSwapOption::empty(), since: Instant::now(), attempted: Mutex::new(None) })
    }

    /// The keys that are believed at that time.
    pub(super) fn keys(&self, now: Instant) -> Option<Arc<VerifyingKeys>> {
        let fetched = self.fetched.load();
        let fetched = fetched.as_ref()?;
        let age = now.saturating_duration_since(fetched.at);
        (age < self.set.lifetime).then(|| fetched.keys.clone())
    }

    /// How long ago the keys were fetched; if they never were, for how long they have been needed.
    pub(super) fn age(&self, now: Instant) -> Duration {
        let fetched = self.fetched.load().as_ref().map(|fetched| fetched.at);
        now.saturating_duration_since(fetched.unwrap_or(self.since))
    }

    /// Keeps the keys fresh until `closing`.
    pub(super) async fn keep_fresh(&self, closing: CancellationToken) {
        // The first token may have asked for the keys before this began.
        let mut pause = self.set.pause;
        loop {
            let is_fresh = self.attempt(pause).await && self.keys(Instant::now()).is_some();
            pause = Duration::ZERO;
            let wait = if is_fresh { self.set.refresh } else { self.set.pause };
            // Never without a pause, whatever it was set to.
            let wait = wait.max(Duration::from_millis(1));
            if closing.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    /// Fetches the keys because one is unknown, unless there was an attempt a short while ago; an attempt that is being made is waited for.
    pub(super) async fn look_for_unknown(self: &Arc<Self>) {
        if let Ok(attempted) = self.attempted.try_lock()
            && is_recent(*attempted, self.set.pause)
        {
            return;
        }
        let issuer = self.clone();
        // In a task of its own: whoever asked may go away, and others wait for the same answer.
        let attempt = tokio::spawn(async move { issuer.attempt(issuer.set.pause).await });
        if let Err(error) = attempt.await {
            tracing::error!(%error, "the keys of an issuer were not fetched");
        }
    }

    /// Fetches the keys unless an attempt was made within `pause`. Answers whether there is a fresh answer.
    async fn attempt(&self, pause: Duration) -> bool {
        let mut attempted = self.attempted.lock().await;
        if is_recent(*attempted, pause) {
            return true;
        }
        let now = Instant::now();
        *attempted = Some(now);
        match self.fetch(now).await {
            Ok(()) => true,
            Err(error) => {
                let (url, error) = (self.set.url.0.as_str(), &error as &dyn std::error::Error);
                match self.keys(Instant::now()) {
                    Some(_) => tracing::warn!(url, error, "the keys of tokens were not fetched; those before stay in force"),
                    None => tracing::error!(url, error, "the keys of tokens were not fetched, and there are none: every token is refused"),
                }
                false
            }
        }
    }

    async fn fetch(&self, at: Instant) -> Result<(), FetchError> {
        let text = self.get().await?;
        let hash = blake3::hash(&text);
        let before = self.fetched.load_full().filter(|before| before.text == hash);
        let keys = match before {
            Some(before) => before.keys.clone(),
            None => {
                let text = std::str::from_utf8(&text).map_err(|error| FetchError::Keys(TokenKeyError::Form(error.to_string())))?;
                let keys = VerifyingKeys::parse_set(text).map_err(FetchError::Keys)?;
                tracing::info!(url = self.set.url.0.as_str(), n_keys = keys.len(), "the keys of tokens were fetched");
                Arc::new(keys)
            }
        };
        self.fetched.store(Some(Arc::new(Fetched { keys, at, text: hash })));
        Ok(())
    }

    async fn get(&self) -> Result<Vec<u8>, FetchError> {
        // The log has the URL already.
        let failed = |error: reqwest::Error| FetchError::Request(error.without_url());
        let request = self.client.get(self.set.url.0.clone()).header("accept", "application/json, application/jwk-set+json");
        let mut answer = request.send().await.map_err(failed)?;
        if !answer.status().is_success() {
            return Err(FetchError::Status(answer.status().as_u16()));
        }
        let mut text = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(failed)? {
            if text.len() + part.len() > MAX_SET_BYTES {
                return Err(FetchError::TooLong);
            }
            text.extend_from_slice(&part);
        }
        Ok(text)
    }
}

fn is_recent(attempted: Option<Instant>, pause: Duration) -> bool {
    attempted.is_some_and(|at| at.elapsed() < pause)
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Issuer").field("set", &self.set).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_that_nobody_on_the_way_can_change_are_taken() {
        for url in ["https://login.example/keys", "http://127.0.0.1:8080/keys", "http://[::1]/", "http://localhost:1/"] {
            assert!(KeySet::at(url).is_ok(), "{url}");
        }
        for (url, error) in [
            ("http://login.example/keys", KeySetUrlError::Scheme),
            ("http://localhost.login.example/", KeySetUrlError::Scheme),
            ("http://127.0.0.1.example/", KeySetUrlError::Scheme),
            ("ftp://127.0.0.1/", KeySetUrlError::Scheme),
            ("file:///etc/keys", KeySetUrlError::Unreadable),
            ("https://ann:word@login.example/", KeySetUrlError::Credentials),
            ("", KeySetUrlError::Unreadable),
            ("keys.json", KeySetUrlError::Unreadable),
        ] {
            assert_eq!(KeySet::at(url), Err(error), "{url}");
        }
        assert_eq!(KeySet::at(&format!("https://login.example/{}", "a".repeat(MAX_URL_BYTES))), Err(KeySetUrlError::Unreadable));
    }

    #[test]
    fn keys_are_believed_for_their_lifetime_and_no_longer() {
        let issuer = Issuer::new(KeySet::at("http://127.0.0.1:1/").unwrap()).unwrap();
        let at = Instant::now();
        assert!(issuer.keys(at).is_none());
        assert!(issuer.age(at + Duration::from_secs(100)) >= Duration::from_secs(100), "they were never fetched");
        let set = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let keys = Arc::new(VerifyingKeys::parse_set(set).unwrap());
        issuer.fetched.store(Some(Arc::new(Fetched { keys, at, text: blake3::hash(b"") })));
        let day = Duration::from_secs(24 * 3600);
        assert!(issuer.keys(at).is_some() && issuer.keys(at + day - Duration::from_nanos(1)).is_some());
        assert!(issuer.keys(at + day).is_none());
        assert_eq!((issuer.age(at), issuer.age(at + day)), (Duration::ZERO, day));
    }
}
