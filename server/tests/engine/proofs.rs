//! Many who hand in proofs, or ask for tasks, at once: each is served as if it had come alone.

use futures::future::join_all;
use futures::poll;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use zkinfer_proto::name::ArtifactName;
use zkinfer_proto::v1;
use zkinfer_proto::v1::job::State;
use zkinfer_server::artifacts::Class;
use zkinfer_server::engine::{Ended, EngineError, EngineFuture, Lease, NewWebhook, Offer, Outcome, Usage, graph};

use crate::joint::{comes_to, three_ask};
use crate::locks::until_they_wait;
use crate::world::{World, artifact, offer, proved, step_result, whole};

async fn leases(world: &World, n: usize) -> Vec<Lease> {
    world.ready_model("acme", "net", whole()).await;
    let session = world.session().await;
    let mut leases = Vec::new();
    for _ in 0..n {
        world.job("acme", "net").await;
        leases.push(world.lease(&session).await.lease);
    }
    leases
}

fn proof(lease: &Lease) -> Outcome {
    proved("acme", &format!("proof of {}", lease.task.subject.id))
}

/// One that refers to a key which is not there.
fn without_key(lease: &Lease) -> Outcome {
    let Outcome::Proved { mut result, artifacts } = proof(lease) else { unreachable!("it is proved") };
    let gone = artifact("acme", Class::Public, b"nobody has it");
    result.verifier_key_artifact = ArtifactName { tenant: "acme".into(), blake3: gone.digest }.to_string();
    Outcome::Proved { result, artifacts }
}

fn on_cpu() -> Usage {
    Usage { device: "cpu".into(), ..Usage::default() }
}

async fn hears_of_ends(world: &World) {
    let (tenant, id) = ("acme".to_owned(), "ops".to_owned());
    let webhook = NewWebhook { tenant, id, url: "https://example.com".into(), secret: vec![1; 32].into() };
    world.engine.create_webhook(webhook, 4).await.unwrap();
}

pub(crate) async fn proofs_that_come_at_once_end_their_jobs(world: World) {
    let leases = leases(&world, 12).await;
    hears_of_ends(&world).await;
    let answers = join_all(leases.iter().map(|lease| world.engine.complete(lease, proof(lease), on_cpu()))).await;
    for (lease, answer) in leases.iter().zip(answers) {
        let ended = answer.unwrap().expect("its job has ended");
        let Ended::Job(ended) = ended else { panic!("{ended:?}") };
        let job = world.get(&lease.task.subject).await;
        assert_eq!((job.state(), job.name.as_str()), (State::Succeeded, ended.name.as_str()));
        assert_eq!(job.result.unwrap().proof_artifact, format!("proof of {}", lease.task.subject.id));
        assert_eq!(job.cost.unwrap().runs, 1);
        assert_eq!(world.events(&lease.task.subject).await.len(), 3, "admitted, started, proved");
        assert_eq!(world.states(&lease.task.subject).await["prove"], "DONE");
    }
    let counted = async |sql: &str| world.number(&format!("SELECT count(*) FROM {sql}")).await;
    assert_eq!(counted("results").await, 12);
    assert_eq!(counted("attempts WHERE outcome = 'DONE' AND device = 'cpu' AND ended_ms > 0").await, 12);
    assert_eq!(counted("outbox").await, 12);
    if world.url().is_some() {
        // The first had nobody to share a transaction with.
        assert!(world.number("SELECT count(DISTINCT xmin::text) FROM results").await <= 3, "they were written together");
    }
    assert_eq!(counted("jobs WHERE seed IS NOT NULL OR input_salt IS NOT NULL").await, 0, "at their end secrets are erased");
    assert_eq!(counted("tasks WHERE session IS NOT NULL").await, 0);
    assert_eq!(counted("artifact_references WHERE kind = 'JOB' AND class = 'PUBLIC'").await, 12);
}

pub(crate) async fn a_proof_that_is_refused_keeps_none_of_those_out_that_come_with_it(world: World) {
    let leases = leases(&world, 10).await;
    let [plain @ .., twice, fenced, stopped, other, fallback] = &leases[..] else { unreachable!("there are ten") };
    world.engine.release(fenced, Usage::default()).await.unwrap();
    world.engine.cancel_job("acme", &stopped.task.subject.id, "").await.unwrap();
    let fell_back = Usage { fallback: "its device failed".into(), ..on_cpu() };
    let complete = |lease, outcome| world.engine.complete(lease, outcome, on_cpu());
    let calls = plain.iter().map(|lease| complete(lease, proof(lease))).chain([
        complete(twice, proof(twice)),
        complete(twice, proof(twice)),
        complete(fenced, proof(fenced)),
        complete(stopped, proof(stopped)),
        complete(other, step_result("acme", "a step")),
        world.engine.complete(fallback, proof(fallback), fell_back),
    ]);
    let mut answers = join_all(calls).await.into_iter();
    let mut next = || answers.next().unwrap();
    plain.iter().for_each(|_| drop(next().unwrap()));
    let of_twice = [next(), next()];
    assert_eq!(of_twice.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert!(of_twice.iter().any(|answer| matches!(answer, Err(EngineError::Fenced))));
    assert!(matches!(next(), Err(EngineError::Fenced)));
    next().unwrap();
    assert!(matches!(next(), Err(EngineError::OtherOutcome { .. })));
    next().unwrap();
    for lease in plain.iter().chain([twice, fallback]) {
        assert_eq!(world.get(&lease.task.subject).await.state(), State::Succeeded);
    }
    assert_eq!(world.get(&fallback.task.subject).await.notes[0].outcome, "FALLBACK");
    assert_eq!(world.get(&stopped.task.subject).await.state(), State::Cancelled);
    assert_eq!(world.states(&fenced.task.subject).await["prove"], "READY");
    assert_eq!(world.states(&other.task.subject).await["prove"], "RUNNING");
    assert_eq!(world.number("SELECT count(*) FROM results").await, 7);
}

/// What one of them refers to is gone, which is found when all are written.
pub(crate) async fn a_proof_that_cannot_be_written_keeps_none_of_those_out_that_come_with_it(world: World) {
    let leases = leases(&world, 8).await;
    let outcome = |(i, lease)| if i == 3 { without_key(lease) } else { proof(lease) };
    let outcomes: Vec<Outcome> = leases.iter().enumerate().map(outcome).collect();
    let calls = leases.iter().zip(outcomes).map(|(lease, outcome)| world.engine.complete(lease, outcome, on_cpu()));
    for (i, answer) in join_all(calls).await.into_iter().enumerate() {
        match answer {
            Ok(ended) => assert!(i != 3 && ended.is_some()),
            Err(error) => assert!(i == 3 && matches!(error, EngineError::ArtifactGone), "{error:?}"),
        }
    }
    assert_eq!(world.number("SELECT count(*) FROM results").await, 7);
    assert_eq!(world.states(&leases[3].task.subject).await["prove"], "RUNNING");
}

pub(crate) async fn who_is_dropped_writing_others_proofs_writes_them(world: World) {
    let leases = leases(&world, 3).await;
    let queue = std::sync::Mutex::new(leases.clone());
    let complete = || -> EngineFuture<'static, _> {
        let (engine, lease) = (world.engine.clone(), queue.lock().unwrap().remove(0));
        Box::pin(async move { engine.complete(&lease, proof(&lease), on_cpu()).await })
    };
    let [mut second, third] = three_ask(complete).await;
    assert!(poll!(&mut second).is_pending());
    comes_to(&world, 0, 0).await;
    drop(second);
    third.await.unwrap();
    for lease in &leases {
        assert_eq!(world.get(&lease.task.subject).await.state(), State::Succeeded);
    }
}

/// Two steps of one job that wait for nothing, and one that waits for both.
pub(crate) fn two_at_first() -> v1::TaskGraph {
    let node = |name: &str, needs: &[u32]| v1::TaskNode {
        name: name.into(),
        step: name.into(),
        needs: needs.to_vec(),
        estimated_ms: 10,
        ..Default::default()
    };
    let mut graph = v1::TaskGraph { nodes: vec![node("left", &[]), node("right", &[]), node("last", &[0, 1])] };
    graph::check(&graph).unwrap();
    graph::set_ranks(&mut graph).unwrap();
    graph
}

pub(crate) async fn steps_of_a_job_that_are_given_at_once_begin_it_once(world: World) {
    world.ready_model("acme", "net", two_at_first()).await;
    for _ in 0..4 {
        world.job("acme", "net").await;
    }
    let session = world.session().await;
    let given = world.engine.lease(&session, Offer { max_tasks: 8, ..offer() }).await.unwrap();
    assert_eq!(given.len(), 8);
    for leased in &given {
        assert_eq!(leased.attempt, 1);
        let subject = &leased.lease.task.subject;
        assert_eq!(world.events(subject).await.len(), 2, "admitted, started");
        assert_eq!(world.get(subject).await.state(), State::Running);
    }
    for leased in &given {
        world.engine.complete(&leased.lease, step_result("acme", &leased.lease.task.name), on_cpu()).await.unwrap();
    }
}

async fn limit(world: &World, tenant: &str, max_running: i32) {
    let quota = v1::Quota { tenant: format!("tenants/{tenant}"), share_milli: 1000, max_queued: 0, max_running, paused: false };
    world.engine.set_quota(tenant, quota).await.unwrap();
}

/// One that may run no more hides nothing of the others from those who ask with its last.
pub(crate) async fn a_tenant_at_its_limit_keeps_none_of_those_out_that_are_asked_for_at_once(world: World) {
    let busy = leases(&world, 6).await;
    world.ready_model("small", "net", whole()).await;
    limit(&world, "small", 2).await;
    for tenant in ["acme", "small"] {
        for _ in 0..40 {
            world.job(tenant, "net").await;
        }
    }
    let mut sessions = Vec::new();
    for _ in 0..5 {
        sessions.push(world.session().await);
    }
    let given = join_all(sessions.iter().map(|session| world.engine.lease(session, offer()))).await;
    let mut tenants: Vec<String> = given.into_iter().map(|given| given.unwrap().remove(0).lease.task.subject.tenant).collect();
    tenants.sort();
    assert_eq!(tenants, ["acme", "acme", "acme", "small", "small"], "beside {} of the first", busy.len());
}

/// Who has a job's row keeps no other job from being given, or ended.
#[tokio::test]
async fn a_job_in_other_hands_is_passed_by() {
    let Some(world) = World::postgres("a_job_in_other_hands_is_passed_by").await else { return };
    world.ready_model("acme", "net", whole()).await;
    let session = world.session().await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(world.job("acme", "net").await);
    }
    let mut holder = PgConnection::connect(world.url().unwrap()).await.unwrap();
    let hold = async |holder: &mut PgConnection, id: &str| {
        holder.execute(AssertSqlSafe(format!("BEGIN; SELECT 1 FROM jobs WHERE id = '{id}' FOR UPDATE"))).await.unwrap();
    };
    hold(&mut holder, &jobs[0].id).await;
    let ask = || world.engine.lease(&session, Offer { max_tasks: 3, ..offer() });
    // It counted as given when the second was chosen with it.
    limit(&world, "acme", 1).await;
    let only = ask().await.unwrap();
    assert_ne!(only[0].lease.task.subject, jobs[0]);
    world.engine.release(&only[0].lease, Usage::default()).await.unwrap();
    limit(&world, "acme", 0).await;
    let mut given = ask().await.unwrap();
    let mut subjects: Vec<_> = given.iter().map(|leased| leased.lease.task.subject.clone()).collect();
    subjects.sort_by(|a, b| a.id.cmp(&b.id));
    let mut free = jobs[1..].to_vec();
    free.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(subjects, free);
    holder.execute("ROLLBACK").await.unwrap();
    given.append(&mut ask().await.unwrap());
    assert_eq!(given.len(), 3);
    hold(&mut holder, &jobs[1].id).await;
    let (held, others): (Vec<_>, Vec<_>) = given.iter().map(|leased| &leased.lease).partition(|lease| lease.task.subject == jobs[1]);
    let all = join_all(others.iter().map(|lease| world.engine.complete(lease, proof(lease), on_cpu())));
    let waiting = tokio::spawn({
        let (engine, lease) = (world.engine.clone(), held[0].clone());
        async move { engine.complete(&lease, proof(&lease), on_cpu()).await }
    });
    for answer in all.await {
        assert!(answer.unwrap().is_some());
    }
    // Alone, since it could not be written with the others.
    until_they_wait(&world, 1).await;
    holder.execute("ROLLBACK").await.unwrap();
    assert!(waiting.await.unwrap().unwrap().is_some());
}
