//! Wakes those who wait for news of a model or a job, and idle workers. It carries no data: who is woken reads the
//! engine, so that a lost or a doubled wake-up changes nothing but time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::engine::Subject;

/// Who waits for what.
#[derive(Debug, Default)]
pub struct Hub {
    subjects: Mutex<HashMap<Subject, watch::Sender<()>>>,
    any: watch::Sender<()>,
    ready: Notify,
}

impl Hub {
    /// Something happened to a subject.
    pub fn changed(&self, subject: &Subject) {
        self.any.send_replace(());
        if let Some(sender) = self.lock().get(subject) {
            sender.send_replace(());
        }
    }

    /// Subscribes to a subject. Changes after this call are seen.
    pub fn subscribe(self: &Arc<Self>, subject: Subject) -> Subscription {
        let receiver = self.lock().entry(subject.clone()).or_insert_with(|| watch::Sender::new(())).subscribe();
        Subscription { hub: self.clone(), subject, receiver: Some(receiver) }
    }

    /// Sees that something happened to any subject. Changes after this call are seen.
    pub fn subscribe_to_any(&self) -> watch::Receiver<()> {
        self.any.subscribe()
    }

    /// A task became ready.
    pub fn task_ready(&self) {
        self.ready.notify_one();
    }

    /// Waits until a task became ready.
    pub async fn wait_for_task(&self) {
        self.ready.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Subject, watch::Sender<()>>> {
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees the changes of one subject.
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Hub>,
    subject: Subject,
    /// There until it is dropped.
    receiver: Option<watch::Receiver<()>>,
}

impl Subscription {
    /// Waits for a change since the last call.
    pub async fn changed(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            // The sender lives as long as a subscription does.
            let _ = receiver.changed().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut subjects = self.hub.lock();
        // Under the lock: of two that are dropped at once, the second one finds itself the last.
        self.receiver = None;
        if subjects.get(&self.subject).is_some_and(|sender| sender.receiver_count() == 0) {
            subjects.remove(&self.subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::SubjectKind;

    #[tokio::test]
    async fn a_change_between_two_waits_is_seen_and_nothing_is_left_behind() {
        let hub = Arc::new(Hub::default());
        let subject = Subject { kind: SubjectKind::Job, tenant: "a".into(), id: "1".into() };
        let mut first = hub.subscribe(subject.clone());
        let second = hub.subscribe(subject.clone());
        let mut any = hub.subscribe_to_any();
        hub.changed(&subject);
        first.changed().await;
        any.changed().await.unwrap();
        drop(first);
        assert_eq!(hub.lock().len(), 1);
        drop(second);
        assert!(hub.lock().is_empty());
    }

    #[test]
    fn two_that_are_dropped_at_once_leave_nothing_behind() {
        let hub = Arc::new(Hub::default());
        let subject = Subject { kind: SubjectKind::Job, tenant: "a".into(), id: "1".into() };
        let both = std::sync::Barrier::new(2);
        let drop_one = || {
            for _ in 0..10_000 {
                let one = hub.subscribe(subject.clone());
                both.wait();
                drop(one);
                both.wait();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(drop_one);
            scope.spawn(drop_one);
        });
        assert!(hub.lock().is_empty());
    }
}
