//! TLS of the listener: the certificate, and which clients' certificates are accepted. The files are read again when they change; open
//! connections keep what they began with, and files that are wrong change nothing.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ServerConfig, VerifierBuilderError, WebPkiClientVerifier};
use zeroize::Zeroizing;

use crate::reload::Reloaded;

/// HTTP/2, the only protocol that gRPC speaks.
const PROTOCOL: &[u8] = b"h2";
/// What is read of a PEM file, at most.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// What a PEM file has, mostly.
const USUAL_FILE_BYTES: usize = 64 << 10;

/// How bytes travel.
#[derive(Debug, Clone)]
pub enum Transport {
    /// Not encrypted; on loopback addresses only.
    Plaintext,
    /// Not encrypted, on any address: between the clients and this port something else ends TLS.
    PlaintextBehindProxy,
    /// Encrypted.
    Tls(Arc<Tls>),
}

impl Transport {
    /// Whether clients are asked for certificates.
    pub fn asks_clients(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.asks_clients)
    }

    /// Whether clients without a certificate cannot connect.
    pub fn requires_clients(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.requires_clients)
    }

    /// Reads the files again that have changed. Files that are wrong now change nothing, and the log says why.
    pub fn reload_changed(&self) {
        if let Self::Tls(tls) = self {
            tls.config.reload_changed();
        }
    }
}

/// What clients must show of themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Nothing.
    None,
    /// A certificate that an authority of this PEM file signed, or no certificate.
    Optional(PathBuf),
    /// A certificate that an authority of this PEM file signed; without it there is no connection.
    Required(PathBuf),
}

impl ClientCertificates {
    fn authority(&self) -> Option<&Path> {
        match self {
            Self::None => None,
            Self::Optional(path) | Self::Required(path) => Some(path),
        }
    }
}

/// The PEM files of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The service's certificate, then those between it and the authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Whose client certificates are accepted.
    pub clients: ClientCertificates,
}

/// Why files do not make TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// There is no certificate in it.
    #[error("{path} holds no certificate")]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// Certificate and key do not make a server.
    #[error("{certificate} and {key} cannot be used together")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// A certificate is none that could sign others.
    #[error("{path} holds a certificate that is no authority's")]
    Authority {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The authorities do not make a check of clients.
    #[error("clients cannot be checked with {path}")]
    Verifier {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: VerifierBuilderError,
    },
    /// The library lacks a protocol version.
    #[error("TLS 1.2 and 1.3 cannot be set up")]
    Versions(#[source] rustls::Error),
}

/// TLS of a listener.
#[derive(Debug)]
pub struct Tls {
    config: Reloaded<Arc<ServerConfig>>,
    asks_clients: bool,
    requires_clients: bool,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// One cannot be read, or they do not belong together.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let mut paths = vec![files.certificate.clone(), files.key.clone()];
        paths.extend(files.clients.authority().map(Path::to_owned));
        let asks_clients = files.clients != ClientCertificates::None;
        let requires_clients = matches!(files.clients, ClientCertificates::Required(_));
        let config = Reloaded::open("TLS certificates", paths, move || server_config(&files).map(Arc::new))?;
        Ok(Self { config, asks_clients, requires_clients })
    }

    /// For a new connection.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.get())
    }
}

fn server_config(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(TlsError::Versions)?;
    let builder = match client_verifier(&files.clients, provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let chain = certificates(&files.certificate, &read(&files.certificate)?)?;
    let key = private_key(&files.key, &read(&files.key)?)?;
    let pair = |source| TlsError::Pair { certificate: files.certificate.clone(), key: files.key.clone(), source };
    let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    if files.clients != ClientCertificates::None {
        // A resumed session would take the client's certificate from the one before, and not look again whether it is still valid.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

fn client_verifier(clients: &ClientCertificates, provider: Arc<CryptoProvider>) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let Some(path) = clients.authority() else { return Ok(None) };
    let roots = authorities(path, &read(path)?)?;
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match clients {
        ClientCertificates::Optional(_) => builder.allow_unauthenticated(),
        ClientCertificates::None | ClientCertificates::Required(_) => builder,
    };
    builder.build().map(Some).map_err(|source| TlsError::Verifier { path: path.into(), source })
}

/// The bytes of a PEM file, which are erased when they are dropped: it may hold a private key.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let failed = |source| TlsError::Read { path: path.into(), source: pem::Error::Io(source) };
    let file = std::fs::File::open(path).map_err(failed)?;
    // Room for usual files from the start: what a growing buffer leaves behind is not erased.
    let mut bytes = Zeroizing::new(Vec::with_capacity(USUAL_FILE_BYTES));
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// The certificates of the PEM file `path`, at least one.
pub(crate) fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = |source| TlsError::Read { path: path.into(), source };
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(read)?;
    if certificates.is_empty() { Err(TlsError::NoCertificate { path: path.into() }) } else { Ok(certificates) }
}

/// The authorities of the PEM file `path`.
pub(crate) fn authorities(path: &Path, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots.add(certificate).map_err(|source| TlsError::Authority { path: path.into(), source })?;
    }
    Ok(roots)
}

/// The private key of the PEM file `path`.
pub(crate) fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|source| TlsError::Read { path: path.into(), source })
}
