//! Hints between processes that share a PostgreSQL database: this subject changed, a task is ready. They carry no data and may be lost; whoever hears
//! one reads the database.
//!
//! They are sent outside of the transactions they tell of, a few times a second: NOTIFY within a transaction makes commits wait for each other.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::{broadcast, mpsc};

use super::super::{Notice, SubjectKind};
use super::subject;

const CHANNEL: &str = "zkinfer";
/// Hints that wait to be sent, and to be read by a slow listener.
const CAPACITY: usize = 4096;
/// Hints are gathered for so long.
const GATHER: Duration = Duration::from_millis(20);
/// PostgreSQL takes 8,000 bytes at a time.
const PAYLOAD_BYTES: usize = 7_500;
/// Wait before the listener connects again.
const RECONNECT: Duration = Duration::from_secs(1);

/// Sends and hears hints.
#[derive(Debug)]
pub(super) struct Notices {
    /// `None`: no other process shares the database.
    outgoing: Option<mpsc::Sender<Notice>>,
    incoming: broadcast::Sender<Notice>,
}

impl Notices {
    pub(super) fn silent() -> Arc<Self> {
        Arc::new(Self { outgoing: None, incoming: broadcast::channel(1).0 })
    }

    /// Over a database; the tasks that send and listen end when the last user is gone.
    pub(super) fn over(url: &str) -> Result<Arc<Self>, sqlx::Error> {
        let options = PgConnectOptions::from_str(url)?.disable_statement_logging();
        let (outgoing, receiver) = mpsc::channel(CAPACITY);
        let incoming = broadcast::channel(CAPACITY).0;
        tokio::spawn(send(receiver, options.clone()));
        tokio::spawn(listen(incoming.clone(), outgoing.downgrade(), options));
        Ok(Arc::new(Self { outgoing: Some(outgoing), incoming }))
    }

    /// Never waits: what does not fit is dropped.
    pub(super) fn tell(&self, notices: Vec<Notice>) {
        let Some(outgoing) = &self.outgoing else { return };
        for notice in notices {
            let _ = outgoing.try_send(notice);
        }
    }

    pub(super) fn subscribe(&self) -> Option<broadcast::Receiver<Notice>> {
        self.outgoing.as_ref().map(|_| self.incoming.subscribe())
    }
}

fn line(notice: &Notice) -> String {
    match notice {
        Notice::Ready => "ready".to_owned(),
        Notice::Changed(subject) => format!("{} {} {}", subject.kind.task_kind(), subject.tenant, subject.id),
    }
}

fn parse(line: &str) -> Option<Notice> {
    if line == "ready" {
        return Some(Notice::Ready);
    }
    let mut words = line.splitn(3, ' ');
    let (kind, tenant, id) = (words.next()?, words.next()?, words.next()?);
    Some(Notice::Changed(subject(SubjectKind::from_task_kind(kind), tenant, id)))
}

async fn send(mut receiver: mpsc::Receiver<Notice>, options: PgConnectOptions) {
    // One connection, made again when it breaks.
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    while let Some(first) = receiver.recv().await {
        tokio::time::sleep(GATHER).await;
        let mut lines = vec![line(&first)];
        while let Ok(next) = receiver.try_recv() {
            lines.push(line(&next));
        }
        lines.sort_unstable();
        lines.dedup();
        for payload in payloads(&lines) {
            if let Err(error) = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(payload).execute(&pool).await {
                tracing::debug!(%error, "hints were not sent");
            }
        }
    }
}

/// Lines joined to payloads of a size that can be sent.
fn payloads(lines: &[String]) -> Vec<String> {
    let mut payloads: Vec<String> = Vec::new();
    for line in lines {
        match payloads.last_mut() {
            Some(last) if last.len() + 1 + line.len() <= PAYLOAD_BYTES => {
                last.push('\n');
                last.push_str(line);
            }
            _ => payloads.push(line.clone()),
        }
    }
    payloads
}

async fn listen(incoming: broadcast::Sender<Notice>, users: mpsc::WeakSender<Notice>, options: PgConnectOptions) {
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    while users.upgrade().is_some() {
        if let Err(error) = hear(&pool, &incoming, &users).await {
            tracing::warn!(%error, "changes made by other servers are seen late until the database answers again");
            tokio::time::sleep(RECONNECT).await;
        }
    }
}

async fn hear(pool: &sqlx::PgPool, incoming: &broadcast::Sender<Notice>, users: &mpsc::WeakSender<Notice>) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    while users.upgrade().is_some() {
        // From time to time it is looked whether anybody still listens.
        let Ok(notification) = tokio::time::timeout(RECONNECT, listener.recv()).await else { continue };
        for notice in notification?.payload().lines().filter_map(parse) {
            // Nobody subscribed yet: nothing is lost.
            let _ = incoming.send(notice);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_read_back_and_fit_their_payloads() {
        let job = Notice::Changed(subject(SubjectKind::Job, "acme", "0190"));
        for notice in [Notice::Ready, job] {
            assert_eq!(parse(&line(&notice)), Some(notice));
        }
        assert_eq!(parse("nonsense"), None);
        let lines: Vec<String> = (0..1000).map(|i| format!("PROVE tenant {i:036}")).collect();
        let payloads = payloads(&lines);
        assert!(payloads.iter().all(|payload| payload.len() <= PAYLOAD_BYTES));
        assert_eq!(payloads.join("\n"), lines.join("\n"));
    }
}
