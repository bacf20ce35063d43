//! Tasks and results between the engine's types and the messages of `WorkerService`. What is read was written by the other side: all of it is checked.

use zeroize::Zeroizing;
use zkinfer_proto::name::{JobName, ModelName};
use zkinfer_proto::v1;

use crate::artifacts::Class;
use crate::engine::{
    ArtifactFacts, Crash, Digest, FailedAttempt, FailureCause, Lease, Leased, Outcome, ProofWork, SessionEnd, Subject, SubjectKind,
    TaskKey, Usage, Work, now_ms,
};
use crate::secret::Secret;

/// A field of a message that is missing or wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is missing or malformed")]
pub(crate) struct WireError(pub(crate) &'static str);

/// Longest name of a task.
const MAX_NAME_BYTES: usize = 64;
/// Most results that a failed attempt names. If more are damaged, the next attempt finds the rest.
pub(super) const MAX_DAMAGED: usize = 1024;

pub(crate) fn digest(bytes: &[u8], field: &'static str) -> Result<Digest, WireError> {
    bytes.try_into().map_err(|_| WireError(field))
}

pub(super) fn lease_message(lease: &Lease) -> v1::TaskLease {
    let Subject { kind, tenant, id } = lease.task.subject.clone();
    let subject = match kind {
        SubjectKind::Model => ModelName { tenant, model_id: id }.to_string(),
        SubjectKind::Job => JobName { tenant, job_id: id }.to_string(),
    };
    v1::TaskLease { subject, task: lease.task.name.clone(), epoch: lease.epoch }
}

pub(crate) fn lease(message: Option<v1::TaskLease>) -> Result<Lease, WireError> {
    let message = message.ok_or(WireError("lease"))?;
    let subject = match (JobName::parse(&message.subject), ModelName::parse(&message.subject)) {
        (Ok(JobName { tenant, job_id }), _) => Subject { kind: SubjectKind::Job, tenant, id: job_id },
        (_, Ok(ModelName { tenant, model_id })) => Subject { kind: SubjectKind::Model, tenant, id: model_id },
        _ => return Err(WireError("lease.subject")),
    };
    check_name(&message.task, "lease.task")?;
    Ok(Lease { task: TaskKey { subject, name: message.task }, epoch: message.epoch })
}

fn check_name(task: &str, field: &'static str) -> Result<(), WireError> {
    let is_name = !task.is_empty() && task.len() <= MAX_NAME_BYTES && !task.chars().any(char::is_control);
    if is_name { Ok(()) } else { Err(WireError(field)) }
}

pub(crate) fn leases(messages: Vec<v1::TaskLease>) -> Result<Vec<Lease>, WireError> {
    messages.into_iter().map(|message| lease(Some(message))).collect()
}

pub(crate) fn lease_messages(leases: &[Lease]) -> Vec<v1::TaskLease> {
    leases.iter().map(lease_message).collect()
}

/// Erases what it is given.
fn secret(bytes: Vec<u8>, field: &'static str) -> Result<Secret, WireError> {
    digest(&Zeroizing::new(bytes), field).map(Secret::from)
}

fn proof_message(proof: ProofWork) -> v1::ProofWork {
    v1::ProofWork {
        job: Some(proof.job),
        model: Some(proof.model),
        private_digest: proof.private_digest.to_vec(),
        input_salt: proof.input_salt.expose().to_vec(),
        seed: proof.seed.expose().to_vec(),
    }
}

fn proof(message: v1::ProofWork) -> Result<ProofWork, WireError> {
    Ok(ProofWork {
        job: message.job.ok_or(WireError("job"))?,
        model: message.model.ok_or(WireError("model"))?,
        private_digest: digest(&message.private_digest, "private_digest")?,
        input_salt: secret(message.input_salt, "input_salt")?,
        seed: secret(message.seed, "seed")?,
    })
}

pub(crate) fn leased_message(leased: Leased) -> v1::LeasedTask {
    use v1::leased_task::Work as Message;
    let work = match leased.work {
        Work::Register { model, salt, seed } => {
            Message::Register(v1::RegisterWork { model: Some(*model), salt: salt.expose().to_vec(), seed: seed.expose().to_vec() })
        }
        Work::Prove(proof) => Message::Prove(proof_message(*proof)),
        Work::Step { proof, results } => {
            let input = |(task, digest): (String, Digest)| v1::StepInput { task, digest: digest.to_vec() };
            Message::Step(v1::StepWork { proof: Some(proof_message(*proof)), inputs: results.into_iter().map(input).collect() })
        }
    };
    v1::LeasedTask { lease: Some(lease_message(&leased.lease)), attempt: leased.attempt, work: Some(work) }
}

pub(super) fn leased(message: v1::LeasedTask) -> Result<Leased, WireError> {
    use v1::leased_task::Work as Message;
    let work = match message.work.ok_or(WireError("work"))? {
        Message::Register(register) => Work::Register {
            model: Box::new(register.model.ok_or(WireError("model"))?),
            salt: secret(register.salt, "salt")?,
            seed: secret(register.seed, "seed")?,
        },
        Message::Prove(message) => Work::Prove(Box::new(proof(message)?)),
        Message::Step(step) => {
            let input = |input: v1::StepInput| Ok((input.task, digest(&input.digest, "inputs.digest")?));
            Work::Step {
                proof: Box::new(proof(step.proof.ok_or(WireError("proof"))?)?),
                results: step.inputs.into_iter().map(input).collect::<Result<_, WireError>>()?,
            }
        }
    };
    Ok(Leased { lease: lease(message.lease)?, attempt: message.attempt, work })
}

pub(super) fn class_message(class: Class) -> i32 {
    let class = match class {
        Class::Public => v1::ArtifactClass::Public,
        Class::Internal => v1::ArtifactClass::Internal,
    };
    class as i32
}

pub(crate) fn class(message: i32) -> Result<Class, WireError> {
    match v1::ArtifactClass::try_from(message) {
        Ok(v1::ArtifactClass::Public) => Ok(Class::Public),
        Ok(v1::ArtifactClass::Internal) => Ok(Class::Internal),
        Ok(v1::ArtifactClass::Unspecified) | Err(_) => Err(WireError("class")),
    }
}

pub(crate) fn artifact_message(facts: &ArtifactFacts) -> v1::TaskArtifact {
    v1::TaskArtifact {
        class: class_message(facts.class),
        blake3: facts.digest.to_vec(),
        size_bytes: facts.size_bytes,
        media_type: facts.media_type.clone(),
    }
}

/// Facts of an artifact of the task's tenant, whatever the worker says.
pub(super) fn artifact(message: v1::TaskArtifact, tenant: &str) -> Result<ArtifactFacts, WireError> {
    Ok(ArtifactFacts {
        class: class(message.class)?,
        tenant: tenant.to_owned(),
        digest: digest(&message.blake3, "blake3")?,
        size_bytes: message.size_bytes,
        media_type: media_type(message.media_type)?,
        created_ms: now_ms(),
    })
}

pub(crate) fn media_type(text: String) -> Result<String, WireError> {
    if text.len() <= 128 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) { Ok(text) } else { Err(WireError("media_type")) }
}

fn artifacts(messages: Vec<v1::TaskArtifact>, tenant: &str) -> Result<Vec<ArtifactFacts>, WireError> {
    messages.into_iter().map(|message| artifact(message, tenant)).collect()
}

pub(super) fn outcome_message(outcome: Outcome) -> v1::complete_task_request::Outcome {
    use v1::complete_task_request::Outcome as Message;
    match outcome {
        Outcome::Registered { registered, private_digest, graph, artifacts } => Message::Registered(v1::RegisteredOutcome {
            registered: Some(*registered),
            private_digest: private_digest.to_vec(),
            graph: Some(graph),
            artifacts: artifacts.iter().map(artifact_message).collect(),
        }),
        Outcome::Result(facts) => Message::Result(artifact_message(&facts)),
        Outcome::Proved { result, artifacts } => {
            Message::Proved(v1::ProvedOutcome { result: Some(*result), artifacts: artifacts.iter().map(artifact_message).collect() })
        }
    }
}

pub(crate) fn outcome(message: Option<v1::complete_task_request::Outcome>, tenant: &str) -> Result<Outcome, WireError> {
    use v1::complete_task_request::Outcome as Message;
    Ok(match message.ok_or(WireError("outcome"))? {
        Message::Registered(registered) => Outcome::Registered {
            registered: Box::new(registered.registered.ok_or(WireError("registered"))?),
            private_digest: digest(&registered.private_digest, "private_digest")?,
            graph: registered.graph.filter(|graph| crate::engine::graph::check(graph).is_ok()).ok_or(WireError("graph"))?,
            artifacts: artifacts(registered.artifacts, tenant)?,
        },
        Message::Result(facts) => Outcome::Result(artifact(facts, tenant)?),
        Message::Proved(proved) => {
            Outcome::Proved { result: Box::new(proved.result.ok_or(WireError("result"))?), artifacts: artifacts(proved.artifacts, tenant)? }
        }
    })
}

pub(super) fn usage_message(usage: Usage) -> v1::TaskUsage {
    let Usage { device, fallback, peak_host_bytes, peak_device_bytes, is_shared, stage_times } = usage;
    v1::TaskUsage { device, fallback, peak_host_bytes, peak_device_bytes, stage_times, is_shared }
}

pub(crate) fn usage(message: Option<v1::TaskUsage>) -> Usage {
    let v1::TaskUsage { device, fallback, peak_host_bytes, peak_device_bytes, stage_times, is_shared } = message.unwrap_or_default();
    Usage { device, fallback, peak_host_bytes, peak_device_bytes, is_shared, stage_times }
}

pub(super) fn close_message(session: &str, end: SessionEnd) -> v1::CloseSessionRequest {
    let crash = match end {
        SessionEnd::InOrder => None,
        SessionEnd::Crashed(Crash { last_words, is_out_of_memory, peak_host_bytes }) => {
            Some(v1::CrashReport { last_words, out_of_host_memory: is_out_of_memory, peak_host_bytes })
        }
    };
    v1::CloseSessionRequest { session: session.to_owned(), crashed: crash.is_some(), crash }
}

/// The session, and how it ends.
pub(crate) fn close(message: v1::CloseSessionRequest) -> (String, SessionEnd) {
    let v1::CloseSessionRequest { session, crashed, crash } = message;
    if !crashed {
        return (session, SessionEnd::InOrder);
    }
    let v1::CrashReport { last_words, out_of_host_memory, peak_host_bytes } = crash.unwrap_or_default();
    let last_words = Crash::readable(last_words.as_bytes());
    (session, SessionEnd::Crashed(Crash { last_words, is_out_of_memory: out_of_host_memory, peak_host_bytes }))
}

const CAUSES: [FailureCause; 8] = [
    FailureCause::InvalidInput,
    FailureCause::Internal,
    FailureCause::HostMemory,
    FailureCause::DeviceMemory,
    FailureCause::DeviceLost,
    FailureCause::Storage,
    FailureCause::VerifyFailed,
    FailureCause::Timeout,
];

pub(crate) fn failed(cause: &str, reason: String, message: String, damaged: Vec<String>) -> Result<FailedAttempt, WireError> {
    let cause = CAUSES.into_iter().find(|known| known.as_str() == cause).ok_or(WireError("cause"))?;
    if damaged.len() > MAX_DAMAGED {
        return Err(WireError("damaged_results"));
    }
    damaged.iter().try_for_each(|name| check_name(name, "damaged_results"))?;
    Ok(FailedAttempt { cause, reason, message, damaged })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_lease(kind: SubjectKind) -> Lease {
        let id = match kind {
            SubjectKind::Model => "mlp".to_owned(),
            SubjectKind::Job => uuid::Uuid::now_v7().to_string(),
        };
        Lease { task: TaskKey { subject: Subject { kind, tenant: "acme".into(), id }, name: "layer-0007".into() }, epoch: 3 }
    }

    #[test]
    fn leases_come_back_and_others_are_refused() {
        for kind in [SubjectKind::Model, SubjectKind::Job] {
            let lease_of_kind = a_lease(kind);
            assert_eq!(lease(Some(lease_message(&lease_of_kind))), Ok(lease_of_kind));
        }
        let right = lease_message(&a_lease(SubjectKind::Job));
        let wrong = |change: fn(&mut v1::TaskLease)| {
            let mut message = right.clone();
            change(&mut message);
            lease(Some(message)).unwrap_err().0
        };
        assert_eq!(lease(None), Err(WireError("lease")));
        assert_eq!(wrong(|lease| lease.subject = "tenants/../jobs/1".into()), "lease.subject");
        assert_eq!(wrong(|lease| lease.task = "a".repeat(65)), "lease.task");
        assert_eq!(wrong(|lease| lease.task = "a\0".to_owned()), "lease.task");
        assert_eq!(media_type("a/b\0".to_owned()), Err(WireError("media_type")));
    }

    #[test]
    fn the_end_of_a_session_comes_back_and_words_of_a_crash_are_made_readable() {
        let crash = Crash { last_words: "aborting\n".into(), is_out_of_memory: true, peak_host_bytes: 7 };
        for end in [SessionEnd::InOrder, SessionEnd::Crashed(crash)] {
            assert_eq!(close(close_message("s", end.clone())), ("s".to_owned(), end));
        }
        let without = v1::CloseSessionRequest { session: "s".into(), crashed: true, crash: None };
        assert_eq!(close(without).1, SessionEnd::Crashed(Crash::default()));
        let raw = v1::CrashReport { last_words: "a\0b".repeat(4096), ..Default::default() };
        let SessionEnd::Crashed(crash) = close(v1::CloseSessionRequest { session: "s".into(), crashed: true, crash: Some(raw) }).1 else {
            panic!("it crashed")
        };
        assert_eq!(crash.last_words.len(), Crash::MAX_LAST_WORDS_BYTES);
        assert!(!crash.last_words.contains('\0'));
    }

    #[test]
    fn a_step_comes_back_with_what_it_reads() {
        let proof = ProofWork {
            job: v1::Job { name: "j".into(), ..Default::default() },
            model: v1::Model { name: "m".into(), ..Default::default() },
            private_digest: [1; 32],
            input_salt: [2; 32].into(),
            seed: [3; 32].into(),
        };
        let work = Work::Step { proof: Box::new(proof), results: vec![("witness".into(), [4; 32])] };
        let message = leased_message(Leased { lease: a_lease(SubjectKind::Job), attempt: 2, work });
        let back = leased(message.clone()).unwrap();
        let Work::Step { proof, results } = &back.work else { panic!("a step") };
        assert_eq!(
            (proof.job.name.as_str(), *proof.seed.expose(), results.as_slice()),
            ("j", [3; 32], &[("witness".to_owned(), [4; 32])][..])
        );
        assert_eq!(leased_message(back), message);
        let mut short = message;
        if let Some(v1::leased_task::Work::Step(step)) = &mut short.work {
            step.inputs[0].digest.pop();
        }
        assert_eq!(leased(short).unwrap_err(), WireError("inputs.digest"));
    }

    #[test]
    fn every_cause_comes_back() {
        for cause in CAUSES {
            let back = failed(cause.as_str(), String::new(), String::new(), Vec::new()).unwrap();
            assert_eq!(back.cause, cause);
        }
        assert_eq!(failed("NONSENSE", String::new(), String::new(), Vec::new()), Err(WireError("cause")));
    }

    #[test]
    fn damaged_results_are_named_as_tasks_are() {
        let named = |names: Vec<String>| failed("STORAGE", String::new(), String::new(), names).map(|failed| failed.damaged);
        let all = vec!["commit-0001".to_owned(); MAX_DAMAGED];
        assert_eq!(named(all.clone()), Ok(all.clone()));
        for wrong in
            [vec![String::new()], vec!["a".repeat(65)], vec!["witness".to_owned(), "a\0".to_owned()], [all, vec!["bind".into()]].concat()]
        {
            assert_eq!(named(wrong), Err(WireError("damaged_results")));
        }
    }

    #[test]
    fn an_artifact_is_the_tenants_of_the_task() {
        let facts = ArtifactFacts {
            class: Class::Internal,
            tenant: "acme".into(),
            digest: [7; 32],
            size_bytes: 5,
            media_type: "application/octet-stream".into(),
            created_ms: 0,
        };
        let back = artifact(artifact_message(&facts), "umbrella").unwrap();
        assert_eq!((back.tenant.as_str(), back.class, back.digest, back.size_bytes), ("umbrella", Class::Internal, [7; 32], 5));
        let unspecified = v1::TaskArtifact { class: 0, ..artifact_message(&facts) };
        assert_eq!(artifact(unspecified, "acme"), Err(WireError("class")));
    }
}
