//! First statistics of the tables that grow with each job.
//!
//! Connections keep the plans of their statements, and PostgreSQL makes new ones only when a table's statistics are taken again. It does that by itself,
//! but looks once a minute whether a table needs it. Until then plans are those for tables of which nothing is known, which it takes to be small: a job
//! may be looked for among all of its tenant's. So whoever opens a database sees to the first statistics as soon as there is something to count.

use std::collections::HashSet;
use std::sync::Weak;
use std::time::Duration;

use sqlx::{AnyPool, AssertSqlSafe};

use super::notices::Notices;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// Tables that grow with each job and of which nothing is known, and whether they have a few pages by now.
const UNKNOWN: &str = "SELECT relname::text, pg_relation_size(oid) >= 32768 FROM pg_class \
   WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND reltuples < 0 \
     AND relname IN ('jobs', 'tasks', 'deps', 'attempts', 'events', 'results', 'artifacts', 'artifact_references', 'artifact_holds', 'idempotency')";

/// Takes the statistics of each table that has none, once; ends when all have some, or the engine is gone.
pub(super) async fn take_first(pool: AnyPool, engine: Weak<Notices>) {
    let mut taken = HashSet::new();
    loop {
        tokio::time::sleep(EVERY).await;
        if engine.strong_count() == 0 {
            return;
        }
        match take(&pool, &mut taken).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "statistics of tables are taken later"),
        }
    }
}

/// Answers whether nothing is left to do. Who may not take them, since the tables are another's, tries only once.
async fn take(pool: &AnyPool, taken: &mut HashSet<String>) -> Result<bool, sqlx::Error> {
    let mut unknown: Vec<(String, bool)> = sqlx::query_as(UNKNOWN).fetch_all(pool).await?;
    unknown.retain(|(table, _)| !taken.contains(table));
    for (table, _) in unknown.iter().filter(|(_, has_grown)| *has_grown) {
        sqlx::query(AssertSqlSafe(format!("ANALYZE {table}"))).persistent(false).execute(pool).await?;
        taken.insert(table.clone());
    }
    Ok(unknown.is_empty())
}
