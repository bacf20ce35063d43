//! The queue's calls, each in its file.

use std::time::Duration;

use zkinfer_proto::v1;

use super::super::{
    AskedProof, Ended, EngineFuture, Expired, FailedAttempt, Lease, Leased, NewSession, Notice, Offer, Outcome, Reaped, Renewal,
    SessionEnd, SessionId, TaskEngine, TaskFlow, Usage,
};
use super::SqlEngine;

impl TaskEngine for SqlEngine {
    fn open_session(&self, new: NewSession) -> EngineFuture<'_, SessionId> {
        Box::pin(self.insert_session(new))
    }

    fn close_session(&self, session: &str, end: SessionEnd) -> EngineFuture<'_, Reaped> {
        let session = session.to_owned();
        Box::pin(async move { self.end_session(&session, end).await })
    }

    fn lease(&self, session: &str, offer: Offer) -> EngineFuture<'_, Vec<Leased>> {
        let session = session.to_owned();
        Box::pin(async move { self.lease_tasks(&session, &offer).await })
    }

    fn look_again(&self, session: &str) -> Option<Duration> {
        self.desk.look_again(session)
    }

    fn renew(&self, session: &str, held: Vec<Lease>) -> EngineFuture<'_, Renewal> {
        let session = session.to_owned();
        Box::pin(async move { self.renew_leases(&session, held).await })
    }

    fn asked_proof(&self, session: &str, lease: &Lease) -> EngineFuture<'_, AskedProof> {
        let (session, lease) = (session.to_owned(), lease.clone());
        Box::pin(async move { self.load_asked_proof(&session, &lease).await })
    }

    fn progress(&self, lease: &Lease, progress: v1::Progress) -> EngineFuture<'_, TaskFlow> {
        let lease = lease.clone();
        Box::pin(async move { self.note_progress(&lease, progress).await })
    }

    fn complete(&self, lease: &Lease, outcome: Outcome, usage: Usage) -> EngineFuture<'_, Option<Ended>> {
        let lease = lease.clone();
        Box::pin(async move { self.complete_task(&lease, outcome, usage).await })
    }

    fn fail(&self, lease: &Lease, failed: FailedAttempt, usage: Usage) -> EngineFuture<'_, ()> {
        let lease = lease.clone();
        Box::pin(async move { self.fail_task(&lease, &failed, &usage).await })
    }

    fn release(&self, lease: &Lease, usage: Usage) -> EngineFuture<'_, ()> {
        let lease = lease.clone();
        Box::pin(async move { self.release_task(&lease, &usage).await })
    }

    fn reap(&self) -> EngineFuture<'_, Reaped> {
        Box::pin(self.reap_silent())
    }

    fn recover(&self) -> EngineFuture<'_, Reaped> {
        Box::pin(self.recover_local())
    }

    fn expire(&self) -> EngineFuture<'_, Expired> {
        Box::pin(self.expire_jobs())
    }

    fn delete_ended(&self, age: Duration, limit: u32) -> EngineFuture<'_, u64> {
        Box::pin(self.delete_ended_jobs(age, limit as usize))
    }

    fn notices(&self) -> Option<tokio::sync::broadcast::Receiver<Notice>> {
        self.notices.subscribe()
    }
}
