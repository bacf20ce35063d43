//! Who may ask: operators.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::failure::Failure;
use super::{Dashboard, Shared};
use crate::auth::{Presented, Scope};

/// Lets operators through.
pub(super) async fn admit(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    if let Err(failure) = check(&shared.0.dashboard, request.headers()).await {
        return failure.into_response();
    }
    // No handler, and nothing that a handler may log, sees the key.
    request.headers_mut().remove(header::AUTHORIZATION);
    next.run(request).await
}

async fn check(dashboard: &Dashboard, headers: &HeaderMap) -> Result<(), Failure> {
    if dashboard.authentication.is_none() {
        return match (dashboard.is_loopback, is_for_this_machine(headers)) {
            (false, _) => Err(Failure::Exposed),
            (true, false) => Err(Failure::ForeignHost),
            (true, true) => Ok(()),
        };
    }
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let presented = match (values.next(), values.next()) {
        (None, _) => Presented::Nothing,
        (Some(value), None) => Presented::Header(value.as_bytes()),
        (Some(_), Some(_)) => Presented::Several,
    };
    // The port has no TLS, so that there is no certificate.
    match dashboard.authentication.authenticate(presented, None).await {
        Some(principal) if principal.scopes.contains(Scope::Admin) => Ok(()),
        Some(_) | None => Err(Failure::NoOperator),
    }
}

/// Whether the address bar names this machine. Another site's name may be made to point here, and its scripts would then read the answers.
fn is_for_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_its_own() {
        let is_own = |host: &str| is_for_this_machine(&HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]));
        for host in ["localhost", "localhost:9090", "127.0.0.1:1", "[::1]:80", "[::1]"] {
            assert!(is_own(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:80", "127.0.0.1.evil.example", "127.0.0.2", "", ":80", "localhost:x"] {
            assert!(!is_own(host), "{host}");
        }
        assert!(!is_for_this_machine(&HeaderMap::new()));
    }
}
