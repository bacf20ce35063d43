//! Who holds which models ready: told by sessions with each request, kept in their rows when it has changed, and read at most once a second, for all who ask
//! in that time. What is known here is a second old at most, which costs a wait or a load, nothing else.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::AnyConnection;

use super::super::{Digest, EngineError};

/// How long what was read is believed.
const BELIEVED: Duration = Duration::from_secs(1);

/// What live sessions hold, as it was read last.
#[derive(Debug, Default)]
pub(super) struct Holders(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    read: Option<Instant>,
    /// By session; one that holds none may be missing.
    models: HashMap<String, Vec<Digest>>,
    /// How many sessions that are given tasks hold a model.
    n_holders: HashMap<Digest, u32>,
}

impl Holders {
    /// How many sessions hold the model.
    pub(super) fn count(&self, model: &Digest) -> u32 {
        self.lock().n_holders.get(model).copied().unwrap_or(0)
    }

    /// What a session holds.
    pub(super) fn of(&self, session: &str) -> Vec<Digest> {
        self.lock().models.get(session).cloned().unwrap_or_default()
    }

    /// Reads who holds what, unless that was done a moment ago. Sessions without a sign of life since then are not counted.
    pub(super) async fn refresh(&self, connection: &mut AnyConnection, since_ms: i64) -> Result<(), EngineError> {
        if self.lock().read.is_some_and(|read| read.elapsed() < BELIEVED) {
            return Ok(());
        }
        let rows: Vec<(String, Vec<u8>, i64)> =
            sqlx::query_as("SELECT id, models, is_cordoned FROM sessions WHERE models IS NOT NULL AND seen_ms >= $1")
                .bind(since_ms)
                .fetch_all(connection)
                .await?;
        let mut known = Known { read: Some(Instant::now()), ..Known::default() };
        for (session, models, is_cordoned) in rows {
            let models = digests(&models);
            if is_cordoned == 0 {
                models.iter().for_each(|model| *known.n_holders.entry(*model).or_default() += 1);
            }
            known.models.insert(session, models);
        }
        *self.lock() = known;
        Ok(())
    }

    /// Keeps what a session holds, if that is news.
    pub(super) async fn keep(&self, connection: &mut AnyConnection, session: &str, models: &[Digest]) -> Result<(), EngineError> {
        if !self.is_news(session, models) {
            return Ok(());
        }
        let models = sorted(models);
        sqlx::query("UPDATE sessions SET models = $1 WHERE id = $2").bind(models.concat()).bind(session).execute(connection).await?;
        let mut known = self.lock();
        models.iter().for_each(|model| *known.n_holders.entry(*model).or_default() += 1);
        for model in known.models.insert(session.to_owned(), models).unwrap_or_default() {
            known.n_holders.entry(model).and_modify(|n| *n = n.saturating_sub(1));
        }
        Ok(())
    }

    /// Whether a session holds other models than it is known to.
    pub(super) fn is_news(&self, session: &str, models: &[Digest]) -> bool {
        self.lock().models.get(session).map_or(&[][..], Vec::as_slice) != sorted(models)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In an order of their own: which was used last is no news.
fn sorted(models: &[Digest]) -> Vec<Digest> {
    let mut models = models.to_vec();
    models.sort_unstable();
    models
}

fn digests(bytes: &[u8]) -> Vec<Digest> {
    bytes.as_chunks().0.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_other_models_are_news() {
        let holders = Holders::default();
        assert!(!holders.is_news("s", &[]) && holders.is_news("s", &[[1; 32]]));
        holders.lock().models.insert("s".into(), vec![[1; 32], [2; 32]]);
        assert!(!holders.is_news("s", &[[2; 32], [1; 32]]), "in whichever order");
        assert!(holders.is_news("s", &[[1; 32]]) && holders.is_news("s", &[]));
        assert_eq!(digests(&[[1; 32], [2; 32]].concat()), [[1; 32], [2; 32]]);
    }
}
