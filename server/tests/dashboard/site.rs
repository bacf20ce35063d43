//! The dashboard on a port of this machine, over an engine whose workers do what a test says.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use zkinfer_proto::name::ArtifactName;
use zkinfer_proto::v1;
use zkinfer_server::artifacts::Class;
use zkinfer_server::auth::{Authentication, KeyFile, Scopes};
use zkinfer_server::dashboard::{self, Dashboard};
use zkinfer_server::engine::sql::SqlEngine;
use zkinfer_server::engine::{
    ArtifactFacts, Engine, Leased, NewJob, NewModel, NewSession, Offer, Outcome, SessionEnd, Subject, SubjectKind, Usage, graph, now_ms,
    timestamp,
};
use zkinfer_server::limits::Limits;
use zkinfer_server::scheduler::Hub;

/// What a label is that wants to be markup.
pub(crate) const HOSTILE: &str = "<img src=x onerror=\"document.title='taken'\"></script><script>alert(1)</script>";
/// Bytes that no answer may hold.
pub(crate) const SECRET: [u8; 32] = *b"this is the salt of a commitment";

pub(crate) struct Site {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) address: SocketAddr,
    pub(crate) closing: CancellationToken,
}

/// Which port it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Loopback,
    /// Served on loopback like the other, but told that it is not.
    Network,
}

impl Site {
    pub(crate) async fn start(folder: &Path, authentication: Authentication, port: Port) -> Self {
        let limits = Limits { retry_backoff: Duration::ZERO, ..Limits::default() };
        let engine: Arc<dyn Engine> = Arc::new(SqlEngine::open_sqlite(folder, &limits).await.unwrap());
        let (hub, closing) = (Arc::new(Hub::default()), CancellationToken::new());
        let router = dashboard::router(Dashboard {
            engine: Arc::downgrade(&engine),
            hub: hub.clone(),
            authentication,
            is_loopback: port == Port::Loopback,
            limits,
            closing: closing.clone(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { engine, hub, address, closing }
    }

    pub(crate) async fn session(&self, worker: &str, devices: &[&str]) -> String {
        let devices = devices.iter().map(|device| (*device).to_owned()).collect();
        self.engine.open_session(NewSession { worker: worker.into(), is_local: false, devices }).await.unwrap()
    }

    pub(crate) async fn lease(&self, session: &str) -> Leased {
        let offer = Offer { max_tasks: 1, n_slots: 1, device_bytes: u64::MAX, host_bytes: u64::MAX, cached_models: Vec::new() };
        let leased = self.engine.lease(session, offer).await.unwrap().pop().expect("a task is ready");
        self.hub.changed(&leased.lease.task.subject);
        leased
    }

    /// A model whose jobs have a task for each of `n_layers` layers between two others; without layers, one task.
    pub(crate) async fn model(&self, tenant: &str, id: &str, n_layers: u32) {
        let model = v1::Model {
            name: format!("tenants/{tenant}/models/{id}"),
            display_name: HOSTILE.into(),
            state: v1::model::State::Compiling as i32,
            create_time: Some(timestamp(now_ms())),
            ..Default::default()
        };
        self.engine.create_model(NewModel { model, source_bytes: 0, salt: SECRET.into(), seed: SECRET.into(), key: None }).await.unwrap();
        let session = self.session("registrar", &[]).await;
        let leased = self.lease(&session).await;
        let private = artifact(tenant, b"private");
        let registered = v1::RegisteredModel { layer_count: n_layers, parameter_count: 1234, ..Default::default() };
        let outcome = Outcome::Registered {
            registered: Box::new(registered),
            private_digest: private.digest,
            graph: if n_layers == 0 { graph::single(graph::PROVE, 10, 0) } else { layered(n_layers) },
            artifacts: vec![private],
        };
        self.engine.complete(&leased.lease, outcome, Usage::default()).await.unwrap();
        self.engine.close_session(&session, SessionEnd::InOrder).await.unwrap();
    }

    pub(crate) async fn job(&self, tenant: &str, model: &str, label: &str) -> Subject {
        let id = uuid::Uuid::now_v7().to_string();
        let stored = ArtifactFacts { class: Class::Public, ..artifact(tenant, b"input") };
        let input = ArtifactName { tenant: tenant.into(), blake3: stored.digest }.to_string();
        self.engine.add_artifact(stored).await.unwrap();
        let input = v1::Input { source: Some(v1::input::Source::Artifact(input)), ..Default::default() };
        let job = v1::Job {
            name: format!("tenants/{tenant}/jobs/{id}"),
            model: format!("tenants/{tenant}/models/{model}"),
            input: Some(input),
            context_nonce: SECRET.to_vec(),
            labels: [("note".to_owned(), label.to_owned())].into(),
            state: v1::job::State::Queued as i32,
            create_time: Some(timestamp(now_ms())),
            ..Default::default()
        };
        self.engine.create_job(NewJob { job, input: None, input_salt: SECRET.into(), seed: SECRET.into(), key: None }).await.unwrap();
        let subject = Subject { kind: SubjectKind::Job, tenant: tenant.into(), id };
        self.hub.changed(&subject);
        subject
    }

    /// Ends a task well on a device, where it fell back to if there is a reason.
    pub(crate) async fn finish(&self, leased: &Leased, device: &str, fallback: &str) {
        let task = &leased.lease.task;
        let facts = artifact(&task.subject.tenant, format!("{} of {}", task.name, task.subject.id).as_bytes());
        let outcome = match task.name.as_str() {
            "outer" | graph::PROVE => {
                let result =
                    v1::JobResult { proof_artifact: "tenants/acme/artifacts/proof".into(), proof_bytes: 2048, ..Default::default() };
                Outcome::Proved { result: Box::new(result), artifacts: vec![facts] }
            }
            _ => Outcome::Result(facts),
        };
        let usage = Usage { device: device.into(), fallback: fallback.into(), ..Usage::default() };
        self.engine.complete(&leased.lease, outcome, usage).await.unwrap();
        self.hub.changed(&task.subject);
    }

    /// Tells how many of four layers a task that is a whole job has done.
    pub(crate) async fn progress(&self, leased: &Leased, done: u32) {
        let stage = v1::Stage { name: "layer".into(), total: 4, done, elapsed: None };
        let progress = v1::Progress { stages: vec![stage], fraction: f64::from(done) / 4.0, phase: "layer".into(), ..Default::default() };
        self.engine.progress(&leased.lease, progress).await.unwrap();
        self.hub.changed(&leased.lease.task.subject);
    }
}

/// `witness` → `layer-0000` … → `outer`.
fn layered(n_layers: u32) -> v1::TaskGraph {
    let node =
        |name: String, step: &str, needs: Vec<u32>| v1::TaskNode { name, step: step.into(), needs, estimated_ms: 10, ..Default::default() };
    let mut nodes = vec![node("witness".into(), "witness", vec![])];
    nodes.extend((0..n_layers).map(|layer| node(format!("layer-{layer:04}"), "layer", vec![0])));
    nodes.push(node("outer".into(), "outer", (1..=n_layers).collect()));
    let mut graph = v1::TaskGraph { nodes };
    graph::check(&graph).unwrap();
    graph::set_ranks(&mut graph).unwrap();
    graph
}

fn artifact(tenant: &str, content: &[u8]) -> ArtifactFacts {
    ArtifactFacts {
        class: Class::Internal,
        tenant: tenant.into(),
        digest: *blake3::hash(content).as_bytes(),
        size_bytes: content.len() as u64,
        media_type: "application/octet-stream".into(),
        created_ms: now_ms(),
    }
}

/// A new key of `scopes` in the file at `path`.
pub(crate) fn new_key(path: &Path, name: &str, scopes: &str) -> String {
    let key = KeyFile::at(path).create("acme", name, Scopes::parse(scopes).unwrap(), None).unwrap();
    key.secret.expose_secret().to_owned()
}
