//! An engine with helpers that admit subjects and act as workers.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use prost::Message as _;
use tempfile::TempDir;
use zkinfer_proto::v1;
use zkinfer_server::artifacts::{ArtifactKeys, Class};
use zkinfer_server::database::DatabaseError;
use zkinfer_server::engine::sql::SqlEngine;
use zkinfer_server::engine::{
    ArtifactFacts, Engine, Lease, Leased, NewBatch, NewJob, NewModel, NewSession, Offer, Outcome, Reaped, RequestKey, SessionEnd,
    StoredEvent, Subject, SubjectKind, Usage, graph, now_ms,
};
use zkinfer_server::limits::Limits;
use zkinfer_server::record_seal::RecordSeal;

use crate::log::Log;
use crate::postgres::Postgres;

/// Long enough that no lease ends unless a test waits for it.
pub(crate) const LEASE: Duration = Duration::from_secs(2);

pub(crate) fn limits() -> Limits {
    Limits { lease: LEASE, retry_backoff: Duration::from_millis(500), queued_per_tenant: 200, ..Limits::default() }
}

/// A database under test, which no engine may have opened yet.
pub(crate) enum Place {
    Sqlite(TempDir),
    /// Its URL.
    Postgres(String),
}

/// An engine under test. What it lies on goes with it.
pub(crate) struct World {
    pub(crate) engine: Arc<dyn Engine>,
    sql: SqlEngine,
    place: Place,
}

fn server() -> Result<&'static Postgres, &'static str> {
    static SERVER: OnceLock<Result<Postgres, String>> = OnceLock::new();
    SERVER.get_or_init(Postgres::start).as_ref().map_err(String::as_str)
}

impl Place {
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    pub(crate) fn postgres(database: &str) -> Option<Self> {
        let server = match server() {
            Ok(server) => server,
            Err(reason) => {
                // Seen with `--nocapture`, and in the log of a CI run.
                let _ = writeln!(std::io::stdout(), "not run: {reason}");
                return None;
            }
        };
        // Names of databases are cut at 63 characters.
        let name = format!("t{}", blake3::hash(database.as_bytes()).to_hex().split_at(20).0);
        Some(Self::Postgres(server.create_database(&name)))
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite(folder) => format!("sqlite://{}/zkinfer.db?mode=rwc", folder.path().display()),
            Self::Postgres(url) => url.clone(),
        }
    }

    /// Brings it to the newest schema, and opens an engine on it.
    pub(crate) async fn open(self) -> World {
        self.open_with(RecordSeal::default()).await
    }

    /// The same, with secrets that are encrypted.
    pub(crate) async fn open_with(self, seal: RecordSeal) -> World {
        if let Self::Postgres(url) = &self {
            SqlEngine::migrate_postgres(url).await.unwrap();
        }
        let sql = self.engine().await.unwrap().sealing(seal);
        World { engine: Arc::new(sql.clone()), sql, place: self }
    }

    /// An engine on it as it is.
    pub(crate) async fn engine(&self) -> Result<SqlEngine, DatabaseError> {
        Ok(match self {
            Self::Sqlite(folder) => SqlEngine::open_sqlite(folder.path(), &limits()).await?,
            Self::Postgres(url) => SqlEngine::open_postgres(url, 8, &limits()).await?,
        })
    }

    /// Bytes as a literal of the database.
    pub(crate) fn blob(&self, bytes: &[u8]) -> String {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Postgres(_) => format!("'\\x{hex}'"),
            Self::Sqlite(_) => format!("x'{hex}'"),
        }
    }

    /// The number that a query answers.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let pool = self.by_hand().await;
        let number = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned())).fetch_one(&pool).await.unwrap();
        pool.close().await;
        number
    }

    async fn by_hand(&self) -> sqlx::AnyPool {
        sqlx::any::install_default_drivers();
        sqlx::any::AnyPoolOptions::new().max_connections(1).connect(&self.url()).await.unwrap()
    }
}

impl World {
    pub(crate) async fn sqlite() -> Self {
        Place::sqlite().open().await
    }

    pub(crate) async fn postgres(database: &str) -> Option<Self> {
        Some(Place::postgres(database)?.open().await)
    }

    /// Another engine on the same database, after this process's sessions are gone.
    pub(crate) async fn restart(self) -> Self {
        self.close().await.open().await
    }

    /// Ends the engine; answers what it lay on.
    pub(crate) async fn close(self) -> Place {
        self.sql.close().await;
        self.place
    }

    /// What the engine lies on.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Where PostgreSQL has it; none for SQLite.
    pub(crate) fn url(&self) -> Option<&str> {
        match &self.place {
            Place::Sqlite(_) => None,
            Place::Postgres(url) => Some(url),
        }
    }

    /// Runs statements by hand, as an operator would.
    pub(crate) async fn execute(&self, sql: &str) {
        let pool = self.place.by_hand().await;
        sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(&pool).await.unwrap();
        pool.close().await;
    }

    /// Whether somebody who reads the database's files, or its rows in a dump, finds these bytes among its webhooks, models and jobs.
    pub(crate) async fn tells(&self, bytes: &[u8]) -> bool {
        match &self.place {
            Place::Sqlite(folder) => std::fs::read_dir(folder.path()).unwrap().any(|file| {
                let file = std::fs::read(file.unwrap().path()).unwrap();
                file.windows(bytes.len()).any(|window| window == bytes)
            }),
            Place::Postgres(_) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                let rows = |table: &str| format!("(SELECT count(*) FROM {table} r WHERE CAST(r AS TEXT) LIKE '%{hex}%')");
                self.number(&format!("SELECT {}", ["webhooks", "models", "jobs"].map(rows).join(" + "))).await > 0
            }
        }
    }

    /// How many rows a table has.
    pub(crate) async fn count(&self, table: &str) -> i64 {
        self.number(&format!("SELECT count(*) FROM {table}")).await
    }

    /// The number that a query answers.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        self.place.number(sql).await
    }

    /// Bytes as a literal of the database.
    pub(crate) fn blob(&self, bytes: &[u8]) -> String {
        self.place.blob(bytes)
    }

    /// Ends all connections of the engine from the other side, if it has such.
    pub(crate) async fn cut_connections(&self) {
        if self.url().is_some() {
            let others = "datname = current_database() AND pid <> pg_backend_pid()";
            self.execute(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")).await;
        }
    }

    /// Ends all leases as if their time had passed, while silent workers were looked for as usual.
    pub(crate) async fn reap_ended_leases(&self) -> Reaped {
        self.engine.reap().await.unwrap();
        self.execute("UPDATE reaping SET grace_until_ms = 0").await;
        self.execute("UPDATE tasks SET lease_until_ms = 1 WHERE state = 'RUNNING'").await;
        self.engine.reap().await.unwrap()
    }

    /// Looks for silent workers all the time, for so long.
    pub(crate) async fn keep_reaping(&self, time: Duration) -> Reaped {
        let (end, mut all) = (tokio::time::Instant::now() + time, Reaped::default());
        while tokio::time::Instant::now() < end {
            let reaped = self.engine.reap().await.unwrap();
            all.requeued.extend(reaped.requeued);
            all.ended.extend(reaped.ended);
            tokio::time::sleep(LEASE / 16).await;
        }
        all
    }

    pub(crate) async fn session(&self) -> String {
        self.engine.open_session(NewSession { worker: "test".into(), is_local: false, devices: vec!["cpu".into()] }).await.unwrap()
    }

    pub(crate) async fn local_session(&self) -> String {
        self.engine.open_session(NewSession { worker: "local".into(), is_local: true, devices: Vec::new() }).await.unwrap()
    }

    /// Leases one task, which is there.
    pub(crate) async fn lease(&self, session: &str) -> Leased {
        self.try_lease(session).await.expect("a task is ready")
    }

    pub(crate) async fn try_lease(&self, session: &str) -> Option<Leased> {
        self.engine.lease(session, offer()).await.unwrap().pop()
    }

    /// A ready model whose jobs have this graph.
    pub(crate) async fn ready_model(&self, tenant: &str, id: &str, graph: v1::TaskGraph) -> Subject {
        self.engine.create_model(new_model(tenant, id)).await.unwrap();
        let session = self.session().await;
        let leased = self.lease(&session).await;
        assert_eq!(leased.lease.task.name, graph::REGISTER);
        self.engine.complete(&leased.lease, registered(tenant, graph), Usage::default()).await.unwrap();
        self.engine.close_session(&session, SessionEnd::InOrder).await.unwrap();
        Subject { kind: SubjectKind::Model, tenant: tenant.into(), id: id.into() }
    }

    /// Admits a job of a tenant's model.
    pub(crate) async fn job(&self, tenant: &str, model: &str) -> Subject {
        self.job_with(tenant, model, |_| {}).await
    }

    pub(crate) async fn job_with(&self, tenant: &str, model: &str, change: impl FnOnce(&mut v1::Job)) -> Subject {
        let mut new = new_job(tenant, model);
        change(&mut new.job);
        let job = self.engine.create_job(new).await.unwrap();
        subject_of(&job)
    }

    pub(crate) async fn get(&self, subject: &Subject) -> v1::Job {
        self.engine.job(&subject.tenant, &subject.id).await.unwrap().expect("the job is there")
    }

    /// The state of each task of a job, by name.
    pub(crate) async fn states(&self, subject: &Subject) -> BTreeMap<String, String> {
        self.engine.tasks(subject).await.unwrap().into_iter().map(|task| (task.name, task.state)).collect()
    }

    /// All events of a subject; checks that they are counted without gaps and end as the document says.
    pub(crate) async fn events(&self, subject: &Subject) -> Vec<v1::JobEvent> {
        let stored: Vec<StoredEvent> = self.engine.events(subject, 1, 10_000).await.unwrap();
        let events: Vec<v1::JobEvent> = stored.iter().map(|event| v1::JobEvent::decode(event.body.as_slice()).unwrap()).collect();
        for (i, (stored, event)) in stored.iter().zip(&events).enumerate() {
            assert_eq!((stored.sequence, event.sequence), (i as i64 + 1, i as i64 + 1), "{subject:?}");
        }
        events
    }
}

/// What all tests of this process log, from the first that asks on.
pub(crate) fn log() -> &'static Log {
    static LOG: LazyLock<Log> = LazyLock::new(|| {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        log
    });
    &LOG
}

/// Keys of artifacts, as an operator makes them; the first encrypts.
pub(crate) fn seal(keys: &[&str]) -> RecordSeal {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path).unwrap();
    for key in keys {
        writeln!(file, "{}", blake3::hash(key.as_bytes()).to_hex()).unwrap();
    }
    RecordSeal::new(Some(ArtifactKeys::read(&path).unwrap()))
}

pub(crate) fn offer() -> Offer {
    Offer { max_tasks: 1, n_slots: 1, device_bytes: u64::MAX, host_bytes: u64::MAX, cached_models: Vec::new() }
}

pub(crate) fn subject_of(job: &v1::Job) -> Subject {
    let name = zkinfer_proto::name::JobName::parse(&job.name).unwrap();
    Subject { kind: SubjectKind::Job, tenant: name.tenant, id: name.job_id }
}

pub(crate) fn new_model(tenant: &str, id: &str) -> NewModel {
    let model =
        v1::Model { name: format!("tenants/{tenant}/models/{id}"), state: v1::model::State::Compiling as i32, ..Default::default() };
    NewModel { model, source_bytes: 0, salt: [1; 32].into(), seed: [2; 32].into(), key: None }
}

pub(crate) fn new_job(tenant: &str, model: &str) -> NewJob {
    let job = v1::Job {
        name: format!("tenants/{tenant}/jobs/{}", uuid::Uuid::now_v7()),
        model: format!("tenants/{tenant}/models/{model}"),
        state: v1::job::State::Queued as i32,
        ..Default::default()
    };
    NewJob { job, input: None, input_salt: [3; 32].into(), seed: [4; 32].into(), key: None }
}

pub(crate) fn new_batch(models: &[&str], key: Option<RequestKey>) -> NewBatch {
    let jobs = models.iter().map(|model| new_job("acme", model)).collect();
    NewBatch { tenant: "acme".into(), id: uuid::Uuid::now_v7().to_string(), jobs, key }
}

pub(crate) fn key(request_id: &str, body: u8) -> Option<RequestKey> {
    Some(RequestKey { request_id: request_id.into(), request_hash: [body; 32] })
}

pub(crate) fn artifact(tenant: &str, class: Class, content: &[u8]) -> ArtifactFacts {
    ArtifactFacts {
        class,
        tenant: tenant.into(),
        digest: *blake3::hash(content).as_bytes(),
        size_bytes: content.len() as u64,
        media_type: "application/octet-stream".into(),
        created_ms: now_ms(),
    }
}

pub(crate) fn registered(tenant: &str, graph: v1::TaskGraph) -> Outcome {
    let private = artifact(tenant, Class::Internal, b"private");
    Outcome::Registered { registered: Box::default(), private_digest: private.digest, graph, artifacts: vec![private] }
}

pub(crate) fn step_result(tenant: &str, content: &str) -> Outcome {
    Outcome::Result(artifact(tenant, Class::Internal, content.as_bytes()))
}

pub(crate) fn proved(tenant: &str, content: &str) -> Outcome {
    let proof = artifact(tenant, Class::Public, content.as_bytes());
    let result = v1::JobResult { proof_artifact: content.into(), ..Default::default() };
    Outcome::Proved { result: Box::new(result), artifacts: vec![proof] }
}

/// `first` → `left`, `right` → `last`; `right` takes longer.
pub(crate) fn diamond() -> v1::TaskGraph {
    let node = |name: &str, needs: &[u32], estimated_ms| v1::TaskNode {
        name: name.into(),
        step: name.into(),
        needs: needs.to_vec(),
        estimated_ms,
        ..Default::default()
    };
    let nodes = vec![node("first", &[], 10), node("left", &[0], 10), node("right", &[0], 50), node("last", &[1, 2], 30)];
    let mut graph = v1::TaskGraph { nodes };
    graph::check(&graph).unwrap();
    graph::set_ranks(&mut graph).unwrap();
    graph
}

pub(crate) fn whole() -> v1::TaskGraph {
    graph::single(graph::PROVE, 100, 0)
}

/// Completes a task as its place in the graph asks.
pub(crate) async fn finish(world: &World, lease: &Lease) -> Result<(), zkinfer_server::engine::EngineError> {
    let tenant = &lease.task.subject.tenant;
    let outcome = match lease.task.name.as_str() {
        "prove" | "last" => proved(tenant, &format!("proof of {}", lease.task.subject.id)),
        name => step_result(tenant, name),
    };
    world.engine.complete(lease, outcome, Usage { device: "cpu".into(), ..Usage::default() }).await.map(drop)
}
