//! The connection.

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use zkinfer_proto::v1::artifact_service_client::ArtifactServiceClient;
use zkinfer_proto::v1::model_service_client::ModelServiceClient;
use zkinfer_proto::v1::proof_service_client::ProofServiceClient;
use zkinfer_proto::v1::system_service_client::SystemServiceClient;
use zkinfer_proto::v1::{GetServerInfoRequest, ServerInfo};

use crate::retry::RetryPolicy;
use crate::status::ClientError;

/// Largest message accepted from the service.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// A text that is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(hidden)")
    }
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Sent with each call; the service may ask for one.
    pub api_key: Option<Secret>,
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
    channel: InterceptedService<Channel, ApiKey>,
    pub(crate) options: ClientOptions,
}

/// Adds the API key to each call.
#[derive(Debug, Clone)]
struct ApiKey(Option<MetadataValue<Ascii>>);

impl Interceptor for ApiKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("authorization", key.clone());
        }
        Ok(request)
    }
}

impl Client {
    /// Connects to `http://HOST:PORT` with default options.
    ///
    /// # Errors
    /// A wrong address, or nobody answers there.
    pub async fn connect(address: &str) -> Result<Self, ClientError> {
        Self::connect_with(address, ClientOptions::default()).await
    }

    /// Connects to `http://HOST:PORT`.
    ///
    /// # Errors
    /// A wrong address or API key, or nobody answers there.
    pub async fn connect_with(address: &str, options: ClientOptions) -> Result<Self, ClientError> {
        let wrong_address = || ClientError::Address { address: address.to_owned() };
        if !address.starts_with("http://") {
            return Err(wrong_address());
        }
        let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|_| wrong_address())?;
        let endpoint = endpoint
            .connect_timeout(options.connect_timeout)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10));
        let key = match &options.api_key {
            None => None,
            Some(Secret(key)) => {
                let mut value: MetadataValue<Ascii> = format!("Bearer {key}").parse().map_err(|_| ClientError::ApiKey)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let unreachable = |source| ClientError::Unreachable { address: address.to_owned(), source };
        let channel = endpoint.connect().await.map_err(unreachable)?;
        Ok(Self { channel: InterceptedService::new(channel, ApiKey(key)), options })
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

/// A fresh request id: the same id with the same request gives the same answer.
pub(crate) fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refuses_addresses_that_it_cannot_speak_to() {
        for address in ["", "localhost:1", "https://localhost:1", "http://", "http:// x"] {
            let error = Client::connect(address).await.unwrap_err();
            assert!(matches!(error, ClientError::Address { .. } | ClientError::Unreachable { .. }), "{address:?}: {error}");
        }
    }

    #[tokio::test]
    async fn says_that_nobody_answers() {
        let error = Client::connect("http://127.0.0.1:1").await.unwrap_err();
        assert!(error.is_unavailable(), "{error}");
    }

    #[test]
    fn api_keys_are_not_printed() {
        let options = ClientOptions { api_key: Some(Secret("abc".into())), ..ClientOptions::default() };
        assert!(!format!("{options:?}").contains("abc"));
    }
}
