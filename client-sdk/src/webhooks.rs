//! Webhooks: URLs that the service calls when a job ends, and how their owner tells that a call is the service's.
//!
//! Calls are signed by the Standard Webhooks specification, version 1: HMAC-SHA-256 of `{id}.{timestamp}.{body}`.

use std::str::FromStr as _;
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_types::Timestamp;
use serde::Deserialize;
use zkinfer_proto::v1::job::State;
use zkinfer_proto::v1::webhook_service_client::WebhookServiceClient;
use zkinfer_proto::v1::{self, Webhook};

use crate::client::Client;
use crate::status::ClientError;

/// So far may the clocks of the service and of the receiver be apart, the way of the call included.
pub const WEBHOOK_TOLERANCE: Duration = Duration::from_secs(300);

/// A call as it came, not to be believed yet.
#[derive(Debug, Clone, Copy)]
pub struct WebhookCall<'a> {
    /// The header `webhook-id`.
    pub id: &'a str,
    /// The header `webhook-timestamp`.
    pub timestamp: &'a str,
    /// The header `webhook-signature`.
    pub signature: &'a str,
    /// The bytes as they came: a body that was parsed and written again has another signature.
    pub body: &'a [u8],
}

/// What a call says: a job has ended. Of a newer service's other events only `id`, `kind` and `time` are told.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookEvent {
    /// The same for every try: whoever has seen it is done.
    pub id: String,
    /// `job.ended`.
    pub kind: String,
    /// When the job ended.
    pub time: Option<Timestamp>,
    /// Its full name, `tenants/{tenant}/jobs/{uuid}`.
    pub job: String,
    /// Its final state.
    pub state: State,
    /// Full name of its batch; empty if it came with none.
    pub batch: String,
    /// Why it ended without success; empty if it succeeded.
    pub reason: String,
    /// Name of the proof's artifact, if it succeeded.
    pub proof_artifact: String,
    /// Name of the statement's artifact, if it succeeded.
    pub statement_artifact: String,
}

/// A call, or a secret, that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// Not the secret of a webhook.
    #[error("the secret of a webhook has the form whsec_BASE64, as the service told it when the webhook was made")]
    Secret,
    /// Somebody else's call, or another body.
    #[error("the signature is not one of this webhook's secret over this call")]
    Signature,
    /// An old call that is shown again, or clocks that differ.
    #[error("the call was signed {apart:?} from now, of which {tolerance:?} are accepted")]
    NotFresh {
        /// How far.
        apart: Duration,
        /// How far it may be.
        tolerance: Duration,
    },
    /// Signed, and not of a service that this version knows.
    #[error("the call is signed, but its {0} cannot be read")]
    Unreadable(&'static str),
}

/// The key of a webhook's signatures.
#[derive(Debug, Clone)]
pub struct WebhookKey(hmac::Key);

impl WebhookKey {
    /// Reads the secret of a webhook, `whsec_` and base64, as [`Client::create_webhook`] answers it.
    ///
    /// # Errors
    /// [`WebhookError::Secret`].
    pub fn parse(secret: &str) -> Result<Self, WebhookError> {
        let decoded = secret.strip_prefix("whsec_").and_then(|encoded| STANDARD.decode(encoded).ok());
        let key = zeroize::Zeroizing::new(decoded.filter(|key| !key.is_empty()).ok_or(WebhookError::Secret)?);
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }

    /// Checks that a call is the service's, and was signed within [`WEBHOOK_TOLERANCE`] of now; reads it. Signatures are compared in constant time.
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub fn verify(&self, call: &WebhookCall<'_>) -> Result<WebhookEvent, WebhookError> {
        self.verify_at(call, SystemTime::now(), WEBHOOK_TOLERANCE)
    }

    /// [`Self::verify`], by another clock and with another tolerance.
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub fn verify_at(&self, call: &WebhookCall<'_>, now: SystemTime, tolerance: Duration) -> Result<WebhookEvent, WebhookError> {
        let signed = [call.id.as_bytes(), b".", call.timestamp.as_bytes(), b".", call.body].concat();
        // Several signatures are for several keys.
        let mut tags = call.signature.split(' ').filter_map(|each| STANDARD.decode(each.strip_prefix("v1,")?).ok());
        if !tags.any(|tag| hmac::verify(&self.0, &signed, &tag).is_ok()) {
            return Err(WebhookError::Signature);
        }
        let seconds: u64 = call.timestamp.parse().map_err(|_| WebhookError::Unreadable("timestamp"))?;
        let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(WebhookError::Unreadable("timestamp"))?;
        let apart = now.duration_since(time).unwrap_or_else(|early| early.duration());
        if apart > tolerance {
            return Err(WebhookError::NotFresh { apart, tolerance });
        }
        read(call).ok_or(WebhookError::Unreadable("body"))
    }
}

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "type")]
    kind: String,
    timestamp: Option<String>,
    data: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct EndedJob {
    name: String,
    state: String,
    batch: Option<String>,
    reason: Option<String>,
    proof_artifact: Option<String>,
    statement_artifact: Option<String>,
}

fn read(call: &WebhookCall<'_>) -> Option<WebhookEvent> {
    let body: Body = serde_json::from_slice(call.body).ok()?;
    let time = body.timestamp.map(|text| Timestamp::from_str(&text)).transpose().ok()?;
    let mut event = WebhookEvent {
        id: call.id.to_owned(),
        kind: body.kind,
        time,
        job: String::new(),
        state: State::Unspecified,
        batch: String::new(),
        reason: String::new(),
        proof_artifact: String::new(),
        statement_artifact: String::new(),
    };
    if event.kind == "job.ended" {
        let job: EndedJob = serde_json::from_value(body.data?).ok()?;
        event.job = job.name;
        event.state = State::from_str_name(&format!("STATE_{}", job.state)).unwrap_or_default();
        event.batch = job.batch.unwrap_or_default();
        event.reason = job.reason.unwrap_or_default();
        event.proof_artifact = job.proof_artifact.unwrap_or_default();
        event.statement_artifact = job.statement_artifact.unwrap_or_default();
    }
    Some(event)
}

impl Client {
    /// Has a URL told of the ends of all jobs of the tenant; answers also the secret that [`WebhookKey::parse`] takes, which is told here only.
    ///
    /// Not repeated when the answer is lost: list and delete what was made.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_webhook(&self, url: &str) -> Result<v1::CreateWebhookResponse, ClientError> {
        let message = v1::CreateWebhookRequest { parent: String::new(), url: url.to_owned() };
        let mut service = WebhookServiceClient::new(self.channel());
        Ok(service.create_webhook(self.request(message)).await?.into_inner())
    }

    /// All webhooks of the tenant, oldest first; as many calls as they have pages.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn webhooks(&self) -> Result<Vec<Webhook>, ClientError> {
        let (mut message, mut webhooks) = (v1::ListWebhooksRequest::default(), Vec::new());
        loop {
            let call = async || {
                let mut service = WebhookServiceClient::new(self.channel());
                Ok(service.list_webhooks(self.request(message.clone())).await?.into_inner())
            };
            let page = self.repeat(call).await?;
            webhooks.extend(page.webhooks);
            if page.next_page_token.is_empty() {
                return Ok(webhooks);
            }
            message.page_token = page.next_page_token;
        }
    }

    /// Deletes a webhook, and what was still to be sent to it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_webhook(&self, name: &str) -> Result<(), ClientError> {
        let message = v1::DeleteWebhookRequest { name: name.to_owned() };
        let mut service = WebhookServiceClient::new(self.channel());
        service.delete_webhook(self.request(message)).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_700_000_000;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn secret() -> String {
        format!("whsec_{}", STANDARD.encode(key_bytes()))
    }

    fn key_bytes() -> [u8; 32] {
        std::array::from_fn(|i| i as u8)
    }

    fn sign(key: &[u8], id: &str, timestamp: &str, body: &[u8]) -> String {
        let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
        format!("v1,{}", STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &signed)))
    }

    fn verify(id: &str, timestamp: &str, signature: &str, body: &[u8]) -> Result<WebhookEvent, WebhookError> {
        let call = WebhookCall { id, timestamp, signature, body };
        WebhookKey::parse(&secret()).unwrap().verify_at(&call, at(NOW_S), WEBHOOK_TOLERANCE)
    }

    /// An example that implementations of the specification share, and one of the service's own tests.
    #[test]
    fn signatures_are_those_of_the_specification_and_of_the_service() {
        let (shared, own) = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", secret());
        for (secret, id, timestamp, body, signature) in [
            (
                shared,
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                "{\"test\": 2432232314}",
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
            (own.as_str(), "msg_1", NOW_S, "{\"a\":1}", "v1,AMaOha7DUT/0J0JMycRuYOBSvbx3WtwLd2khXXbaVj4="),
        ] {
            let key = WebhookKey::parse(secret).unwrap();
            let timestamp_text = timestamp.to_string();
            let call = |body| WebhookCall { id, timestamp: &timestamp_text, signature, body };
            // Signed, but no event.
            let result = key.verify_at(&call(body.as_bytes()), at(timestamp), Duration::ZERO);
            assert_eq!(result, Err(WebhookError::Unreadable("body")));
            assert_eq!(key.verify_at(&call(b"{}"), at(timestamp), Duration::ZERO), Err(WebhookError::Signature));
        }
    }

    #[test]
    fn calls_that_are_not_of_the_service_or_old_are_refused() {
        let body =
            br#"{"type": "job.ended", "timestamp": "2023-11-14T22:13:20Z", "data": {"name": "tenants/t/jobs/j", "state": "EXPIRED"}}"#;
        let now = NOW_S.to_string();
        let signature = sign(&key_bytes(), "m", &now, body);
        let event = verify("m", &now, &signature, body).unwrap();
        assert_eq!((event.id.as_str(), event.job.as_str(), event.state), ("m", "tenants/t/jobs/j", State::Expired));
        assert_eq!((event.time.map(|time| time.seconds), event.batch.as_str()), (Some(NOW_S as i64), ""));
        let foreign = sign(b"another key", "m", &now, body);
        for several in [format!("{signature} {foreign}"), format!("{foreign} {signature}")] {
            assert!(verify("m", &now, &several, body).is_ok());
        }
        for (id, timestamp, signature) in [
            ("n", now.as_str(), signature.as_str()),
            ("m", "1700000001", &signature),
            ("m", &now, &foreign),
            ("m", &now, ""),
            ("m", &now, &signature[3..]),
            ("m", &now, &signature.replace("v1,", "v2,")),
            ("m", &now, &signature[..signature.len() - 4]),
        ] {
            assert_eq!(verify(id, timestamp, signature, body), Err(WebhookError::Signature), "{id} {timestamp} {signature}");
        }
        for apart_s in [NOW_S - 301, NOW_S + 301] {
            let text = apart_s.to_string();
            let (apart, tolerance) = (Duration::from_secs(301), WEBHOOK_TOLERANCE);
            let refused = verify("m", &text, &sign(&key_bytes(), "m", &text, body), body);
            assert_eq!(refused, Err(WebhookError::NotFresh { apart, tolerance }));
        }
    }

    #[test]
    fn events_of_a_newer_service_pass_and_what_cannot_be_read_does_not() {
        let now = NOW_S.to_string();
        let signed = |body: &[u8]| verify("m", &now, &sign(&key_bytes(), "m", &now, body), body);
        let event = signed(br#"{"type": "model.ready", "data": 7}"#).unwrap();
        assert_eq!((event.kind.as_str(), event.job.as_str(), event.state), ("model.ready", "", State::Unspecified));
        for body in
            ["", "[]", "{}", r#"{"type": "job.ended"}"#, r#"{"type": "job.ended", "data": {}}"#, r#"{"type": "x", "timestamp": "x"}"#]
        {
            assert_eq!(signed(body.as_bytes()), Err(WebhookError::Unreadable("body")), "{body}");
        }
        for text in ["", "-1", "x", "18446744073709551615"] {
            let refused = verify("m", text, &sign(&key_bytes(), "m", text, b"{}"), b"{}");
            assert_eq!(refused, Err(WebhookError::Unreadable("timestamp")), "{text}");
        }
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for text in ["", "whsec_", "whsec_*", "AAECAwQ=", "whsec_AAE"] {
            assert_eq!(WebhookKey::parse(text).unwrap_err(), WebhookError::Secret, "{text}");
        }
        assert!(!format!("{:?}", WebhookKey::parse(&secret()).unwrap()).contains("AAEC"));
    }
}
