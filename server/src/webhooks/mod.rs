//! Tells webhooks of the ends of jobs: takes what is due from the outbox, sends it signed, and tries again until it was heard.
//!
//! What is sent was written in the transaction that ended its job, and is deleted only after it was received: it may arrive twice, never not at all,
//! unless its receiver does not answer for about a day. Format and headers: proto/zkinfer/v1/webhook.proto, after the Standard Webhooks specification.

mod address;
mod body;
mod signature;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

pub use address::{Reach, UrlError, check_url};
pub use signature::{SecretText, sign};

use crate::engine::{Delivery, Webhooks, now_ms};

/// Deliveries taken at a time, and sent at a time.
const TAKE: u32 = 64;
const AT_ONCE: usize = 16;
/// An answer is waited for so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// What was taken is left alone by others for so long: longer than all of it can take.
const HOLD: Duration = Duration::from_secs(120);
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
}

impl Sender {
    /// A sender to addresses within `reach`.
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
        Ok(Self { outbox, client, reach })
    }

    /// Sends until `closing`.
    pub async fn run(self, closing: CancellationToken) {
        while !closing.is_cancelled() {
            let n_sent = match self.send_due().await {
                Ok(n_sent) => n_sent,
                Err(error) => {
                    tracing::warn!(%error, "the outbox of webhooks cannot be read");
                    0
                }
            };
            if n_sent == 0 {
                closing.run_until_cancelled(tokio::time::sleep(POLL)).await;
            }
        }
    }

    /// Sends all that is due now; answers how much that was.
    ///
    /// # Errors
    /// The outbox cannot be read. What was not settled is due again later.
    pub async fn send_due(&self) -> Result<usize, crate::engine::EngineError> {
        let deliveries = self.outbox.take_deliveries(TAKE, HOLD).await?;
        let n = deliveries.len();
        futures::stream::iter(deliveries).for_each_concurrent(AT_ONCE, |delivery| self.settle(delivery)).await;
        Ok(n)
    }

    async fn settle(&self, delivery: Delivery) {
        let sent = self.send(&delivery).await;
        let settled = match sent {
            Ok(()) => self.outbox.delivered(&delivery.key).await,
            Err(reason) if delivery.tries + 1 >= MAX_TRIES => {
                tracing::warn!(job = %delivery.key.job, webhook = %delivery.key.webhook, reason, "given up telling a webhook");
                self.outbox.delivered(&delivery.key).await
            }
            Err(reason) => {
                tracing::debug!(job = %delivery.key.job, webhook = %delivery.key.webhook, reason, "a webhook did not hear");
                self.outbox.postpone(&delivery.key, wait(delivery.tries)).await
            }
        };
        if let Err(error) = settled {
            // It is due again when the hold has passed.
            tracing::warn!(%error, job = %delivery.key.job, "the outbox of webhooks cannot be written");
        }
    }

    /// Sends once. The reason of a failure holds nothing of what was sent.
    async fn send(&self, delivery: &Delivery) -> Result<(), String> {
        let url = check_url(&delivery.url, self.reach).map_err(|error| error.to_string())?;
        let body = body::json(&delivery.job);
        let id = format!("{}.{}.{}", delivery.key.webhook, delivery.key.job, delivery.key.sequence);
        let seconds = now_ms() / 1000;
        let answer = self
            .client
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", seconds.to_string())
            .header("webhook-signature", sign(&delivery.secret, &id, seconds, &body))
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
