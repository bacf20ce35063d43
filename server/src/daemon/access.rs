//! Arguments about who may call and how bytes travel, and what `serve` makes of them.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use zkinfer_server::auth::{Authentication, KeySet, TokenClaims};
use zkinfer_server::tls::{ClientCertificates, Tls, TlsFiles, Transport};

/// Beyond loopback, authentication and TLS are needed.
#[derive(Debug, Args)]
pub(super) struct AccessArguments {
    /// API keys: the file that `keys create` makes.
    #[arg(long, env = "ZKINFER_KEYS", value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Signed tokens (JWT): public keys that they verify with, as JWKS or PEM.
    #[arg(long, env = "ZKINFER_JWT_KEYS", value_name = "FILE", group = "token_keys", requires_all = ["jwt_issuer", "jwt_audience"])]
    jwt_keys: Option<PathBuf>,
    /// Signed tokens (JWT): where their issuer publishes its public keys (JWKS); https, or http of this machine. Fetched every five minutes.
    #[arg(long, env = "ZKINFER_JWKS_URL", value_name = "URL", group = "token_keys", requires_all = ["jwt_issuer", "jwt_audience"],
        value_parser = KeySet::at)]
    jwks_url: Option<KeySet>,
    /// Who must have issued a token (claim `iss`).
    #[arg(long, env = "ZKINFER_JWT_ISSUER", requires = "token_keys")]
    jwt_issuer: Option<String>,
    /// Whom a token must be meant for (claim `aud`).
    #[arg(long, env = "ZKINFER_JWT_AUDIENCE", requires = "token_keys")]
    jwt_audience: Option<String>,
    /// Claim that is the tenant.
    #[arg(long, env = "ZKINFER_JWT_TENANT_CLAIM", value_name = "CLAIM", default_value = "tenant")]
    jwt_tenant_claim: String,
    /// Claim that lists the scopes: a text with spaces between them, or an array.
    #[arg(long, env = "ZKINFER_JWT_SCOPE_CLAIM", value_name = "CLAIM", default_value = "scope")]
    jwt_scope_claim: String,
    /// TLS: the service's certificate as PEM, with those between it and its authority.
    #[arg(long, env = "ZKINFER_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// TLS: the private key of the certificate, as PEM.
    #[arg(long, env = "ZKINFER_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Client certificates (mTLS): only clients whose certificate one of these authorities signed can connect; PEM.
    #[arg(long, env = "ZKINFER_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Clients without a certificate can connect too: they need a key or a token.
    #[arg(long, env = "ZKINFER_TLS_CLIENT_OPTIONAL", requires = "tls_client_ca")]
    tls_client_optional: bool,
    /// Client certificates as credentials: which tenant each acts for, a line `PRINCIPAL TENANT [scopes=LIST]` each; the principal is the
    /// SPIFFE ID, or without one the common name.
    #[arg(long, env = "ZKINFER_TLS_CLIENT_MAP", value_name = "FILE", requires = "tls_client_ca")]
    tls_client_map: Option<PathBuf>,
    /// Listens beyond loopback without TLS: only where a proxy ends TLS and nothing else reaches the port.
    #[arg(long, env = "ZKINFER_INSECURE_PLAINTEXT", conflicts_with = "tls_cert")]
    insecure_plaintext: bool,
}

/// How the listener of workers is protected.
#[derive(Debug, Args)]
pub(super) struct WorkerTlsArguments {
    /// Only workers whose certificate one of these authorities signed can connect; PEM. Not the authority of clients.
    #[arg(long, env = "ZKINFER_WORKER_TLS_CLIENT_CA", value_name = "FILE", requires = "worker_listen")]
    worker_tls_client_ca: Option<PathBuf>,
    /// The certificate of the listener of workers, as PEM; default: that of --tls-cert.
    #[arg(long, env = "ZKINFER_WORKER_TLS_CERT", value_name = "FILE", requires_all = ["worker_tls_key", "worker_tls_client_ca"])]
    worker_tls_cert: Option<PathBuf>,
    /// Its private key, as PEM.
    #[arg(long, env = "ZKINFER_WORKER_TLS_KEY", value_name = "FILE", requires = "worker_tls_cert")]
    worker_tls_key: Option<PathBuf>,
}

impl AccessArguments {
    /// Reads the files that say who is who.
    pub(super) fn authentication(&self) -> anyhow::Result<Authentication> {
        let mut authentication = Authentication::none();
        if let Some(file) = &self.keys {
            authentication = authentication.with_keys(file)?;
        }
        if let (Some(issuer), Some(audience)) = (&self.jwt_issuer, &self.jwt_audience) {
            let (tenant_claim, scope_claim) = (self.jwt_tenant_claim.clone(), self.jwt_scope_claim.clone());
            let claims = TokenClaims { tenant_claim, scope_claim, ..TokenClaims::new(issuer, audience) };
            if let Some(file) = &self.jwt_keys {
                authentication = authentication.with_tokens(file, claims)?;
            } else if let Some(set) = &self.jwks_url {
                authentication = authentication.with_key_set(set.clone(), claims).context("TLS cannot be set up for --jwks-url")?;
            }
        }
        if let Some(file) = &self.tls_client_map {
            authentication = authentication.with_certificates(file)?;
        }
        Ok(authentication)
    }

    /// Reads the certificates.
    pub(super) fn transport(&self) -> anyhow::Result<Transport> {
        let (Some(certificate), Some(key)) = (self.tls_cert.clone(), self.tls_key.clone()) else {
            return Ok(if self.insecure_plaintext { Transport::PlaintextBehindProxy } else { Transport::Plaintext });
        };
        let clients = match self.tls_client_ca.clone() {
            None => ClientCertificates::None,
            Some(authority) if self.tls_client_optional => ClientCertificates::Optional(authority),
            Some(authority) => ClientCertificates::Required(authority),
        };
        Ok(Transport::Tls(Arc::new(Tls::open(TlsFiles { certificate, key, clients })?)))
    }

    /// For the listener of workers: its certificate, or else the service's, and the authority of theirs.
    pub(super) fn worker_transport(&self, of_workers: &WorkerTlsArguments) -> anyhow::Result<Transport> {
        let Some(authority) = of_workers.worker_tls_client_ca.as_deref() else { return Ok(Transport::Plaintext) };
        let certificate = of_workers.worker_tls_cert.clone().or_else(|| self.tls_cert.clone());
        let key = of_workers.worker_tls_key.clone().or_else(|| self.tls_key.clone());
        let (Some(certificate), Some(key)) = (certificate, key) else {
            anyhow::bail!(
                "--worker-tls-client-ca needs a certificate of the service (--worker-tls-cert with --worker-tls-key, or --tls-cert with --tls-key)"
            );
        };
        let is_same = |clients: &PathBuf| std::fs::canonicalize(clients).ok() == std::fs::canonicalize(authority).ok();
        if self.tls_client_ca.as_ref().is_some_and(is_same) {
            anyhow::bail!(
                "--worker-tls-client-ca is the authority of clients (--tls-client-ca): any client could act as a worker; sign workers' certificates by another"
            );
        }
        let clients = ClientCertificates::Required(authority.to_owned());
        Ok(Transport::Tls(Arc::new(Tls::open(TlsFiles { certificate, key, clients })?)))
    }
}
