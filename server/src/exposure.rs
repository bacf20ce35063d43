//! Where a service may listen: beyond loopback only if it is known who calls, and if others cannot read along.

use std::fmt;
use std::net::SocketAddr;

use crate::serve::{Config, ServeError};
use crate::tls::Transport;

/// What a service lacks to listen beyond loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacks {
    /// It would not be known who calls.
    Authentication,
    /// Others on the way could read and change everything.
    Tls,
    /// Both.
    Both,
}

/// With the options of the daemon that mend it.
impl fmt::Display for Lacks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authentication = "authentication (--keys, --jwt-keys, --jwks-url, or --tls-client-ca with --tls-client-map)";
        let tls = "TLS (--tls-cert with --tls-key, or --insecure-plaintext behind a proxy that ends TLS)";
        match self {
            Self::Authentication => formatter.write_str(authentication),
            Self::Tls => formatter.write_str(tls),
            Self::Both => write!(formatter, "{authentication} and without {tls}"),
        }
    }
}

/// Refuses to listen where others could call, or read along, unless that was thought of.
pub(crate) fn check_exposure(address: SocketAddr, config: &Config) -> Result<(), ServeError> {
    if config.authentication.has_certificates() && !config.transport.asks_clients() {
        return Err(ServeError::NoClientCertificates);
    }
    if address.ip().is_loopback() {
        return Ok(());
    }
    let lacks = match (config.authentication.is_none(), matches!(config.transport, Transport::Plaintext)) {
        (true, true) => Lacks::Both,
        (true, false) => Lacks::Authentication,
        (false, true) => Lacks::Tls,
        (false, false) => {
            warn_of_plaintext(address, &config.transport);
            return Ok(());
        }
    };
    Err(ServeError::Unprotected { address, lacks })
}

fn warn_of_plaintext(address: SocketAddr, transport: &Transport) {
    if matches!(transport, Transport::PlaintextBehindProxy) {
        tracing::warn!(%address, "keys and data are not encrypted on the way to this port: let nothing but the TLS proxy reach it");
    }
}
