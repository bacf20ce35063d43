//! What a worker is given with a task, read with the lock of its subject; and what its proof is then compared with.

use std::collections::HashMap;

use prost::Message as _;
use sqlx::any::AnyRow;
use zeroize::Zeroizing;
use zkinfer_proto::v1;

use super::super::document::Document;
use super::super::{AskedProof, EngineError, Lease, ProofWork, Subject, SubjectKind, TaskKey, Work, graph};
use super::lease::get;
use super::many::{Many, row};
use super::ready::Ready;
use super::{Dialect, SqlEngine, Writing, fixed};
use crate::record_seal::{RecordSeal, SecretKind, SecretPlace, Unsealed};
use crate::secret::Secret;

/// A subject whose row is locked.
pub(super) struct Taken {
    pub(super) document: Document,
    /// Its workers were told to stop.
    pub(super) is_stopped: bool,
    pub(super) sealed: Sealed,
    /// A registration has none.
    pub(super) model: Option<OfModel>,
}

/// A subject's salt and seed, as they are stored.
pub(super) struct Sealed {
    pub(super) salt: Zeroizing<Vec<u8>>,
    pub(super) seed: Zeroizing<Vec<u8>>,
}

/// A subject's salt and seed.
pub(super) struct Opened {
    salt: Secret,
    seed: Secret,
}

/// Of a job: its model, and what proving needs of it.
pub(super) struct OfModel {
    document: v1::Model,
    private_digest: [u8; 32],
}

impl Sealed {
    pub(super) fn seal(seal: &RecordSeal, subject: &Subject, salt: &Secret, seed: &Secret) -> Result<Self, EngineError> {
        let [of_salt, of_seed] = places(subject);
        let sealed = |secret, place| seal.seal(secret, place).map_err(EngineError::NoRandom);
        Ok(Self { salt: sealed(salt, of_salt)?, seed: sealed(seed, of_seed)? })
    }

    pub(super) fn open(&self, seal: &RecordSeal, subject: &Subject) -> Result<Opened, Unsealed> {
        let [of_salt, of_seed] = places(subject);
        Ok(Opened { salt: seal.open(&self.salt, of_salt)?, seed: seal.open(&self.seed, of_seed)? })
    }
}

/// Of salt and seed.
fn places(Subject { kind, tenant, id }: &Subject) -> [SecretPlace<'_>; 2] {
    let kinds = match kind {
        SubjectKind::Model => [SecretKind::ModelSalt, SecretKind::ModelSeed],
        SubjectKind::Job => [SecretKind::JobSalt, SecretKind::JobSeed],
    };
    kinds.map(|kind| SecretPlace { kind, tenant, id })
}

/// Locks the rows of tasks' subjects, all of one kind, but for those that other transactions have: their end will wake the workers again. The row of a task
/// that is not ready any more is left alone: whoever has the task would wait for it. One that is damaged is told apart from the others.
pub(super) async fn try_lock(
    writing: &mut Writing,
    kind: SubjectKind,
    tasks: &[&Ready],
) -> Result<HashMap<TaskKey, Result<Taken, EngineError>>, EngineError> {
    let given = |(place, ready): (i64, &&Ready)| {
        let Subject { tenant, id, .. } = &ready.task.subject;
        // The state is a value and no literal: with that PostgreSQL may take the index of ready tasks, and pass all that were given lately.
        row![place, tenant, id, ready.ordinal, ready.epoch, "READY"]
    };
    let rows: Vec<_> = (0..).zip(tasks).map(given).collect();
    let statement = match (kind, writing.dialect) {
        (SubjectKind::Model, Dialect::Sqlite) => MODELS,
        (SubjectKind::Model, Dialect::Postgres) => FREE_MODELS,
        (SubjectKind::Job, Dialect::Sqlite) => JOBS,
        (SubjectKind::Job, Dialect::Postgres) => FREE_JOBS,
    };
    let mut locked = HashMap::new();
    for row in statement.fetch(writing.connection(), &rows).await? {
        let place = usize::try_from(get::<i64>(&row, "place")?).unwrap_or(usize::MAX);
        if let Some(ready) = tasks.get(place) {
            locked.insert(ready.task.clone(), taken(&row, kind));
        }
    }
    Ok(locked)
}

fn taken(row: &AnyRow, kind: SubjectKind) -> Result<Taken, EngineError> {
    let is_stopped = get::<Option<String>>(row, "stop_cause")?.is_some();
    let document = Document::decode(kind, &get::<Vec<u8>>(row, "doc")?)?;
    let model = match kind {
        // No bytes: the type of a column without values is not that of bytes.
        SubjectKind::Model => None,
        SubjectKind::Job => {
            let (document, digest): (Vec<u8>, Vec<u8>) = (get(row, "model")?, get(row, "private_digest")?);
            Some(OfModel {
                document: v1::Model::decode(document.as_slice()).map_err(EngineError::Damaged)?,
                private_digest: fixed(&digest)?,
            })
        }
    };
    // They are erased only with the end of the subject.
    let secret = |column: &str| get::<Option<Vec<u8>>>(row, column).map(|bytes| Zeroizing::new(bytes.unwrap_or_default()));
    let sealed = Sealed { salt: secret("salt")?, seed: secret("seed")? };
    Ok(Taken { document, is_stopped, sealed, model })
}

const GIVEN: &str = "(?, ?, ?, ?, ?, ?)";
const MODELS_HEAD: &str = "SELECT given.column1 AS place, models.doc, NULL AS stop_cause, models.salt, models.seed, NULL AS model, NULL AS private_digest FROM (VALUES ";
macro_rules! models {
    () => {
        ") AS given JOIN models ON models.tenant = given.column2 AND models.id = given.column3 \
           JOIN tasks ON tasks.kind = 'REGISTER' AND tasks.tenant = given.column2 AND tasks.subject = given.column3 AND tasks.ordinal = given.column4 \
             AND tasks.epoch = given.column5 AND tasks.state = given.column6"
    };
}
const MODELS: Many = Many::new(MODELS_HEAD, GIVEN, models!()).kept_for_one_row();
const FREE_MODELS: Many = Many::new(MODELS_HEAD, GIVEN, concat!(models!(), " FOR UPDATE OF models SKIP LOCKED")).kept_for_one_row();
const JOBS_HEAD: &str = "SELECT given.column1 AS place, jobs.doc, jobs.stop_cause, jobs.input_salt AS salt, jobs.seed, models.doc AS model, models.private_digest \
   FROM (VALUES ";
// A model that has jobs does not change.
macro_rules! jobs {
    () => {
        ") AS given JOIN jobs ON jobs.tenant = given.column2 AND jobs.id = given.column3 JOIN models ON models.tenant = jobs.tenant AND models.id = jobs.model_id \
           JOIN tasks ON tasks.kind = 'PROVE' AND tasks.tenant = given.column2 AND tasks.subject = given.column3 AND tasks.ordinal = given.column4 \
             AND tasks.epoch = given.column5 AND tasks.state = given.column6"
    };
}
const JOBS: Many = Many::new(JOBS_HEAD, GIVEN, jobs!()).kept_for_one_row();
const FREE_JOBS: Many = Many::new(JOBS_HEAD, GIVEN, concat!(jobs!(), " FOR UPDATE OF jobs SKIP LOCKED")).kept_for_one_row();

impl SqlEngine {
    pub(super) async fn load_asked_proof(&self, session: &str, lease: &Lease) -> Result<AskedProof, EngineError> {
        let subject = &lease.task.subject;
        let row: Option<(Vec<u8>, Option<Vec<u8>>, Vec<u8>)> = sqlx::query_as(
            "SELECT jobs.doc, jobs.input_salt, models.doc FROM tasks \
               JOIN jobs ON jobs.tenant = tasks.tenant AND jobs.id = tasks.subject \
               JOIN models ON models.tenant = jobs.tenant AND models.id = jobs.model_id \
             WHERE tasks.kind = 'PROVE' AND tasks.tenant = $1 AND tasks.subject = $2 AND tasks.name = $3 AND tasks.epoch = $4 \
               AND tasks.state = 'RUNNING' AND tasks.session = $5",
        )
        .bind(&subject.tenant)
        .bind(&subject.id)
        .bind(&lease.task.name)
        .bind(lease.epoch)
        .bind(session)
        .fetch_optional(&self.readers)
        .await?;
        // The id of a model may be that of a job.
        let (job, salt, model) = row.filter(|_| subject.kind == SubjectKind::Job).ok_or(EngineError::Fenced)?;
        let [of_salt, _] = places(subject);
        let input_salt = self.seal.open(&Zeroizing::new(salt.unwrap_or_default()), of_salt).map_err(EngineError::Sealed)?;
        let job = v1::Job::decode(job.as_slice()).map_err(EngineError::Damaged)?;
        let model = v1::Model::decode(model.as_slice()).map_err(EngineError::Damaged)?;
        Ok(AskedProof { job, model, input_salt })
    }
}

/// What a worker is to do; `results` of the tasks before a step.
pub(super) fn work(
    task: &TaskKey,
    document: Document,
    Opened { salt, seed }: Opened,
    model: Option<OfModel>,
    results: Vec<(String, [u8; 32])>,
) -> Result<Work, EngineError> {
    match document {
        Document::Model(model) => Ok(Work::Register { model, salt, seed }),
        Document::Job(job) => {
            let OfModel { document: model, private_digest } = model.ok_or(EngineError::ModelNotFound)?;
            let proof = Box::new(ProofWork { job: *job, model, private_digest, input_salt: salt, seed });
            Ok(if graph::is_whole(&task.name) { Work::Prove(proof) } else { Work::Step { proof, results } })
        }
    }
}

/// What the tasks before a step gave.
pub(super) async fn results(writing: &mut Writing, ready: &Ready) -> Result<Vec<(String, [u8; 32])>, EngineError> {
    let TaskKey { subject, name } = &ready.task;
    if graph::is_whole(name) {
        return Ok(Vec::new());
    }
    let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(
        "SELECT tasks.name, tasks.output FROM deps \
           JOIN tasks ON tasks.kind = 'PROVE' AND tasks.tenant = deps.tenant AND tasks.subject = deps.job AND tasks.ordinal = deps.needs \
         WHERE deps.tenant = $1 AND deps.job = $2 AND deps.task = $3 ORDER BY deps.needs",
    )
    .bind(&subject.tenant)
    .bind(&subject.id)
    .bind(ready.ordinal)
    .fetch_all(writing.connection())
    .await?;
    rows.into_iter().map(|(name, output)| Ok((name, fixed(&output)?))).collect()
}
