//! The listener for workers: apart from the public one, because who speaks there reads inputs and weights of all tenants.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;
use tonic::metadata::MetadataMap;

use crate::tls::Transport;

const BEARER: &[u8] = b"Bearer ";

/// Where workers connect, and what they must show.
#[derive(Debug, Clone)]
pub struct WorkerListener {
    /// Bound already.
    pub socket: Arc<std::net::TcpListener>,
    /// How bytes travel.
    pub transport: Transport,
    /// What workers must show beside a certificate, if that is asked for.
    pub token: Option<WorkerToken>,
    /// Who connects are children of this server, and end with it: their end is then no fault of what they did.
    pub is_own: bool,
}

/// A secret that workers show. Not printed.
#[derive(Clone)]
pub struct WorkerToken(Arc<SecretString>);

impl fmt::Debug for WorkerToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("WorkerToken")
    }
}

impl WorkerToken {
    /// A token that an operator gives.
    pub fn new(token: SecretString) -> Self {
        Self(Arc::new(token))
    }

    /// A random one, for workers that the service starts itself.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = zeroize::Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Self::new(hex::encode(*bytes).into()))
    }

    /// For the worker.
    pub fn secret(&self) -> &SecretString {
        &self.0
    }

    /// Whether a call shows the token, once.
    pub(crate) fn is_shown(&self, metadata: &MetadataMap) -> bool {
        let mut shown = metadata.get_all("authorization").iter();
        let (Some(value), None) = (shown.next(), shown.next()) else { return false };
        let Some(shown) = value.as_bytes().strip_prefix(BEARER) else { return false };
        shown.ct_eq(self.0.expose_secret().as_bytes()).into()
    }
}

/// Why workers cannot be listened for there.
#[derive(Debug, thiserror::Error)]
pub enum WorkerListenerError {
    /// Anybody on the network could act as a worker.
    #[error(
        "refusing to listen for workers on {address}, which is not a loopback address, without client certificates (--worker-tls-client-ca)"
    )]
    Exposed {
        /// Where.
        address: SocketAddr,
    },
    /// Anybody on this machine could, though the API asks who calls.
    #[error(
        "refusing to listen for workers on {address} without client certificates (--worker-tls-client-ca) or a token (ZKINFER_WORKER_TOKEN), since the \
         API is not open either"
    )]
    Open {
        /// Where.
        address: SocketAddr,
    },
    /// The socket.
    #[error("the socket for workers cannot be used")]
    Socket(#[from] std::io::Error),
}

impl WorkerListener {
    /// Refuses what would let in others than workers. `is_api_open`: the API asks nobody who calls.
    pub(crate) fn check(&self, is_api_open: bool) -> Result<(), WorkerListenerError> {
        let address = self.socket.local_addr()?;
        let has_certificates = self.transport.requires_clients();
        if !address.ip().is_loopback() && !has_certificates {
            return Err(WorkerListenerError::Exposed { address });
        }
        if !has_certificates && self.token.is_none() && !is_api_open {
            return Err(WorkerListenerError::Open { address });
        }
        Ok(())
    }

    /// The socket, for the runtime that this is called on.
    pub(crate) fn listen(&self) -> std::io::Result<tokio::net::TcpListener> {
        let socket = self.socket.try_clone()?;
        socket.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str, token: Option<WorkerToken>) -> WorkerListener {
        let socket = Arc::new(std::net::TcpListener::bind(address).unwrap());
        WorkerListener { socket, transport: Transport::Plaintext, token, is_own: false }
    }

    #[test]
    fn who_is_not_let_in_by_the_api_is_not_by_this_either() {
        let token = WorkerToken::random().unwrap();
        assert!(listener("127.0.0.1:0", None).check(true).is_ok());
        assert!(listener("127.0.0.1:0", Some(token.clone())).check(false).is_ok());
        assert!(matches!(listener("127.0.0.1:0", None).check(false), Err(WorkerListenerError::Open { .. })));
        assert!(matches!(listener("0.0.0.0:0", Some(token)).check(true), Err(WorkerListenerError::Exposed { .. })));
    }

    #[test]
    fn the_token_is_shown_once_and_never_printed() {
        let token = WorkerToken::random().unwrap();
        let shown = |values: &[String]| {
            let mut metadata = MetadataMap::new();
            values.iter().for_each(|value| {
                metadata.append("authorization", value.parse().unwrap());
            });
            token.is_shown(&metadata)
        };
        let right = format!("Bearer {}", token.secret().expose_secret());
        assert!(shown(std::slice::from_ref(&right)));
        for wrong in [vec![], vec![right[..20].to_owned()], vec![right.clone(), right.clone()], vec![right.replace("Bearer ", "")]] {
            assert!(!shown(&wrong));
        }
        assert!(!format!("{token:?}").contains(token.secret().expose_secret()));
    }
}
