//! What a worker is given with a task, read with the lock of its subject; and what its proof is then compared with.

use prost::Message as _;
use zeroize::Zeroizing;
use zkinfer_proto::v1;

use super::super::document::Document;
use super::super::{AskedProof, EngineError, Lease, ProofWork, Subject, SubjectKind, TaskKey, Work, graph};
use super::lease::get;
use super::ready::Ready;
use super::{SqlEngine, Writing, fixed};
use crate::record_seal::{RecordSeal, SecretKind, SecretPlace, Unsealed};
use crate::secret::Secret;

/// A subject whose row is locked.
pub(super) struct Taken {
    pub(super) document: Document,
    /// Its workers were told to stop.
    pub(super) is_stopped: bool,
    pub(super) sealed: Sealed,
    pub(super) model: OfModel,
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
    document: Option<Vec<u8>>,
    private_digest: Option<Vec<u8>>,
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

/// Locks the row of a task's subject, or answers `None` if another transaction has it: its end will wake the workers again. The row of a task that is not
/// ready any more is left alone: whoever has the task would wait for it.
pub(super) async fn try_lock(writing: &mut Writing, ready: &Ready) -> Result<Option<Taken>, EngineError> {
    let subject = &ready.task.subject;
    macro_rules! model {
        () => {
            "SELECT doc, NULL AS stop_cause, salt, seed, NULL AS model, NULL AS private_digest FROM models WHERE tenant = $1 AND id = $2 \
               AND EXISTS (SELECT 1 FROM tasks WHERE kind = 'REGISTER' AND tenant = $1 AND subject = $2 AND ordinal = $3 AND epoch = $4 AND state = $5)"
        };
    }
    // A model that has jobs does not change.
    macro_rules! job {
        () => {
            "SELECT jobs.doc, jobs.stop_cause, jobs.input_salt AS salt, jobs.seed, models.doc AS model, models.private_digest FROM jobs \
               JOIN models ON models.tenant = jobs.tenant AND models.id = jobs.model_id WHERE jobs.tenant = $1 AND jobs.id = $2 \
               AND EXISTS (SELECT 1 FROM tasks WHERE kind = 'PROVE' AND tasks.tenant = $1 AND subject = $2 AND ordinal = $3 AND epoch = $4 \
                 AND tasks.state = $5)"
        };
    }
    let sql = match subject.kind {
        SubjectKind::Model => writing.dialect.pick(model!(), concat!(model!(), " FOR UPDATE SKIP LOCKED")),
        SubjectKind::Job => writing.dialect.pick(job!(), concat!(job!(), " FOR UPDATE OF jobs SKIP LOCKED")),
    };
    let row = sqlx::query(sql)
        .bind(&subject.tenant)
        .bind(&subject.id)
        .bind(ready.ordinal)
        .bind(ready.epoch)
        // A value and no literal: with that PostgreSQL may take the index of ready tasks, and pass all that were given lately.
        .bind("READY")
        .fetch_optional(writing.connection())
        .await?;
    let Some(row) = row else { return Ok(None) };
    let is_stopped = get::<Option<String>>(&row, "stop_cause")?.is_some();
    let document = Document::decode(subject.kind, &get::<Vec<u8>>(&row, "doc")?)?;
    let model = match subject.kind {
        // No bytes: the type of a column without values is not that of bytes.
        SubjectKind::Model => OfModel { document: None, private_digest: None },
        SubjectKind::Job => OfModel { document: get(&row, "model")?, private_digest: get(&row, "private_digest")? },
    };
    // They are erased only with the end of the subject.
    let secret = |column: &str| get::<Option<Vec<u8>>>(&row, column).map(|bytes| Zeroizing::new(bytes.unwrap_or_default()));
    let sealed = Sealed { salt: secret("salt")?, seed: secret("seed")? };
    Ok(Some(Taken { document, is_stopped, sealed, model }))
}

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

/// What a worker is to do.
pub(super) async fn work(
    writing: &mut Writing,
    task: &TaskKey,
    ordinal: i64,
    document: Document,
    Opened { salt, seed }: Opened,
    model: OfModel,
) -> Result<Work, EngineError> {
    match document {
        Document::Model(model) => Ok(Work::Register { model, salt, seed }),
        Document::Job(job) => {
            let OfModel { document, private_digest } = model;
            let model = v1::Model::decode(document.ok_or(EngineError::ModelNotFound)?.as_slice()).map_err(EngineError::Damaged)?;
            let private_digest = fixed(&private_digest.ok_or(EngineError::ModelNotFound)?)?;
            let proof = Box::new(ProofWork { job: *job, model, private_digest, input_salt: salt, seed });
            if graph::is_whole(&task.name) {
                return Ok(Work::Prove(proof));
            }
            Ok(Work::Step { proof, results: results(writing, &task.subject, ordinal).await? })
        }
    }
}

/// What the tasks before this one gave.
async fn results(writing: &mut Writing, subject: &Subject, ordinal: i64) -> Result<Vec<(String, [u8; 32])>, EngineError> {
    let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(
        "SELECT tasks.name, tasks.output FROM deps \
           JOIN tasks ON tasks.kind = 'PROVE' AND tasks.tenant = deps.tenant AND tasks.subject = deps.job AND tasks.ordinal = deps.needs \
         WHERE deps.tenant = $1 AND deps.job = $2 AND deps.task = $3 ORDER BY deps.needs",
    )
    .bind(&subject.tenant)
    .bind(&subject.id)
    .bind(ordinal)
    .fetch_all(writing.connection())
    .await?;
    rows.into_iter().map(|(name, output)| Ok((name, fixed(&output)?))).collect()
}
