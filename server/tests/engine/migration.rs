//! A database of the first version, with jobs in flight, goes on under this one.

use std::path::Path;

use prost::Message as _;
use sqlx::{Connection as _, SqliteConnection};
use zkinfer_proto::v1;
use zkinfer_proto::v1::job::State;
use zkinfer_server::engine::sql::SqlEngine;
use zkinfer_server::engine::{Engine, NewSession, Resources as _, Subject, SubjectKind, TaskEngine as _, Work};

use crate::world::{limits, offer, proved};

const FIRST: &str = include_str!("../../migrations/sqlite/0001_init.sql");

/// Makes a database as the first version left it: a ready model, and jobs that waited, ran, were told to stop while they ran, and ended.
async fn first_version(folder: &Path) {
    let url = format!("sqlite://{}?mode=rwc", folder.join("zkinfer.db").display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    let migrations = folder.join("migrations");
    std::fs::create_dir(&migrations).unwrap();
    std::fs::write(migrations.join("0001_init.sql"), FIRST).unwrap();
    sqlx::migrate::Migrator::new(migrations).await.unwrap().run(&mut connection).await.unwrap();
    let model =
        v1::Model { name: "tenants/acme/models/net".into(), state: v1::model::State::Ready as i32, last_sequence: 3, ..Default::default() };
    sqlx::query("INSERT INTO models VALUES ('acme', 'net', 2, 5, 3, ?, zeroblob(32), zeroblob(32), zeroblob(32))")
        .bind(model.encode_to_vec())
        .execute(&mut connection)
        .await
        .unwrap();
    for (id, state, task, stop) in [
        ("waiting", State::Queued, "READY", None),
        ("running", State::Running, "RUNNING", None),
        ("stopping", State::Cancelling, "RUNNING", Some("CANCEL")),
        ("ended", State::Succeeded, "DONE", None),
    ] {
        let job = v1::Job {
            name: format!("tenants/acme/jobs/{id}"),
            model: model.name.clone(),
            state: state as i32,
            last_sequence: 2,
            ..Default::default()
        };
        sqlx::query(
            "INSERT INTO jobs VALUES ('acme', ?, 'net', ?, 7, NULL, '{\"kind\":\"old\"}', 2, ?, ?, 'enough', zeroblob(32), zeroblob(32))",
        )
        .bind(id)
        .bind(state as i32)
        .bind(job.encode_to_vec())
        .bind(stop)
        .execute(&mut connection)
        .await
        .unwrap();
        sqlx::query("INSERT INTO tasks(kind, tenant, subject, state, priority, epoch, attempt) VALUES ('PROVE', 'acme', ?, ?, 4, 1, 1)")
            .bind(id)
            .bind(task)
            .execute(&mut connection)
            .await
            .unwrap();
        for seq in [1, 2] {
            sqlx::query("INSERT INTO events VALUES ('PROVE', 'acme', ?, ?, ?)")
                .bind(id)
                .bind(seq)
                .bind(v1::JobEvent { sequence: seq, ..Default::default() }.encode_to_vec())
                .execute(&mut connection)
                .await
                .unwrap();
        }
    }
    connection.close().await.unwrap();
}

fn job(id: &str) -> Subject {
    Subject { kind: SubjectKind::Job, tenant: "acme".into(), id: id.into() }
}

#[tokio::test]
async fn jobs_in_flight_survive_the_migration() {
    let folder = tempfile::tempdir().unwrap();
    first_version(folder.path()).await;
    let engine = SqlEngine::open_sqlite(folder.path(), &limits()).await.unwrap();
    let reaped = engine.recover().await.unwrap();
    assert_eq!(reaped.ended, [job("stopping")]);
    let state = async |id: &str| engine.job("acme", id).await.unwrap().unwrap().state();
    assert_eq!(state("stopping").await, State::Cancelled);
    assert_eq!(state("ended").await, State::Succeeded);
    let session = engine.open_session(NewSession::default()).await.unwrap();
    let mut done = Vec::new();
    while let Some(leased) = engine.lease(&session, offer()).await.unwrap().pop() {
        assert!(matches!(leased.work, Work::Prove(_)));
        engine.complete(&leased.lease, proved("acme", "proof"), Default::default()).await.unwrap();
        done.push((leased.lease.task.subject.id, leased.attempt));
    }
    assert_eq!(done, [("running".to_owned(), 2), ("waiting".to_owned(), 2)]);
    for id in ["waiting", "running"] {
        assert_eq!(state(id).await, State::Succeeded);
        let sequences: Vec<i64> = engine.events(&job(id), 1, 100).await.unwrap().iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, (1..=sequences.len() as i64).collect::<Vec<_>>());
    }
    let old = zkinfer_server::engine::JobFilter { labels: vec![("kind".into(), "old".into())], ..Default::default() };
    let page = engine.list_jobs("acme", old, zkinfer_server::engine::PageRequest { size: 10, after: None }).await.unwrap();
    assert_eq!(page.items.len(), 4, "labels are found as before");
    let _: &dyn Engine = &engine;
}
