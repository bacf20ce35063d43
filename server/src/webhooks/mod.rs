//! Tells webhooks of the ends of jobs: takes what is due from the outbox, sends it signed, and tries again until it was heard.
//!
//! What is sent was written in the transaction that ended its job, and is deleted only after it was received: it may arrive twice, never not at all,
//! unless its receiver does not answer for about a day. A webhook has one delivery on its way at a time, and one that did not hear is left alone for longer
//! each time, so that those who answer slowly or not at all delay nobody else. Format and headers: proto/zkinfer/v1/webhook.proto, after the Standard Webhooks specification.

mod address;
mod body;
mod signature;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio_util::sync::CancellationToken;

pub use address::{Reach, UrlError, check_url};
pub use signature::{SecretText, sign};

use crate::engine::{Delivery, EngineError, Postponed, Webhooks, now_ms};
use crate::record_seal::{RecordSeal, SecretKind, SecretPlace};

/// Deliveries on their way, each to another webhook.
const AT_ONCE: u32 = 128;
/// An answer is waited for so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// A webhook to which something is on its way is left alone by others for so long: longer than that can take.
const HOLD: Duration = Duration::from_secs(60);
/// How often the outbox is looked at.
const POLL: Duration = Duration::from_secs(1);
/// First wait after a failure; triples each time, up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(6 * 3600);
/// Then it is given up: about a day after the first.
const MAX_TRIES: u32 = 12;

/// Sends what is in the outbox.
pub struct Sender {
    outbox: Arc<dyn Webhooks>,
    client: reqwest::Client,
    reach: Reach,
    ports: Vec<u16>,
    seal: RecordSeal,
}

impl Sender {
    /// A sender to addresses within `reach`, at any port, of secrets that are not encrypted.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(outbox: Arc<dyn Webhooks>, reach: Reach) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            // Another place is not what the tenant named, and may be within.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("zkinfer/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(reach))
            .build()?;
        Ok(Self { outbox, client, reach, ports: Vec::new(), seal: RecordSeal::default() })
    }

    /// Sends to these ports only; if there are none, to any.
    #[must_use]
    pub fn to_ports(self, ports: Vec<u16>) -> Self {
        Self { ports, ..self }
    }

    /// Opens secrets that are encrypted, too.
    #[must_use]
    pub fn opening(self, seal: RecordSeal) -> Self {
        Self { seal, ..self }
    }

    /// Sends until `closing`.
    pub async fn run(self, closing: CancellationToken) {
        let mut on_their_way = FuturesUnordered::new();
        while !closing.is_cancelled() {
            let room = AT_ONCE.saturating_sub(u32::try_from(on_their_way.len()).unwrap_or(u32::MAX));
            on_their_way.extend(self.take(room).await.into_iter().map(|delivery| self.settle(delivery)));
            tokio::select! {
                Some(()) = on_their_way.next() => {}
                () = tokio::time::sleep(POLL) => {}
                () = closing.cancelled() => {}
            }
            // One look at the outbox for all that have ended.
            while let Some(Some(())) = on_their_way.next().now_or_never() {}
        }
    }

    async fn take(&self, n: u32) -> Vec<Delivery> {
        if n == 0 {
            return Vec::new();
        }
        self.outbox.take_deliveries(n, HOLD).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the outbox of webhooks cannot be read");
            Vec::new()
        })
    }

    /// Sends to each webhook what it is to hear next, if that is due now; answers how much that was.
    ///
    /// # Errors
    /// The outbox cannot be read. What was not settled is due again later.
    pub async fn send_due(&self) -> Result<usize, EngineError> {
        let deliveries = self.outbox.take_deliveries(AT_ONCE, HOLD).await?;
        let n = deliveries.len();
        futures::future::join_all(deliveries.into_iter().map(|delivery| self.settle(delivery))).await;
        Ok(n)
    }

    async fn settle(&self, delivery: Delivery) {
        let settled = match self.send(&delivery).await {
            Ok(()) => self.outbox.delivered(&delivery.key).await,
            Err(reason) => self.postpone(&delivery, &reason).await,
        };
        if let Err(error) = settled {
            // It is due again when the hold has passed.
            tracing::warn!(%error, job = %delivery.key.job, "the outbox of webhooks cannot be written");
        }
    }

    async fn postpone(&self, delivery: &Delivery, reason: &str) -> Result<(), EngineError> {
        let (job, webhook) = (&delivery.key.job, &delivery.key.webhook);
        tracing::debug!(%job, %webhook, reason, "a webhook did not hear");
        let after = Postponed { delivery: wait(delivery.tries), webhook: wait(delivery.failures), max_tries: MAX_TRIES };
        match self.outbox.postpone(&delivery.key, after).await? {
            0 => {}
            given_up => tracing::warn!(%job, %webhook, reason, given_up, "given up telling a webhook"),
        }
        Ok(())
    }

    /// Sends once. The reason of a failure holds nothing of what was sent.
    async fn send(&self, delivery: &Delivery) -> Result<(), String> {
        let url = check_url(&delivery.url, self.reach, &self.ports).map_err(|error| error.to_string())?;
        let (tenant, webhook) = (&delivery.key.tenant, &delivery.key.webhook);
        let place = SecretPlace { kind: SecretKind::Webhook, tenant, id: webhook };
        let secret = self.seal.open(&delivery.secret, place).map_err(|error| {
            tracing::error!(tenant, webhook, %error, "a webhook cannot be told anything");
            error.to_string()
        })?;
        let body = body::json(&delivery.job);
        let id = format!("{}.{}.{}", delivery.key.webhook, delivery.key.job, delivery.key.sequence);
        let seconds = now_ms() / 1000;
        let answer = self
            .client
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", seconds.to_string())
            .header("webhook-signature", sign(secret.expose(), &id, seconds, &body))
            .body(body)
            .send()
            .await
            .map_err(|error| error.without_url().to_string())?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("it answered {}", status.as_u16())),
        }
    }
}

/// The wait after a failure, when `tries` failed before it.
fn wait(tries: u32) -> Duration {
    FIRST_WAIT.saturating_mul(3u32.saturating_pow(tries)).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_about_a_day_in_all() {
        assert_eq!((wait(0), wait(1), wait(30)), (FIRST_WAIT, 3 * FIRST_WAIT, LONGEST_WAIT));
        let total: Duration = (0..MAX_TRIES - 1).map(wait).sum();
        assert!((Duration::from_secs(20 * 3600)..Duration::from_secs(36 * 3600)).contains(&total), "{total:?}");
    }
}
