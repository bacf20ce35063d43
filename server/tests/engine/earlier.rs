//! Databases of other versions. Rows as the services of earlier ones had written them: models, ready and to be registered, and jobs of every kind, at rest
//! and in flight. The schema as later ones leave it.

use prost::Message as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqlSafeStr as _, SqliteConnection};
use zkinfer_proto::v1;
use zkinfer_proto::v1::job::State;
use zkinfer_server::artifacts::Class;
use zkinfer_server::engine::{UploadFacts, now_ms, timestamp};

use crate::world::{LEASE, Place, artifact, diamond, key};

static SQLITE: Migrator = sqlx::migrate!("./migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("./migrations/postgres");

/// The worker that held tasks when the service stopped.
pub(crate) const OLD_SESSION: &str = "0190c7a2-0000-7000-8000-00000000000a";
/// The request id that the job `ready` came with.
pub(crate) const REQUEST: &str = "0190c7a2-0000-7000-8000-00000000000b";

/// A task: name, state, names of those that it needs.
type Task = (&'static str, &'static str, &'static [&'static str]);

/// A job: id, model, state, its last event, tasks.
type Job = (&'static str, &'static str, State, i64, &'static [Task]);

const JOBS: [Job; 5] = [
    ("ready", "net", State::Queued, 1, &[("prove", "READY", &[])]),
    ("running", "net", State::Running, 2, &[("prove", "RUNNING", &[])]),
    ("stopping", "net", State::Cancelling, 3, &[("prove", "RUNNING", &[])]),
    ("done", "net", State::Succeeded, 3, &[("prove", "DONE", &[])]),
    ("failed", "net", State::Failed, 3, &[("prove", "FAILED", &[])]),
];

/// Since there are graphs and batches.
const GRAPH_JOBS: [Job; 2] = [
    ("batched", "net", State::Queued, 1, &[("prove", "READY", &[])]),
    (
        "steps",
        "steps",
        State::Running,
        3,
        &[("first", "DONE", &[]), ("left", "RUNNING", &["first"]), ("right", "READY", &["first"]), ("last", "WAITING", &["left", "right"])],
    ),
];

/// The versions of a database's schema, oldest first.
pub(crate) fn versions(place: &Place) -> Vec<i64> {
    migrator(place).iter().map(|migration| migration.version).collect()
}

fn migrator(place: &Place) -> &'static Migrator {
    match place {
        Place::Sqlite(_) => &SQLITE,
        Place::Postgres(_) => &POSTGRES,
    }
}

/// What the program of a later version does, whose migrations after those of this one are these.
pub(crate) async fn upgrade(place: &Place, added: &[String]) {
    let known = migrator(place).iter().cloned().collect::<Vec<_>>();
    let last = known.iter().map(|migration| migration.version).max().unwrap();
    let added = (last + 1..).zip(added).map(|(version, sql)| {
        Migration::new(version, "later".into(), MigrationType::Simple, AssertSqlSafe(sql.clone()).into_sql_str(), false)
    });
    let later = Migrator::with_migrations(known.into_iter().chain(added).collect());
    match place {
        Place::Sqlite(_) => later.run(&mut SqliteConnection::connect(&place.url()).await.unwrap()).await.unwrap(),
        Place::Postgres(_) => later.run(&mut PgConnection::connect(&place.url()).await.unwrap()).await.unwrap(),
    }
}

/// The upload that has begun.
pub(crate) fn upload() -> UploadFacts {
    UploadFacts {
        tenant: "acme".into(),
        id: "0190c7a2-0000-7000-8000-00000000000c".into(),
        digest: [7; 32],
        size_bytes: 100,
        media_type: "application/octet-stream".into(),
        committed_bytes: 40,
        is_complete: false,
    }
}

/// A database of that version, with what its service had written.
pub(crate) struct Earlier<'a> {
    place: &'a Place,
    version: i64,
    now_ms: i64,
    sql: String,
}

impl<'a> Earlier<'a> {
    pub(crate) fn new(place: &'a Place, version: i64) -> Self {
        Self { place, version, now_ms: now_ms(), sql: String::new() }
    }

    /// Whether jobs have graphs, and there are batches, sessions, webhooks: not yet in the first version of SQLite's schema.
    pub(crate) fn has_graphs(&self) -> bool {
        matches!(self.place, Place::Postgres(_)) || self.has("graphs")
    }

    fn has(&self, migration: &str) -> bool {
        migrator(self.place).iter().any(|known| known.description == migration && known.version <= self.version)
    }

    pub(crate) async fn write(mut self) {
        for model in if self.has_graphs() { &["net", "steps"][..] } else { &["net"] } {
            self.push_model(model);
        }
        for job in JOBS.iter().chain(if self.has_graphs() { &GRAPH_JOBS[..] } else { &[] }) {
            self.push_job(job);
            for (ordinal, task) in job.4.iter().enumerate() {
                self.push_task(job, ordinal, task);
            }
        }
        self.push_registration();
        self.push_request_and_upload();
        if self.has_graphs() {
            self.push_others();
        }
        if self.has("outages") {
            let now_ms = self.now_ms;
            self.push(format!("UPDATE reaping SET reaped_ms = {now_ms}"));
        }
        let (url, version, sql) = (self.place.url(), self.version, AssertSqlSafe(self.sql));
        match self.place {
            Place::Sqlite(_) => {
                let mut connection = SqliteConnection::connect(&url).await.unwrap();
                SQLITE.run_to(version, &mut connection).await.unwrap();
                sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
            Place::Postgres(_) => {
                let mut connection = PgConnection::connect(&url).await.unwrap();
                POSTGRES.run_to(version, &mut connection).await.unwrap();
                sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    fn push(&mut self, statement: String) {
        self.sql += &statement;
        self.sql += ";\n";
    }

    /// When everything was created.
    fn created_ms(&self) -> i64 {
        self.now_ms - 60_000
    }

    fn push_model(&mut self, id: &str) {
        let model = v1::Model {
            name: format!("tenants/acme/models/{id}"),
            state: v1::model::State::Ready as i32,
            create_time: Some(timestamp(self.created_ms())),
            last_sequence: 3,
            ..Default::default()
        };
        let (document, zeros, created_ms) = (self.place.blob(&model.encode_to_vec()), self.place.blob(&[0; 32]), self.created_ms());
        self.push(format!(
            "INSERT INTO models(tenant, id, state, created_ms, last_seq, doc, salt, seed, private_digest) \
             VALUES ('acme', '{id}', 2, {created_ms}, 3, {document}, {zeros}, {zeros}, {zeros})"
        ));
        if id == "steps" {
            let graph = self.place.blob(&diamond().encode_to_vec());
            self.push(format!("UPDATE models SET graph = {graph} WHERE id = 'steps'"));
        }
    }

    /// A model that waits for its registration.
    fn push_registration(&mut self) {
        let model = v1::Model {
            name: "tenants/acme/models/fresh".into(),
            state: v1::model::State::Compiling as i32,
            create_time: Some(timestamp(self.created_ms())),
            last_sequence: 1,
            ..Default::default()
        };
        let event = v1::ModelEvent { sequence: 1, state: model.state, ..Default::default() };
        let (document, zeros, created_ms) = (self.place.blob(&model.encode_to_vec()), self.place.blob(&[0; 32]), self.created_ms());
        let (state, event) = (model.state, self.place.blob(&event.encode_to_vec()));
        self.push(format!(
            "INSERT INTO models(tenant, id, state, created_ms, last_seq, doc, salt, seed) \
             VALUES ('acme', 'fresh', {state}, {created_ms}, 1, {document}, {zeros}, {zeros})"
        ));
        self.push(format!("INSERT INTO events(kind, tenant, subject, seq, body) VALUES ('REGISTER', 'acme', 'fresh', 1, {event})"));
        let level = -created_ms / 20_000;
        self.push(match self.has_graphs() {
            true => format!(
                "INSERT INTO tasks(kind, tenant, subject, ordinal, name, step, state, waiting_on, priority, level, created_ms, rank_ms, estimated_ms, \
                   device_bytes) \
                 VALUES ('REGISTER', 'acme', 'fresh', 0, 'register', 'register', 'READY', 0, 0, {level}, {created_ms}, 0, 0, 0)"
            ),
            false => "INSERT INTO tasks(kind, tenant, subject, state, priority) VALUES ('REGISTER', 'acme', 'fresh', 'READY', 0)".to_owned(),
        });
    }

    fn document(&self, (id, model, state, last_sequence, _): &Job) -> v1::Job {
        let is_final = matches!(state, State::Succeeded | State::Failed);
        v1::Job {
            name: format!("tenants/acme/jobs/{id}"),
            model: format!("tenants/acme/models/{model}"),
            state: *state as i32,
            create_time: Some(timestamp(self.created_ms())),
            end_time: is_final.then(|| timestamp(self.created_ms() + 1)),
            last_sequence: *last_sequence,
            labels: [("kind".to_owned(), "old".to_owned())].into(),
            result: (*state == State::Succeeded).then(|| v1::JobResult { proof_artifact: "proof".into(), ..Default::default() }),
            ..Default::default()
        }
    }

    fn push_job(&mut self, job: &Job) {
        let (id, model, state, last_sequence, _) = job;
        let (created_ms, state_number) = (self.created_ms(), *state as i32);
        let (document, seed) = (self.place.blob(&self.document(job).encode_to_vec()), self.place.blob(&[1; 32]));
        let secret = if matches!(state, State::Succeeded | State::Failed) { "NULL".to_owned() } else { seed };
        let stop = if *state == State::Cancelling { "'CANCEL', 'enough'" } else { "NULL, NULL" };
        let batch = if *id == "batched" { "'old-batch'" } else { "NULL" };
        let (columns, values) = match self.has_graphs() {
            true => ("priority, batch", format!("4, {batch}")),
            false => ("labels", "'{\"kind\":\"old\"}'".to_owned()),
        };
        self.push(format!(
            "INSERT INTO jobs(tenant, id, model_id, state, created_ms, last_seq, doc, stop_cause, stop_note, input_salt, seed, {columns}) \
             VALUES ('acme', '{id}', '{model}', {state_number}, {created_ms}, {last_sequence}, {document}, {stop}, {secret}, {secret}, {values})"
        ));
        if self.has_graphs() {
            self.push(format!("INSERT INTO job_labels(tenant, job, key, value) VALUES ('acme', '{id}', 'kind', 'old')"));
        }
        for sequence in 1..=*last_sequence {
            let body = v1::JobEvent { sequence, state: state_number, ..Default::default() }.encode_to_vec();
            let body = self.place.blob(&body);
            self.push(format!("INSERT INTO events(kind, tenant, subject, seq, body) VALUES ('PROVE', 'acme', '{id}', {sequence}, {body})"));
        }
    }

    fn push_task(&mut self, (id, _, _, _, tasks): &Job, ordinal: usize, (name, state, needs): &Task) {
        let epoch = i32::from(!matches!(*state, "READY" | "WAITING"));
        if !self.has_graphs() {
            return self.push(format!(
                "INSERT INTO tasks(kind, tenant, subject, state, priority, epoch, attempt) VALUES ('PROVE', 'acme', '{id}', '{state}', 4, {epoch}, {epoch})"
            ));
        }
        let (created_ms, level, zeros) = (self.created_ms(), 4 - self.created_ms() / 20_000, self.place.blob(&[0; 32]));
        let waiting_on = if *state == "WAITING" { needs.len() } else { 0 };
        let (session, lease_until_ms) = match *state {
            "RUNNING" => (format!("'{OLD_SESSION}'"), self.now_ms + LEASE.as_millis() as i64),
            _ => ("NULL".to_owned(), 0),
        };
        let output = if *name == "first" { self.place.blob(&result_of_first().digest) } else { "NULL".to_owned() };
        self.push(format!(
            "INSERT INTO tasks(kind, tenant, subject, ordinal, name, step, state, waiting_on, priority, level, created_ms, rank_ms, estimated_ms, \
               device_bytes, model_digest, epoch, session, lease_until_ms, attempts, output) \
             VALUES ('PROVE', 'acme', '{id}', {ordinal}, '{name}', '{name}', '{state}', {waiting_on}, 4, {level}, {created_ms}, 10, 10, 0, {zeros}, \
               {epoch}, {session}, {lease_until_ms}, {epoch}, {output})"
        ));
        for needed in *needs {
            let needed = tasks.iter().position(|(name, ..)| name == needed).unwrap();
            self.push(format!("INSERT INTO deps(tenant, job, needs, task) VALUES ('acme', '{id}', {needed}, {ordinal})"));
        }
        if epoch == 1 {
            let (ended, outcome) = match *state {
                "RUNNING" => ("NULL".to_owned(), ""),
                "FAILED" => ((created_ms + 1).to_string(), "INTERNAL"),
                done => ((created_ms + 1).to_string(), done),
            };
            self.push(format!(
                "INSERT INTO attempts(kind, tenant, subject, ordinal, epoch, worker, started_ms, ended_ms, outcome) \
                 VALUES ('PROVE', 'acme', '{id}', {ordinal}, 1, 'old', {created_ms}, {ended}, '{outcome}')"
            ));
        }
    }

    fn push_request_and_upload(&mut self) {
        let (created_ms, upload) = (self.created_ms(), upload());
        let response = self.place.blob(&self.document(&JOBS[0]).encode_to_vec());
        let hash = self.place.blob(&key(REQUEST, 1).unwrap().request_hash);
        self.push(format!(
            "INSERT INTO idempotency(tenant, method, request_id, request_hash, response, created_ms) \
             VALUES ('acme', 'CreateJob', '{REQUEST}', {hash}, {response}, {created_ms})"
        ));
        let digest = self.place.blob(&upload.digest);
        self.push(format!(
            "INSERT INTO uploads(tenant, id, digest, size_bytes, media_type, committed_bytes, is_complete, created_ms) \
             VALUES ('acme', '{}', {digest}, 100, 'application/octet-stream', 40, 0, {created_ms})",
            upload.id
        ));
        let digest = self.place.blob(&result_of_first().digest);
        let (column, value) = if self.has("garbage") { (", is_counted", ", 1") } else { ("", "") };
        self.push(format!(
            "INSERT INTO artifacts(tenant, class, digest, size_bytes, media_type, created_ms{column}) \
             VALUES ('acme', 'INTERNAL', {digest}, 5, 'application/octet-stream', {created_ms}{value})"
        ));
        if self.has("garbage") {
            self.push(format!(
                "INSERT INTO artifact_references(tenant, class, digest, kind, subject) VALUES ('acme', 'INTERNAL', {digest}, 'TASK', 'steps')"
            ));
        }
    }

    /// What there is beside jobs and tasks since there are graphs.
    fn push_others(&mut self) {
        let (created_ms, now_ms, secret) = (self.created_ms(), self.now_ms, self.place.blob(&[5; 32]));
        self.push(format!(
            "INSERT INTO sessions(id, worker, is_local, devices, opened_ms, seen_ms) VALUES ('{OLD_SESSION}', 'old', 0, 'cpu', {created_ms}, {now_ms})"
        ));
        self.push(format!("INSERT INTO batches(tenant, id, n_jobs, created_ms) VALUES ('acme', 'old-batch', 1, {created_ms})"));
        self.push(format!("INSERT INTO results(tenant, job, proof, published_ms) VALUES ('acme', 'done', 'proof', {created_ms})"));
        self.push(format!(
            "INSERT INTO webhooks(tenant, id, url, secret, created_ms) VALUES ('acme', 'hook', 'http://127.0.0.1/', {secret}, {created_ms})"
        ));
        self.push(format!("INSERT INTO outbox(tenant, webhook, job, seq, not_before_ms) VALUES ('acme', 'hook', 'done', 3, {created_ms})"));
    }
}

/// What the step `first` gave.
fn result_of_first() -> zkinfer_server::engine::ArtifactFacts {
    artifact("acme", Class::Internal, b"first")
}
