//! Plans that PostgreSQL makes while tables are almost empty: connections keep them until the statistics of a table are taken again. Of a table without
//! statistics it assumes ten pages, and of two indexes that would both find one row there it may take the one with the fewer columns.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};

use crate::world::{World, whole};

/// So many take more than the pages with which a table is worth a look.
const N_JOBS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(30);

const UPDATE_ATTEMPT: &str =
    "UPDATE attempts SET ended_ms = $1 WHERE kind = $2 AND tenant = $3 AND subject = $4 AND ordinal = $5 AND epoch = $6";
const UPDATE_TASK: &str =
    "UPDATE tasks SET epoch = $1 WHERE kind = $2 AND tenant = $3 AND subject = $4 AND ordinal = $5 AND epoch = $6 AND state = $7";
const UPDATE_JOB: &str = "UPDATE jobs SET doc = $1 WHERE tenant = $2 AND id = $3";

/// The plan that a connection would keep, whatever the values.
async fn plan(connection: &mut PgConnection, statement: &str) -> String {
    connection.execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
    connection.execute(AssertSqlSafe(format!("PREPARE kept AS {statement}"))).await.unwrap();
    let n_values = (1..).take_while(|n| statement.contains(&format!("${n}"))).count();
    let explain = format!("EXPLAIN EXECUTE kept({})", vec!["NULL"; n_values].join(", "));
    let lines = connection.fetch_all(AssertSqlSafe(explain)).await.unwrap();
    connection.execute("DEALLOCATE kept").await.unwrap();
    lines.iter().map(|line| line.get::<String, _>(0) + "\n").collect()
}

#[tokio::test]
async fn attempts_and_tasks_are_found_by_their_keys_from_the_first_on() {
    let Some(world) = World::postgres("plans_of_empty_tables").await else { return };
    let mut connection = PgConnection::connect(world.url().unwrap()).await.unwrap();
    let of_attempt = plan(&mut connection, UPDATE_ATTEMPT).await;
    assert!(of_attempt.contains("attempts_pkey"), "{of_attempt}");
    let of_task = plan(&mut connection, UPDATE_TASK).await;
    assert!(of_task.contains("tasks_pkey") || of_task.contains("tasks_kind_tenant_subject_name_key"), "{of_task}");
}

#[tokio::test]
async fn statistics_are_taken_as_soon_as_there_is_something_to_count() {
    let Some(world) = World::postgres("plans_of_first_jobs").await else { return };
    world.ready_model("acme", "net", whole()).await;
    for _ in 0..N_JOBS {
        world.job("acme", "net").await;
    }
    let known = "SELECT reltuples::bigint FROM pg_class WHERE relname = 'jobs'";
    let is_known = async {
        while world.number(known).await < 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_known).await.expect("PostgreSQL itself looks once a minute");
    let mut connection = PgConnection::connect(world.url().unwrap()).await.unwrap();
    let of_job = plan(&mut connection, UPDATE_JOB).await;
    assert!(of_job.contains("jobs_pkey"), "{of_job}");
}
