//! Workers that hand in proofs which are none of the job's: each is refused, and the job goes on to a worker that is honest.

use std::time::Duration;

use tonic::Code;
use tonic::transport::Channel;
use zeroize::Zeroizing;
use zkinfer_proto::name::ArtifactName;
use zkinfer_proto::v1;
use zkinfer_proto::v1::complete_task_request::Outcome;
use zkinfer_proto::v1::worker_service_client::WorkerServiceClient;
use zkinfer_server::prover::{DigestBytes, InputEncoding, ModelMaterial, Privacy, ProveRequest, ProvedJob, ProverError, StatementFields};

use crate::harness::{Client, Service, expect_error, job_request};
use crate::scripted_prover::ScriptedProver;
use crate::workers::{any_socket, config_for_workers, end, worker};

const LEASE: Duration = Duration::from_secs(30);
/// Of so many, few fit into the memory of checks.
const LARGE_PROOF_BYTES: usize = 1 << 20;

/// What is proved, and the key that is named with it.
#[derive(Clone)]
struct Claim {
    key: Vec<u8>,
    key_artifact: String,
    input: Vec<u8>,
    salt: DigestBytes,
    nonce: DigestBytes,
}

impl ModelMaterial for Claim {
    fn id(&self) -> DigestBytes {
        [0; 32]
    }

    fn private(&self) -> Result<Zeroizing<Vec<u8>>, ProverError> {
        Ok(Zeroizing::default())
    }

    fn verifier_key(&self) -> Result<Vec<u8>, ProverError> {
        Ok(self.key.clone())
    }
}

impl Claim {
    /// What a job asks to be proved.
    async fn asked(client: &mut Client, work: v1::ProofWork, input: &str) -> Self {
        let key_artifact = work.model.unwrap().registered.unwrap().verifier_key_artifact;
        Self {
            key: client.read(&key_artifact).await.unwrap(),
            key_artifact,
            input: input.as_bytes().to_vec(),
            salt: work.input_salt.try_into().unwrap(),
            nonce: work.job.unwrap().context_nonce.try_into().unwrap(),
        }
    }

    fn prove(&self) -> ProvedJob {
        let request = ProveRequest {
            input: &self.input,
            encoding: InputEncoding::Uint8,
            privacy: Privacy::InputCommitted,
            input_salt: &self.salt,
            nonce: &self.nonce,
            seed: &[0; 32],
        };
        ScriptedProver::default().proved(self, &request).unwrap()
    }
}

/// A claim that is changed before it is proved; the other one is of another job of another model.
type OtherClaim = fn(&mut Claim, &Claim);
/// What is told of a proof, changed.
type OtherWords = fn(&mut v1::ProvedOutcome);

const CLAIMS: [(&str, OtherClaim); 7] = [
    ("another job of the model", |claim, other| {
        *claim = Claim { key: claim.key.clone(), key_artifact: claim.key_artifact.clone(), ..other.clone() };
    }),
    ("another job of another model", |claim, other| *claim = other.clone()),
    ("another model's key", |claim, other| (claim.key, claim.key_artifact) = (other.key.clone(), other.key_artifact.clone())),
    ("another model's key, by the name of the own", |claim, other| claim.key.clone_from(&other.key)),
    ("another nonce", |claim, other| claim.nonce = other.nonce),
    ("another input", |claim, other| claim.input.clone_from(&other.input)),
    ("another salt", |claim, other| claim.salt = other.salt),
];

const WORDS: [(&str, OtherWords); 7] = [
    ("another output is told", |told| {
        let values = v1::OutputValues { values: vec![-3, 8] };
        told.result.as_mut().unwrap().statement.as_mut().unwrap().output = Some(v1::statement::Output::OutputValues(values));
    }),
    ("another nonce is told", |told| told.result.as_mut().unwrap().statement.as_mut().unwrap().context_nonce[0] ^= 1),
    ("no statement is told", |told| told.result.as_mut().unwrap().statement = None),
    ("another size is told", |told| told.result.as_mut().unwrap().proof_bytes += 1),
    ("no statement is handed in", |told| {
        let result = told.result.as_mut().unwrap();
        result.statement_artifact.clone_from(&result.proof_artifact);
    }),
    ("the proof is not handed in", |told| drop(told.artifacts.remove(0))),
    ("no key is named", |told| told.result.as_mut().unwrap().verifier_key_artifact.clear()),
];

/// A worker by hand.
struct Worker {
    calls: WorkerServiceClient<Channel>,
    session: String,
}

impl Worker {
    async fn start(address: std::net::SocketAddr) -> Self {
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let mut calls = WorkerServiceClient::new(channel);
        let session = calls.open_session(v1::OpenSessionRequest::default()).await.unwrap().into_inner().session;
        Self { calls, session }
    }

    /// The one task that there is.
    async fn lease(&mut self) -> (v1::TaskLease, v1::ProofWork) {
        let ask = v1::LeaseTasksRequest { session: self.session.clone(), max_tasks: 1, ..Default::default() };
        let task = self.calls.lease_tasks(ask).await.unwrap().into_inner().tasks.remove(0);
        let Some(v1::leased_task::Work::Prove(work)) = task.work else { panic!("a whole proof") };
        (task.lease.unwrap(), work)
    }

    async fn write(&mut self, lease: &v1::TaskLease, data: Vec<u8>) -> v1::TaskArtifact {
        let message = v1::WriteTaskArtifactRequest {
            session: self.session.clone(),
            lease: Some(lease.clone()),
            class: v1::ArtifactClass::Public as i32,
            size_bytes: data.len() as u64,
            data: data.into(),
            ..Default::default()
        };
        self.calls.write_task_artifact(tokio_stream::iter([message])).await.unwrap().into_inner()
    }

    /// Stores a proof of what is claimed, and tells of it.
    async fn proved(&mut self, lease: &v1::TaskLease, claim: &Claim) -> v1::ProvedOutcome {
        let ProvedJob { proof, statement, fields } = claim.prove();
        let proof_bytes = proof.len() as i64;
        let artifacts = vec![self.write(lease, proof).await, self.write(lease, statement).await];
        let name =
            |of: &v1::TaskArtifact| ArtifactName { tenant: "default".into(), blake3: of.blake3.as_slice().try_into().unwrap() }.to_string();
        let result = v1::JobResult {
            proof_artifact: name(&artifacts[0]),
            statement_artifact: name(&artifacts[1]),
            statement: Some(told(&fields)),
            verifier_key_artifact: claim.key_artifact.clone(),
            proof_bytes,
            ..Default::default()
        };
        v1::ProvedOutcome { result: Some(result), artifacts }
    }

    async fn hand_in(&mut self, lease: v1::TaskLease, claim: &Claim, change: Option<OtherWords>) {
        let mut proved = self.proved(&lease, claim).await;
        change.into_iter().for_each(|change| change(&mut proved));
        let (session, outcome) = (self.session.clone(), Some(Outcome::Proved(proved)));
        let request = v1::CompleteTaskRequest { session, lease: Some(lease), outcome, usage: None };
        assert!(self.calls.complete_task(request).await.unwrap().into_inner().accepted);
    }
}

fn told(fields: &StatementFields) -> v1::Statement {
    v1::Statement {
        version: fields.version,
        parameters_id: fields.parameters_id.to_vec(),
        program_digest: fields.program_digest.to_vec(),
        model_commitment: fields.model_commitment.to_vec(),
        input_commitment: fields.input_commitment.to_vec(),
        output: Some(v1::statement::Output::OutputValues(v1::OutputValues { values: fields.output_values.clone() })),
        predicate: fields.predicate.to_vec(),
        context_nonce: fields.context_nonce.to_vec(),
    }
}

/// How each attempt at a job's task ended.
async fn outcomes(client: &mut Client, job: &str) -> Vec<String> {
    let request = v1::ListJobTasksRequest { name: job.to_owned() };
    let tasks = client.proofs.list_job_tasks(request).await.unwrap().into_inner().tasks;
    tasks.into_iter().flat_map(|task| task.attempts).map(|attempt| attempt.outcome).collect()
}

struct Scene {
    client: Client,
    worker: Worker,
    model: String,
    other: Claim,
}

impl Scene {
    /// Whoever tells the lie is refused; the next one, who does not, ends the job.
    async fn is_refused(&mut self, (index, lie): (usize, &str), privacy: v1::Privacy, change: (Option<OtherClaim>, Option<OtherWords>)) {
        let Self { client, worker, model, other } = self;
        let input = format!("steps={index}");
        let mut request = job_request(model, &input);
        let asked = request.job.as_mut().unwrap();
        asked.privacy = privacy as i32;
        asked.context_nonce = [vec![index as u8 + 1], vec![0; 31]].concat();
        let job = client.proofs.create_job(request).await.unwrap().into_inner().name;
        let (lease, work) = worker.lease().await;
        assert_eq!(work.job.as_ref().unwrap().name, job);
        let honest = Claim::asked(client, work, &input).await;
        let mut claim = honest.clone();
        change.0.into_iter().for_each(|change| change(&mut claim, other));
        worker.hand_in(lease, &claim, change.1).await;
        assert_eq!(outcomes(client, &job).await, ["PROOF_INVALID"], "{lie}, {privacy:?}");
        let (lease, _) = worker.lease().await;
        worker.hand_in(lease, &honest, None).await;
        let ended = client.get_job(&job).await;
        assert_eq!(ended.state(), v1::job::State::Succeeded, "{lie}, {privacy:?}: {:?}", ended.failure);
        assert_eq!(outcomes(client, &job).await, ["PROOF_INVALID", "DONE"], "{lie}, {privacy:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_that_is_not_the_jobs_is_refused_and_the_jobs_own_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (config, address) = config_for_workers(folder.path(), any_socket(), LEASE);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let pool = worker(address, Default::default());
    let model = client.ready_model("mlp").await.name;
    let another = client.ready_model("another").await.registered.unwrap().verifier_key_artifact;
    end(pool).await;
    let key = client.read(&another).await.unwrap();
    let other = Claim { key, key_artifact: another, input: b"steps=99".to_vec(), salt: [9; 32], nonce: [7; 32] };
    let mut scene = Scene { client, worker: Worker::start(address).await, model, other };
    for privacy in [v1::Privacy::InputPublic, v1::Privacy::InputCommitted] {
        for (index, (lie, change)) in CLAIMS.into_iter().enumerate() {
            scene.is_refused((index, lie), privacy, (Some(change), None)).await;
        }
        for (index, (lie, change)) in WORDS.into_iter().enumerate() {
            scene.is_refused((index, lie), privacy, (None, Some(change))).await;
        }
    }
    drop(scene);
    service.stop().await;
}

/// A proof that is none, of which it takes so long to tell.
async fn long_nonsense(client: &mut Client, worker: &mut Worker, model: &str, ms: u32) -> (v1::CompleteTaskRequest, String) {
    client.create_job(model, "steps=1").await;
    let (lease, work) = worker.lease().await;
    let honest = Claim::asked(client, work, "steps=1").await;
    let mut proved = worker.proved(&lease, &honest).await;
    let proof = [format!("ms={ms} {} ", uuid::Uuid::new_v4()).as_bytes(), &vec![b'x'; LARGE_PROOF_BYTES]].concat();
    let result = proved.result.as_mut().unwrap();
    result.proof_bytes = proof.len() as i64;
    proved.artifacts[0] = worker.write(&lease, proof).await;
    let blake3 = proved.artifacts[0].blake3.as_slice().try_into().unwrap();
    result.proof_artifact = ArtifactName { tenant: "default".into(), blake3 }.to_string();
    let (session, outcome) = (worker.session.clone(), Some(Outcome::Proved(proved)));
    (v1::CompleteTaskRequest { session, lease: Some(lease), outcome, usage: None }, hex::encode(blake3))
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_that_wait_for_memory_have_read_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, address) = config_for_workers(folder.path(), any_socket(), Duration::from_secs(60));
    config.limits.proof_bytes = LARGE_PROOF_BYTES as u64 + 100;
    config.limits.input_bytes = 1000;
    // The least that is taken. In units of 64 KiB there is room for two of these checks, and not for a third.
    config.limits.checking_bytes = 3 * config.limits.proof_bytes + config.limits.input_bytes;
    config.limits.cpu_queue = 3;
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let pool = worker(address, Default::default());
    let model = client.ready_model("mlp").await.name;
    end(pool).await;
    let mut worker = Worker::start(address).await;
    let mut waiting = Vec::new();
    for ms in [8000, 0, 0, 0] {
        let (request, digest) = long_nonsense(&mut client, &mut worker, &model, ms).await;
        let mut calls = worker.calls.clone();
        let mut call = tokio::spawn(async move { calls.complete_task(request).await });
        tokio::time::timeout(Duration::from_millis(300), &mut call).await.expect_err("it waits for the first");
        waiting.push((call, folder.path().join("artifacts/public/default").join(&digest[..2]).join(digest)));
    }
    let (request, _) = long_nonsense(&mut client, &mut worker, &model, 0).await;
    let refused = worker.calls.complete_task(request).await.unwrap_err();
    let details = expect_error(&refused, Code::ResourceExhausted, "TOO_MANY_COMPUTATIONS");
    assert_eq!(details.quota_failure().unwrap().violations[0].subject, "computations");
    for (_, file) in &waiting {
        std::fs::remove_file(file).unwrap();
    }
    let mut answers = Vec::new();
    for (call, _) in waiting {
        answers.push(call.await.unwrap().is_ok());
    }
    assert_eq!(answers, [true, true, false, false], "two had theirs in memory");
    drop((client, worker));
    service.stop().await;
}

/// Who knows a task and its epoch, but not the session that holds it, changes nothing of it: neither ends it, nor publishes a proof that nobody checked.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_changed_only_by_the_session_that_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    let (config, address) = config_for_workers(folder.path(), any_socket(), LEASE);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let pool = worker(address, Default::default());
    let model = client.ready_model("mlp").await.name;
    end(pool).await;
    let (mut holder, mut other) = (Worker::start(address).await, Worker::start(address).await);
    let job = client.proofs.create_job(job_request(&model, "steps=3")).await.unwrap().into_inner().name;
    let (lease, work) = holder.lease().await;
    let honest = Claim::asked(&mut client, work, "steps=3").await;
    // Stored by the holder, so that nothing but the session is amiss.
    let wrong = Claim { nonce: [9; 32], ..honest.clone() };
    let lie = holder.proved(&lease, &wrong).await;
    for session in [other.session.clone(), "x".to_owned()] {
        let (held, outcome) = (Some(lease.clone()), Some(Outcome::Proved(lie.clone())));
        let request = v1::CompleteTaskRequest { session: session.clone(), lease: held.clone(), outcome, usage: None };
        assert!(!other.calls.complete_task(request).await.unwrap().into_inner().accepted);
        let request = v1::FailTaskRequest { session: session.clone(), lease: held.clone(), cause: "INTERNAL".into(), ..Default::default() };
        assert!(!other.calls.fail_task(request).await.unwrap().into_inner().accepted);
        let request = v1::ReleaseTaskRequest { session: session.clone(), lease: held.clone(), usage: None };
        assert!(!other.calls.release_task(request).await.unwrap().into_inner().accepted);
    }
    let progress =
        vec![v1::TaskProgress { lease: Some(lease.clone()), progress: Some(v1::Progress { fraction: 1.0, ..Default::default() }) }];
    let request = v1::RenewLeasesRequest { session: other.session.clone(), held: Vec::new(), progress };
    assert_eq!(other.calls.renew_leases(request).await.unwrap().into_inner().lost, std::slice::from_ref(&lease));
    let running = client.get_job(&job).await;
    assert_eq!((running.state(), running.progress.unwrap().fraction), (v1::job::State::Running, 0.0));
    holder.hand_in(lease, &honest, None).await;
    assert_eq!(client.get_job(&job).await.state(), v1::job::State::Succeeded);
    assert_eq!(outcomes(&mut client, &job).await, ["DONE"]);
    drop((client, holder, other));
    service.stop().await;
}
