//! The connection.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};
use zeroize::Zeroizing;
use zkinfer_proto::v1::artifact_service_client::ArtifactServiceClient;
use zkinfer_proto::v1::model_service_client::ModelServiceClient;
use zkinfer_proto::v1::proof_service_client::ProofServiceClient;
use zkinfer_proto::v1::system_service_client::SystemServiceClient;
use zkinfer_proto::v1::{GetServerInfoRequest, ServerInfo};

use crate::retry::RetryPolicy;
use crate::status::ClientError;
use crate::trace::trace_parent;

/// Largest message accepted from the service.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// A text that is not printed, and wiped from memory when it is no longer needed.
#[derive(Debug, Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into().into())
    }

    fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// A client certificate and its private key, as PEM.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// The certificate, then those between it and the authority.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Secret,
}

/// What a client believes of a service at an `https://` address, and shows of itself.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// Authorities, as PEM, one of which must have signed the service's certificate. Without them: those that this system trusts.
    pub authorities: Option<Vec<u8>>,
    /// Shown to a service that asks for it.
    pub certificate: Option<ClientCertificate>,
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// An API key or a signed token, sent with each call; the service may ask for one.
    pub api_key: Option<Secret>,
    /// For `https://` addresses.
    pub tls: TlsOptions,
    /// To open a connection.
    pub connect_timeout: Duration,
    /// Until the first byte of an answer.
    pub call_timeout: Duration,
    /// A watched stream that is silent for so long is opened anew. The service sends a sign of life every 15 seconds.
    pub silence: Duration,
    /// Repetitions.
    pub retry: RetryPolicy,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            api_key: None,
            tls: TlsOptions::default(),
            connect_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(75),
            silence: Duration::from_secs(45),
            retry: RetryPolicy::default(),
        }
    }
}

/// A connection to a service; cheap to clone, and it reconnects by itself.
#[derive(Debug, Clone)]
pub struct Client {
    channel: InterceptedService<Channel, Headers>,
    pub(crate) options: ClientOptions,
}

/// Adds to each call the trace that it belongs to, and the API key, whose value says of itself that it is not to be printed.
#[derive(Debug, Clone)]
struct Headers {
    key: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(trace_parent) = trace_parent() {
            request.metadata_mut().insert("traceparent", trace_parent);
        }
        if let Some(key) = &self.key {
            request.metadata_mut().insert("authorization", key.clone());
        }
        Ok(request)
    }
}

impl Client {
    /// Connects to `http://HOST:PORT` or `https://HOST:PORT` with default options.
    ///
    /// # Errors
    /// A wrong address, or nobody answers there.
    pub async fn connect(address: &str) -> Result<Self, ClientError> {
        Self::connect_with(address, ClientOptions::default()).await
    }

    /// Connects to `http://HOST:PORT` or `https://HOST:PORT`.
    ///
    /// # Errors
    /// A wrong address, API key or certificate, or nobody answers there who can be believed.
    pub async fn connect_with(address: &str, options: ClientOptions) -> Result<Self, ClientError> {
        let endpoint = endpoint(address, &options.tls)?
            .connect_timeout(options.connect_timeout)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10));
        let key = match &options.api_key {
            None => None,
            Some(key) => {
                let header = Zeroizing::new(format!("Bearer {}", key.expose()));
                let mut value: MetadataValue<Ascii> = header.parse().map_err(|_| ClientError::ApiKey)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let unreachable = |source| ClientError::Unreachable { address: address.to_owned(), source };
        let channel = endpoint.connect().await.map_err(unreachable)?;
        Ok(Self { channel: InterceptedService::new(channel, Headers { key }), options })
    }

    pub(crate) fn artifact_service(&self) -> ArtifactServiceClient<InterceptedService<Channel, impl Interceptor + Clone>> {
        ArtifactServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn model_service(&self) -> ModelServiceClient<InterceptedService<Channel, impl Interceptor + Clone>> {
        ModelServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn proof_service(&self) -> ProofServiceClient<InterceptedService<Channel, impl Interceptor + Clone>> {
        ProofServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Facts about the service.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn server_info(&self) -> Result<ServerInfo, ClientError> {
        self.repeat(async || {
            let mut service = SystemServiceClient::new(self.channel.clone());
            Ok(service.get_server_info(self.request(GetServerInfoRequest {})).await?.into_inner())
        })
        .await
    }

    /// A unary request with its deadline.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.options.call_timeout);
        request
    }

    /// For calls that may be repeated.
    pub(crate) async fn repeat<T>(&self, call: impl AsyncFnMut() -> Result<T, ClientError>) -> Result<T, ClientError> {
        self.options.retry.run(call).await
    }
}

fn endpoint(address: &str, tls: &TlsOptions) -> Result<Endpoint, ClientError> {
    let wrong_address = || ClientError::Address { address: address.to_owned() };
    let is_encrypted = address.starts_with("https://");
    if !is_encrypted && !address.starts_with("http://") {
        return Err(wrong_address());
    }
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|_| wrong_address())?;
    if !is_encrypted {
        // Whoever gives certificates expects them to protect something.
        let is_asked = tls.authorities.is_some() || tls.certificate.is_some();
        return if is_asked { Err(ClientError::Plaintext { address: address.to_owned() }) } else { Ok(endpoint) };
    }
    let config = match &tls.authorities {
        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    let identity = |own: &ClientCertificate| Identity::from_pem(&own.certificate, own.key.expose());
    let config = tls.certificate.iter().map(identity).fold(config, ClientTlsConfig::identity);
    endpoint.tls_config(config).map_err(|source| ClientError::Certificates { source })
}

/// A fresh request id: the same id with the same request gives the same answer.
pub(crate) fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refuses_addresses_that_it_cannot_speak_to() {
        for address in ["", "localhost:1", "ftp://localhost:1", "http://", "http:// x", "https://", "https:// x"] {
            let error = Client::connect(address).await.unwrap_err();
            assert!(matches!(error, ClientError::Address { .. } | ClientError::Unreachable { .. }), "{address:?}: {error}");
        }
    }

    #[tokio::test]
    async fn says_that_nobody_answers() {
        let error = Client::connect("http://127.0.0.1:1").await.unwrap_err();
        assert!(error.is_unavailable(), "{error}");
    }

    #[tokio::test]
    async fn refuses_certificates_that_protect_nothing_or_cannot_be_read() {
        let tls = TlsOptions { authorities: Some(b"none".to_vec()), certificate: None };
        let with = |tls| ClientOptions { tls, ..ClientOptions::default() };
        let error = Client::connect_with("http://127.0.0.1:1", with(tls)).await.unwrap_err();
        assert!(matches!(error, ClientError::Plaintext { .. }), "{error}");
        let certificate = ClientCertificate { certificate: b"none".to_vec(), key: Secret::new("none") };
        let tls = TlsOptions { authorities: None, certificate: Some(certificate) };
        let error = Client::connect_with("https://127.0.0.1:1", with(tls)).await.unwrap_err();
        assert!(matches!(error, ClientError::Certificates { .. }), "{error}");
    }

    #[test]
    fn api_keys_are_not_printed() {
        let certificate = ClientCertificate { certificate: Vec::new(), key: Secret::new("abcd") };
        let tls = TlsOptions { authorities: None, certificate: Some(certificate) };
        let options = ClientOptions { api_key: Some(Secret::new("abc")), tls, ..ClientOptions::default() };
        assert!(!format!("{options:?}").contains("abc"));
    }
}
