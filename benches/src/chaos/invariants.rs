//! What must hold of every job, whatever was killed meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use tonic::transport::Channel;
use zkinfer_client::Client;
use zkinfer_client::proto::{JobTask, ListJobTasksRequest, ListJobsRequest, WatchJobRequest, job, job_event};
use zkinfer_proto::v1::proof_service_client::ProofServiceClient;

use super::clients::{Accepted, is_final};
use super::network::Registered;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Jobs by final state.
    pub states: BTreeMap<&'static str, usize>,
    /// Attempts at tasks by outcome.
    pub attempts: BTreeMap<String, usize>,
    /// Attempts that gave a result, by worker.
    pub done_by: BTreeMap<String, usize>,
    /// Jobs that failed since their task was running in two workers that died. That is right if that many workers were killed, and the caller knows.
    pub poisoned: usize,
    /// What does not hold.
    pub violations: Vec<String>,
}

/// How a job may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a proof.
    Proven,
    /// With a proof, or POISONED.
    ProvenOrPoisoned,
    /// Failed, for this reason.
    Failed(&'static str),
}

const POISONED: &str = "POISONED";

impl End {
    /// The one of two that a job has come to, if it failed with `reason`.
    fn reached(self, reason: Option<&str>) -> Self {
        match self {
            Self::ProvenOrPoisoned if reason == Some(POISONED) => Self::Failed(POISONED),
            Self::ProvenOrPoisoned => Self::Proven,
            end => end,
        }
    }
}

impl Findings {
    fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(what());
        }
    }
}

/// Looks at every job.
///
/// # Errors
/// The service does not answer any more.
pub async fn check(channel: &Channel, client: &Client, registered: &Registered, accepted: &[Accepted]) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    let mut proofs = ProofServiceClient::new(channel.clone());
    check_list(&mut proofs, accepted, &mut findings).await?;
    for job in accepted {
        check_job(&mut proofs, client, registered, job, &mut findings).await.with_context(|| job.name.clone())?;
    }
    Ok(findings)
}

/// The service has the jobs that were acknowledged, each once, and no other.
async fn check_list(proofs: &mut ProofServiceClient<Channel>, accepted: &[Accepted], findings: &mut Findings) -> anyhow::Result<()> {
    let (mut listed, mut n_listed, mut page_token) = (BTreeSet::new(), 0, String::new());
    loop {
        let request = ListJobsRequest { page_size: 1000, page_token, ..ListJobsRequest::default() };
        let page = proofs.list_jobs(request).await?.into_inner();
        n_listed += page.jobs.len();
        listed.extend(page.jobs.into_iter().map(|job| job.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let acknowledged: BTreeSet<String> = accepted.iter().map(|job| job.name.clone()).collect();
    findings.require(acknowledged.len() == accepted.len(), || "two requests were answered with one job".to_owned());
    findings.require(n_listed == listed.len(), || "a job is listed twice".to_owned());
    findings.require(listed == acknowledged, || {
        let (lost, surplus) = (acknowledged.difference(&listed).count(), listed.difference(&acknowledged).count());
        format!("{lost} acknowledged jobs are not listed, {surplus} listed jobs were never acknowledged")
    });
    Ok(())
}

async fn check_job(
    proofs: &mut ProofServiceClient<Channel>,
    client: &Client,
    registered: &Registered,
    accepted: &Accepted,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let name = &accepted.name;
    let job = client.job(name).await?;
    *findings.states.entry(job.state().as_str_name()).or_default() += 1;
    findings.require(is_final(job.state()), || format!("{name} is {}", job.state().as_str_name()));
    let failed_with = job.failure.as_ref().filter(|_| job.state() == job::State::Failed).map(|failure| failure.reason.as_str());
    let end = accepted.end.reached(failed_with);
    let is_proven = job.state() == job::State::Succeeded && job.result.is_some();
    let is_right = match end {
        End::Failed(reason) => failed_with == Some(reason) && job.result.is_none(),
        End::Proven | End::ProvenOrPoisoned => is_proven,
    };
    findings.require(is_right, || format!("{name} ended {}, not {end:?}: {:?}", job.state().as_str_name(), job.failure));
    findings.poisoned += usize::from(failed_with == Some(POISONED));
    if is_proven {
        let checked = registered.check(client, &job, accepted).await?;
        findings.violations.extend(checked.err().map(|problem| format!("{name}: {problem}")));
    }
    check_events(proofs, name, job.last_sequence, end, findings).await?;
    let tasks = proofs.list_job_tasks(ListJobTasksRequest { name: name.clone() }).await?.into_inner().tasks;
    check_tasks(name, &tasks, end, findings);
    Ok(())
}

/// The stored events are 1, 2, 3 …, one of them is the end, and one the result if there is one.
async fn check_events(
    proofs: &mut ProofServiceClient<Channel>,
    name: &str,
    last_sequence: i64,
    end: End,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let request = WatchJobRequest { name: name.to_owned(), from_sequence: 1 };
    let mut stream = proofs.watch_job(request).await?.into_inner();
    let (mut sequences, mut n_results, mut n_final) = (Vec::new(), 0, 0);
    while let Some(event) = stream.message().await? {
        match event.detail {
            Some(job_event::Detail::Snapshot(_) | job_event::Detail::Heartbeat(_)) => continue,
            Some(job_event::Detail::Result(_)) => n_results += 1,
            Some(job_event::Detail::Failure(_) | job_event::Detail::Note(_)) | None => {}
        }
        n_final += usize::from(is_final(event.state()));
        sequences.push(event.sequence);
    }
    findings.require(sequences == (1..=last_sequence).collect::<Vec<_>>(), || format!("{name} has the events {sequences:?}"));
    let n_expected = usize::from(!matches!(end, End::Failed(_)));
    findings.require(n_results == n_expected && n_final == 1, || format!("{name} has {n_results} results and {n_final} ends"));
    Ok(())
}

/// Each task was done, and one attempt gave what was taken; or one failed: of a poisoned job, after it was lost with its worker more than once.
fn check_tasks(name: &str, tasks: &[JobTask], end: End, findings: &mut Findings) {
    findings.require(!tasks.is_empty(), || format!("{name} has no tasks"));
    for task in tasks {
        let is_ended = task.state == "DONE" || matches!(end, End::Failed(_));
        findings.require(is_ended, || format!("{name}: task {} is {}", task.name, task.state));
        let (mut n_done, mut n_lost) = (0, 0);
        for attempt in &task.attempts {
            let outcome = if attempt.outcome.is_empty() { "RUNNING" } else { attempt.outcome.as_str() };
            *findings.attempts.entry(outcome.to_owned()).or_default() += 1;
            if outcome == "DONE" {
                n_done += 1;
                *findings.done_by.entry(attempt.worker.clone()).or_default() += 1;
            }
            n_lost += usize::from(outcome == "LOST");
            findings.require(outcome != "RUNNING", || format!("{name}: an attempt at {} never ended", task.name));
        }
        let is_once = n_done == 1 || (n_done == 0 && matches!(end, End::Failed(_)));
        findings.require(is_once, || format!("{name}: task {} was done {n_done} times", task.name));
        if end == End::Failed(POISONED) {
            findings.require(task.state != "FAILED" || n_lost >= 2, || format!("{name}: {} was lost {n_lost} times", task.name));
        }
    }
}
