//! The connection of a worker to its service. The PEM files of its TLS are looked at again and again: once they have changed, calls go over a new
//! connection, and those that are under way end on the one that they began on. Files that are wrong change nothing, and the log names them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};
use zkinfer_proto::v1::worker_service_client::WorkerServiceClient;

use crate::reload::Reloaded;
use crate::tls::{self, TlsError};

/// A connection is there within this.
const CONNECT: Duration = Duration::from_secs(5);
/// Pings that find out whether the service is there.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Largest message that is accepted.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// How often the files are looked at, as the service does.
const RELOAD: Duration = Duration::from_secs(5);

/// PEM files of a worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemoteFiles {
    /// Authorities, one of which signed the service's certificate.
    pub authorities: Option<PathBuf>,
    /// The worker's certificate with those between it and its authority, and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl RemoteFiles {
    fn paths(&self) -> Vec<PathBuf> {
        let identity = self.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        self.authorities.iter().chain(identity).cloned().collect()
    }
}

/// A service that has tasks, and what it is shown.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// `http://HOST:PORT` or `https://HOST:PORT` of the listener for workers.
    pub server: String,
    /// What TLS is made of; not read for `http://`.
    pub files: RemoteFiles,
    /// How often the files are looked at, whether they have changed.
    pub reload: Duration,
    /// What the service gave to workers that it started itself.
    pub token: Option<SecretString>,
}

impl RemoteOptions {
    /// The service there, shown nothing; files are looked at every five seconds.
    pub fn new(server: impl Into<String>) -> Self {
        Self { server: server.into(), files: RemoteFiles::default(), reload: RELOAD, token: None }
    }
}

/// Why a service cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The address.
    #[error("{server} is no address such as https://host:50062, or TLS cannot be set up for it")]
    Address {
        /// What was given.
        server: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The files.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Nobody would be believed.
    #[error("{0} is reached over TLS: name the file of the authorities that signed its certificate (--tls-ca)")]
    NoAuthorities(String),
    /// A token with characters that a header cannot hold.
    #[error("the token has characters that are not visible ASCII")]
    Token,
}

/// Adds the token to each call.
#[derive(Clone)]
pub(super) struct Token(Option<MetadataValue<Ascii>>);

impl Token {
    fn new(token: Option<&SecretString>) -> Result<Self, RemoteError> {
        let header = |token: &SecretString| {
            let text = zeroize::Zeroizing::new(format!("Bearer {}", token.expose_secret()));
            text.parse::<MetadataValue<Ascii>>().map_err(|_| RemoteError::Token)
        };
        let mut token = token.map(header).transpose()?;
        if let Some(token) = &mut token {
            token.set_sensitive(true);
        }
        Ok(Self(token))
    }
}

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

pub(super) type Client = WorkerServiceClient<InterceptedService<Channel, Token>>;

/// How connections to a service are made.
pub(super) struct Link {
    endpoint: Reloaded<Endpoint>,
    token: Token,
    has_files: bool,
}

impl Link {
    /// Reads the files.
    ///
    /// # Errors
    /// An address or files that make no sense.
    pub(super) fn open(options: &RemoteOptions) -> Result<Self, RemoteError> {
        let token = Token::new(options.token.as_ref())?;
        let (server, files) = (options.server.clone(), options.files.clone());
        let paths = if is_tls(&server) { files.paths() } else { Vec::new() };
        let has_files = !paths.is_empty();
        let endpoint = Reloaded::open("TLS certificates of this worker", paths, move || endpoint(&server, &files))?;
        Ok(Self { endpoint, token, has_files })
    }

    /// How a connection is made now. Another value than before: the files have changed.
    pub(super) fn endpoint(&self) -> Arc<Endpoint> {
        self.endpoint.get()
    }

    /// Connects when it is first used, on the runtime that this is called on.
    pub(super) fn connect(&self, endpoint: &Endpoint) -> Client {
        WorkerServiceClient::with_interceptor(endpoint.connect_lazy(), self.token.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Reads the files again if they have changed. Blocks while it reads.
    pub(super) fn reload_changed(&self) {
        self.endpoint.reload_changed();
    }

    /// Looks at the files until nobody has the link any more.
    pub(super) fn keep_reloaded(self: &Arc<Self>, every: Duration) {
        if !self.has_files {
            return;
        }
        let link = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(link) = link.upgrade() else { return };
                if let Err(error) = tokio::task::spawn_blocking(move || link.reload_changed()).await {
                    tracing::error!(%error, "changed files were not read");
                }
            }
        });
    }
}

fn is_tls(server: &str) -> bool {
    server.starts_with("https://")
}

fn endpoint(server: &str, files: &RemoteFiles) -> Result<Endpoint, RemoteError> {
    let wrong = |source| RemoteError::Address { server: server.to_owned(), source };
    let endpoint = Endpoint::from_shared(server.to_owned())
        .map_err(wrong)?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true);
    if !is_tls(server) {
        return Ok(endpoint);
    }
    if files.authorities.is_none() {
        return Err(RemoteError::NoAuthorities(server.to_owned()));
    }
    endpoint.tls_config(client_tls(files)?).map_err(wrong)
}

/// What the worker shows and whom it believes. All is looked at here, so that what is wrong is told with its file.
fn client_tls(files: &RemoteFiles) -> Result<ClientTlsConfig, TlsError> {
    let mut config = ClientTlsConfig::new();
    if let Some(path) = &files.authorities {
        let pem = tls::read(path)?;
        tls::authorities(path, &pem)?;
        config = config.ca_certificate(Certificate::from_pem(&*pem));
    }
    if let Some((certificate, key)) = &files.identity {
        config = config.identity(identity(certificate, key)?);
    }
    Ok(config)
}

fn identity(certificate: &Path, key: &Path) -> Result<Identity, TlsError> {
    let (chain_pem, key_pem) = (tls::read(certificate)?, tls::read(key)?);
    let chain = tls::certificates(certificate, &chain_pem)?;
    let private = tls::private_key(key, &key_pem)?;
    let pair = |source| TlsError::Pair { certificate: certificate.into(), key: key.into(), source };
    rustls::sign::CertifiedKey::from_der(chain, private, &rustls::crypto::aws_lc_rs::default_provider()).map_err(pair)?;
    Ok(Identity::from_pem(&*chain_pem, &*key_pem))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// A certificate and its key, as PEM.
    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn who_would_believe_nobody_is_told_so_at_the_start() {
        let error = Link::open(&RemoteOptions::new("https://localhost:1")).err().unwrap();
        assert!(error.to_string().contains("--tls-ca"), "{error}");
        assert!(Link::open(&RemoteOptions::new("http://localhost:1")).is_ok());
    }

    #[test]
    fn changed_files_make_another_connection_and_broken_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let put = |name: &str, text: &str| {
            std::fs::write(path("partial"), text).unwrap();
            std::fs::rename(path("partial"), path(name)).unwrap();
        };
        let (first, second) = (pair(), pair());
        let files = RemoteFiles { authorities: Some(path("ca.pem")), identity: Some((path("worker.pem"), path("worker-key.pem"))) };
        let options = RemoteOptions { files, ..RemoteOptions::new("https://localhost:1") };
        let error = Link::open(&options).err().unwrap();
        assert!(error.to_string().contains("ca.pem"), "{error}");
        for (name, text) in [("ca.pem", &first.0), ("worker.pem", &first.0), ("worker-key.pem", &first.1)] {
            put(name, text);
        }
        let link = Link::open(&options).unwrap();
        let before = link.endpoint();
        for (name, text, right) in [
            ("ca.pem", "no certificate", &first.0),
            ("worker.pem", second.0.as_str(), &first.0),
            ("worker.pem", "", &first.0),
            ("worker-key.pem", "no key", &first.1),
        ] {
            put(name, text);
            link.reload_changed();
            assert!(Arc::ptr_eq(&link.endpoint(), &before), "{name}: {text}");
            let error = client_tls(&options.files).unwrap_err();
            assert!(error.to_string().contains(name), "the file is named: {error}");
            put(name, right);
        }
        put("worker.pem", &second.0);
        put("worker-key.pem", &second.1);
        link.reload_changed();
        assert!(!Arc::ptr_eq(&link.endpoint(), &before));
    }

    #[test]
    fn the_options_do_not_print_the_token() {
        let options = RemoteOptions { token: Some("a secret of workers".to_owned().into()), ..RemoteOptions::new("http://localhost:1") };
        assert!(!format!("{options:?}").contains("a secret of workers"));
        let wrong = RemoteOptions { token: Some("line\nend".to_owned().into()), ..options };
        assert!(matches!(Link::open(&wrong), Err(RemoteError::Token)));
    }
}
