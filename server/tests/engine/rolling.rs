//! A program that meets a schema newer than its own: while a new version takes its place, and after a step back.

use std::process::Command;

use zkinfer_proto::v1::job::State;
use zkinfer_server::engine::{NewSession, Resources as _, TaskEngine as _};

use crate::earlier::{upgrade, versions};
use crate::world::{Place, World, finish, log, new_job, offer, subject_of, whole};

/// What the next version of the schema adds, as its migration says it: the program of this one works with it.
fn wider(known: i64) -> String {
    format!(
        "ALTER TABLE jobs ADD COLUMN colour TEXT; CREATE INDEX jobs_colour ON jobs(colour); CREATE TABLE colours(name TEXT NOT NULL PRIMARY KEY); {}",
        told(known + 1, known)
    )
}

fn told(version: i64, oldest_program: i64) -> String {
    format!("INSERT INTO schema_compatibility(version, oldest_program) VALUES ({version}, {oldest_program})")
}

fn known(place: &Place) -> i64 {
    versions(place).into_iter().max().unwrap()
}

pub(crate) async fn each_migration_says_which_programs_work_with_it(world: World) {
    let silent = "_sqlx_migrations WHERE version >= 10 AND version NOT IN (SELECT version FROM schema_compatibility)";
    assert_eq!(world.count(silent).await, 0);
    assert!(world.count("schema_compatibility").await > 0);
}

pub(crate) async fn a_program_goes_on_and_starts_again_on_a_wider_schema(world: World) {
    let known = known(world.place());
    world.ready_model("acme", "net", whole()).await;
    let session = world.session().await;
    let jobs = [world.job("acme", "net").await, world.job("acme", "net").await];
    let held = world.lease(&session).await;
    upgrade(world.place(), &[wider(known)]).await;

    // The program that runs, with what it has in hand and what it has prepared.
    finish(&world, &held.lease).await.unwrap();
    finish(&world, &world.lease(&session).await.lease).await.unwrap();
    let third = world.job("acme", "net").await;
    if world.url().is_some() {
        // Another that starts beside it: jobs of one are done at the other.
        let beside = world.place().engine().await.unwrap();
        let session = beside.open_session(NewSession::default()).await.unwrap();
        let leased = beside.lease(&session, offer()).await.unwrap().pop().expect("the job of the other");
        assert_eq!(leased.lease.task.subject, third);
        beside.release(&leased.lease, Default::default()).await.unwrap();
        let fourth = subject_of(&beside.create_job(new_job("acme", "net")).await.unwrap());
        for subject in [&third, &fourth] {
            let leased = world.lease(&world.session().await).await;
            assert_eq!(leased.lease.task.subject, *subject);
            finish(&world, &leased.lease).await.unwrap();
        }
    }

    // And the one that starts again.
    let before = log().text().len();
    let world = world.restart().await;
    let (found, own, text) = (format!("version={}", known + 1), format!("known={known}"), log().text().split_off(before));
    assert!(text.contains("says that it works with it") && text.contains(&found) && text.contains(&own), "{text}");
    let last = world.job("acme", "net").await;
    let session = world.session().await;
    while let Some(leased) = world.try_lease(&session).await {
        finish(&world, &leased.lease).await.unwrap();
    }
    for subject in jobs.iter().chain([&third, &last]) {
        assert_eq!(world.get(subject).await.state(), State::Succeeded);
    }
}

pub(crate) async fn a_program_refuses_a_schema_that_is_not_for_it_and_says_what_to_do(world: World) {
    let place = world.close().await;
    let known = known(&place);
    let refusal = async || place.engine().await.unwrap_err().to_string();
    let expected = |version: i64, oldest: i64| {
        format!(
            "the database's schema is at version {version} and works with programs that know version {oldest} or a later one; this one knows {known}: \
             start the newer program again, or restore the database from before the upgrade"
        )
    };
    let mut migrations = vec![wider(known), "CREATE TABLE silent(name TEXT)".to_owned()];
    upgrade(&place, &migrations).await;
    assert_eq!(refusal().await, expected(known + 2, known + 2), "what says nothing is for nobody before it");
    // What takes something away is not undone by what adds something after it.
    migrations.push(format!("{}; {}", told(known + 3, known + 1), told(known + 2, known)));
    upgrade(&place, &migrations).await;
    migrations.push(told(known + 4, known));
    upgrade(&place, &migrations).await;
    assert_eq!(refusal().await, expected(known + 4, known + 1));
}

#[tokio::test]
async fn the_command_that_migrates_leaves_a_newer_schema_alone_and_says_so() {
    let Some(place) = Place::postgres("the command that migrates") else { return };
    let (known, url) = (known(&place), place.url());
    let migrate = || Command::new(env!("CARGO_BIN_EXE_zkinferd")).args(["migrate", "--database", &url]).output().unwrap();
    let said = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim_end().to_owned();
    for _ in 0..2 {
        assert_eq!(said(migrate().stdout), format!("the schema is at version {known}"));
    }
    let mut migrations = vec![wider(known)];
    upgrade(&place, &migrations).await;
    let output = migrate();
    assert!(output.status.success());
    let expected =
        format!("the schema is at version {}, newer than this program's, {known}, and works with it: nothing was done", known + 1);
    assert_eq!(said(output.stdout), expected);

    migrations.push(format!("DROP TABLE colours; {}", told(known + 2, known + 1)));
    upgrade(&place, &migrations).await;
    let output = migrate();
    assert_eq!(output.status.code(), Some(1), "so that a chart of the older version changes nothing");
    let expected = format!("works with programs that know version {} or a later one; this one knows {known}: start the newer", known + 1);
    let text = said(output.stderr);
    assert!(text.contains(&expected), "{text}");
    assert_eq!(place.number("SELECT max(version) FROM _sqlx_migrations").await, known + 2);
}
