//! Artifacts and uploads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prost::Message as _;
use sqlx::Row as _;
use sqlx::any::AnyRow;
use zkinfer_proto::v1;

use super::super::{ArtifactFacts, ArtifactRecords, Digest, EngineError, EngineFuture, Forgotten, RequestKey, UploadFacts};
use super::garbage::{artifact_id, require};
use super::many::{Many, row};
use super::room::count_alone;
use super::{SqlEngine, Writing, fixed, idempotency};
use crate::artifacts::{ArtifactId, Class};

impl ArtifactRecords for SqlEngine {
    fn add_artifact(&self, facts: ArtifactFacts) -> EngineFuture<'_, ()> {
        Box::pin(async move {
            let mut writing = self.begin().await?;
            insert_artifact(&mut writing, &facts).await?;
            self.commit(writing).await?;
            Ok(())
        })
    }

    fn artifact(&self, class: Class, tenant: &str, digest: Digest) -> EngineFuture<'_, Option<ArtifactFacts>> {
        let tenant = tenant.to_owned();
        Box::pin(async move {
            let row: Option<(i64, String, i64)> = sqlx::query_as(
                "SELECT size_bytes, media_type, created_ms FROM artifacts \
                 WHERE tenant = $1 AND class = $2 AND digest = $3 AND doomed_ms IS NULL",
            )
            .bind(&tenant)
            .bind(class.as_str())
            .bind(digest.to_vec())
            .fetch_optional(&self.readers)
            .await?;
            Ok(row.map(|(size_bytes, media_type, created_ms)| ArtifactFacts {
                class,
                tenant,
                digest,
                size_bytes: size_bytes.unsigned_abs(),
                media_type,
                created_ms,
            }))
        })
    }

    fn create_upload(&self, upload: UploadFacts, key: Option<RequestKey>) -> EngineFuture<'_, UploadFacts> {
        Box::pin(self.insert_upload(upload, key))
    }

    fn upload(&self, tenant: &str, id: &str) -> EngineFuture<'_, Option<UploadFacts>> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        Box::pin(async move {
            let row = sqlx::query("SELECT * FROM uploads WHERE tenant = $1 AND id = $2")
                .bind(tenant)
                .bind(id)
                .fetch_optional(&self.readers)
                .await?;
            row.as_ref().map(upload_facts).transpose()
        })
    }

    fn unfinished_uploads(&self, tenant: &str) -> EngineFuture<'_, Vec<String>> {
        let unfinished = sqlx::query_scalar("SELECT id FROM uploads WHERE tenant = $1 AND is_complete = 0").bind(tenant.to_owned());
        Box::pin(async move { Ok(unfinished.fetch_all(&self.readers).await?) })
    }

    fn set_committed(&self, tenant: &str, id: &str, bytes: u64) -> EngineFuture<'_, ()> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        Box::pin(async move {
            let mut writing = self.begin().await?;
            sqlx::query("UPDATE uploads SET committed_bytes = $1 WHERE tenant = $2 AND id = $3")
                .bind(column(bytes))
                .bind(tenant)
                .bind(id)
                .execute(writing.connection())
                .await?;
            self.commit(writing).await?;
            Ok(())
        })
    }

    fn complete_upload(&self, id: &str, facts: ArtifactFacts) -> EngineFuture<'_, ()> {
        let id = id.to_owned();
        Box::pin(async move {
            let mut writing = self.begin().await?;
            insert_artifact(&mut writing, &facts).await?;
            sqlx::query(
                "UPDATE uploads SET is_complete = 1, committed_bytes = size_bytes \
                 WHERE tenant = $1 AND id = $2",
            )
            .bind(&facts.tenant)
            .bind(id)
            .execute(writing.connection())
            .await?;
            self.commit(writing).await?;
            Ok(())
        })
    }

    fn forget_older(&self, age: Duration, limit: u32) -> EngineFuture<'_, Forgotten> {
        Box::pin(self.forget_page(age, limit))
    }
}

impl SqlEngine {
    async fn insert_upload(&self, upload: UploadFacts, key: Option<RequestKey>) -> Result<UploadFacts, EngineError> {
        const METHOD: &str = "BeginUpload";
        let mut writing = self.begin().await?;
        let response = v1::UploadSession { upload: upload.id.clone(), ..Default::default() }.encode_to_vec();
        if let Some(response) = idempotency::claim(&mut writing, &upload.tenant, METHOD, key.as_ref(), &response).await? {
            // The answer that counts is how far the upload is now.
            let first = v1::UploadSession::decode(response.as_slice()).map_err(EngineError::Damaged)?;
            let row = sqlx::query("SELECT * FROM uploads WHERE tenant = $1 AND id = $2")
                .bind(&upload.tenant)
                .bind(first.upload)
                .fetch_optional(writing.connection())
                .await?;
            let known = row.as_ref().map_or(Ok(upload), upload_facts);
            self.commit(writing).await?;
            return known;
        }
        count_alone(&mut writing, "uploads", &upload.tenant).await?;
        let open: i64 = sqlx::query_scalar("SELECT count(*) FROM uploads WHERE tenant = $1 AND is_complete = 0")
            .bind(&upload.tenant)
            .fetch_one(writing.connection())
            .await?;
        if open >= i64::from(self.rules.uploads_per_tenant) && !upload.is_complete {
            let limit = self.rules.uploads_per_tenant;
            return Err(EngineError::QuotaExceeded { what: "unfinished uploads", limit });
        }
        sqlx::query(
            "INSERT INTO uploads(tenant, id, digest, size_bytes, media_type, committed_bytes, \
             is_complete, created_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&upload.tenant)
        .bind(&upload.id)
        .bind(upload.digest.to_vec())
        .bind(column(upload.size_bytes))
        .bind(&upload.media_type)
        .bind(column(upload.committed_bytes))
        .bind(i64::from(upload.is_complete))
        .bind(writing.now_ms)
        .execute(writing.connection())
        .await?;
        self.commit(writing).await?;
        Ok(upload)
    }
}

fn upload_facts(row: &AnyRow) -> Result<UploadFacts, EngineError> {
    Ok(UploadFacts {
        tenant: row.try_get("tenant")?,
        id: row.try_get("id")?,
        digest: fixed(&row.try_get::<Vec<u8>, _>("digest")?)?,
        size_bytes: row.try_get::<i64, _>("size_bytes")?.unsigned_abs(),
        media_type: row.try_get("media_type")?,
        committed_bytes: row.try_get::<i64, _>("committed_bytes")?.unsigned_abs(),
        is_complete: row.try_get::<i64, _>("is_complete")? != 0,
    })
}

/// Sizes are bounded far below 2^63 by the limits.
fn column(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Records an artifact, which stays until the transaction ends.
///
/// # Errors
/// [`EngineError::ArtifactGone`] if it is doomed.
async fn insert_artifact(writing: &mut Writing, facts: &ArtifactFacts) -> Result<(), EngineError> {
    let artifact = id_of(facts);
    record_and_require(writing, std::slice::from_ref(facts), &[artifact]).await
}

/// Records artifacts, and checks that all that are `referred` are recorded and not doomed; so it stays until the transaction ends.
///
/// # Errors
/// [`EngineError::ArtifactGone`].
pub(super) async fn record_and_require(
    writing: &mut Writing,
    artifacts: &[ArtifactFacts],
    referred: &[ArtifactId],
) -> Result<(), EngineError> {
    let recorded = record_artifacts(writing, artifacts).await?;
    // Nobody else sees what this transaction records before it ends.
    let others: Vec<ArtifactId> = referred.iter().filter(|artifact| !recorded.contains(*artifact)).cloned().collect();
    if others.is_empty() { Ok(()) } else { require(writing, &others).await }
}

/// Records artifacts; answers those that were not recorded yet.
async fn record_artifacts(writing: &mut Writing, artifacts: &[ArtifactFacts]) -> Result<BTreeSet<ArtifactId>, EngineError> {
    // Their age is compared with the engine's clock, so it is taken from there. All lock in one order.
    let now_ms = writing.now_ms;
    let artifacts: BTreeMap<ArtifactId, &ArtifactFacts> = artifacts.iter().map(|facts| (id_of(facts), facts)).collect();
    let row = |facts: &&ArtifactFacts| {
        row![&facts.tenant, facts.class.as_str(), facts.digest, column(facts.size_bytes), &facts.media_type, now_ms]
    };
    let rows: Vec<_> = artifacts.values().map(row).collect();
    let inserted = Many::new(
        "INSERT INTO artifacts(tenant, class, digest, size_bytes, media_type, created_ms, is_counted) VALUES ",
        "(?, ?, ?, ?, ?, ?, 1)",
        " ON CONFLICT DO NOTHING RETURNING tenant, class, digest",
    )
    .fetch(writing.connection(), &rows)
    .await?;
    inserted.iter().map(|row| artifact_id((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
}

pub(super) fn id_of(facts: &ArtifactFacts) -> ArtifactId {
    ArtifactId { class: facts.class, tenant: facts.tenant.clone(), digest: facts.digest }
}
