//! What is ready, read once for all who ask in a transaction: the best of each tenant, of each model at hand, and of what each session committed.
//!
//! The text of the statement depends on who asks. Those that come again and again, with few tenants, models and sizes of memory, are kept prepared.

use std::collections::{HashMap, HashSet};

use sqlx::any::AnyRow;

use super::super::{EngineError, Offer, Subject, SubjectKind, TaskKey};
use super::Writing;
use super::holders::Holders;
use super::lease::{device_of, get};
use super::many::{Part, fetch_united, row};
use super::tenants::Tenant;
use crate::placement::{self, Candidate, Pool, Sharing, TaskKind, WeightsKey};

/// The best tasks of each tenant that each who asks chooses from.
pub(super) const WINDOW: i64 = 16;
/// Tasks of a list that are read at most.
const MAX_WINDOW: i64 = 256;
/// A statement of more tenants' and models' lists is not kept prepared: there would be too many.
const MAX_KEPT_LISTS: usize = 2;
/// Lists of a statement, at most. SQLite takes 500.
const MAX_LISTS: usize = 450;
/// The best tasks of each model at hand, and of what the session committed.
const AT_HAND: i64 = 3;
/// Models at hand that are looked at.
const MAX_MODELS: usize = 8;

/// The columns of a ready task, by the index of the list that it is on.
macro_rules! ready {
    ($condition:literal) => {
        concat!(
            "SELECT kind, tenant, subject, ordinal, name, step, priority, rank_ms, created_ms, estimated_ms, device_bytes, host_bytes, load_ms, model_digest, sibling, \
               epoch, attempts, deaths, failed_memory, not_before_ms FROM tasks WHERE state = 'READY' AND not_before_ms <= ? AND device_bytes <= ? AND host_bytes <= ? AND ",
            $condition,
            " ORDER BY level DESC, rank_ms DESC, created_ms, subject, ordinal LIMIT ?"
        )
    };
}

/// The best tasks of a tenant.
const OF_TENANT: &str = ready!("tenant = ?");
/// The best tasks with a model that the session holds ready.
const OF_MODEL: &str = ready!("model_digest = ?");
/// The best tasks that open what the session committed.
const OF_SIBLING: &str = ready!("sibling = ?");

/// A ready task.
pub(super) struct Ready {
    pub(super) task: TaskKey,
    pub(super) ordinal: i64,
    pub(super) epoch: i64,
    pub(super) attempts: i64,
    /// As placement sees it.
    pub(super) candidate: Candidate,
}

/// A session that asks.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) session: &'a str,
    pub(super) offer: &'a Offer,
    /// What is left of its device.
    pub(super) free_bytes: u64,
}

/// What those who ask choose from.
#[derive(Default)]
pub(super) struct ReadyLists(HashMap<List, Vec<Ready>>);

/// The most memory that a task of a list may need: what does not fit must not hide what does.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Fit {
    device_bytes: i64,
    host_bytes: i64,
}

/// What is on a list.
#[derive(Clone, PartialEq, Eq, Hash)]
enum List {
    Tenant(String, Fit),
    Model([u8; 32], Fit),
    Session(String, Fit),
}

impl List {
    fn part(&self, now_ms: i64, n_wanted: i64) -> Part {
        // So that enough is left for the last.
        let at_most = |n: i64| n.saturating_add(n_wanted).min(MAX_WINDOW);
        match self {
            Self::Tenant(tenant, fit) => Part::new(OF_TENANT, row![now_ms, fit.device_bytes, fit.host_bytes, tenant, at_most(WINDOW)]),
            Self::Model(model, fit) => Part::new(OF_MODEL, row![now_ms, fit.device_bytes, fit.host_bytes, *model, at_most(AT_HAND)]),
            Self::Session(session, fit) => Part::new(OF_SIBLING, row![now_ms, fit.device_bytes, fit.host_bytes, session, AT_HAND]),
        }
    }
}

impl ReadyLists {
    pub(super) async fn read(
        writing: &mut Writing,
        tenants: &[Tenant],
        asked: &[Asking<'_>],
        holders: &Holders,
    ) -> Result<Self, EngineError> {
        let now_ms = writing.now_ms;
        let n_wanted: i64 = asked.iter().map(|asking| i64::from(asking.offer.max_tasks)).sum();
        let lists = lists(tenants, asked);
        let is_kept = lists.iter().filter(|list| !matches!(list, List::Session(..))).count() <= MAX_KEPT_LISTS;
        let mut read = Self::default();
        for lists in lists.chunks(MAX_LISTS) {
            let parts: Vec<Part> = lists.iter().map(|list| list.part(now_ms, n_wanted)).collect();
            for (part, row) in fetch_united(writing.connection(), &parts, is_kept).await? {
                if let Some(list) = lists.get(part) {
                    read.0.entry(list.clone()).or_default().push(ready_task(&row, now_ms, holders)?);
                }
            }
        }
        Ok(read)
    }

    /// Whether something has been ready for less than so long.
    pub(super) fn have_news(&self, within_ms: u64) -> bool {
        self.0.values().flatten().any(|ready| ready.candidate.waiting_ms < within_ms)
    }

    /// All that one who asks may choose from; a task may be there more than once.
    pub(super) fn of<'a>(&'a self, tenants: &[Tenant], asking: &Asking<'_>) -> impl Iterator<Item = &'a Ready> + use<'a> {
        lists_of(tenants, asking).into_iter().filter_map(|list| self.0.get(&list)).flatten()
    }
}

/// The lists of all who ask, each once.
fn lists(tenants: &[Tenant], asked: &[Asking<'_>]) -> Vec<List> {
    let mut known = HashSet::new();
    asked.iter().flat_map(|asking| lists_of(tenants, asking)).filter(|list| known.insert(list.clone())).collect()
}

fn lists_of(tenants: &[Tenant], asking: &Asking<'_>) -> Vec<List> {
    let &Asking { session, offer, free_bytes } = asking;
    let column = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
    // Rounded up, so that hosts of about one size have lists in common; who chooses looks at the exact one.
    let host_bytes = column(offer.host_bytes.checked_next_power_of_two().unwrap_or(u64::MAX));
    let [free, all] = [free_bytes, offer.device_bytes].map(|bytes| Fit { device_bytes: column(bytes), host_bytes });
    let of_tenants = |fit: Fit| tenants.iter().map(move |tenant| List::Tenant(tenant.name.clone(), fit));
    // What does not fit now may have waited so long that the device is kept free for it.
    let starving = (free.device_bytes < all.device_bytes).then(|| of_tenants(all));
    let of_models = offer.cached_models.iter().take(MAX_MODELS).map(|model| List::Model(*model, free));
    of_tenants(free).chain(of_models).chain([List::Session(session.to_owned(), free)]).chain(starving.into_iter().flatten()).collect()
}

fn number(row: &AnyRow, column: &str) -> Result<u64, sqlx::Error> {
    Ok(u64::try_from(get::<i64>(row, column)?).unwrap_or(0))
}

fn ready_task(row: &AnyRow, now_ms: i64, holders: &Holders) -> Result<Ready, EngineError> {
    let kind: String = get(row, "kind")?;
    let subject = Subject { kind: SubjectKind::from_task_kind(&kind), tenant: get(row, "tenant")?, id: get(row, "subject")? };
    let (ordinal, step): (i64, String) = (get(row, "ordinal")?, get(row, "step")?);
    let model: Option<Vec<u8>> = get(row, "model_digest")?;
    let weights = model.and_then(|digest| digest.try_into().ok()).map(WeightsKey);
    let sibling: Option<String> = get(row, "sibling")?;
    let since_ms = number(row, "created_ms")?.max(number(row, "not_before_ms")?);
    let candidate = Candidate {
        key: placement::TaskKey {
            job: job_number(&subject, number(row, "created_ms")?),
            number: u32::try_from(ordinal).unwrap_or(u32::MAX),
        },
        // Where its tenant is among those who may run more, is known when it is chosen.
        tenant: 0,
        kind: TaskKind::of_name(&step).unwrap_or(TaskKind::Prove),
        rank_ms: number(row, "rank_ms")?,
        priority: i32::try_from(get::<i64>(row, "priority")?).unwrap_or(0),
        job_created_ms: number(row, "created_ms")?,
        estimated_ms: number(row, "estimated_ms")?,
        need_device_bytes: number(row, "device_bytes")?,
        need_host_bytes: number(row, "host_bytes")?,
        pool: Pool::Any,
        // A task that a worker died with, or that found no memory, runs alone: the next time tells the guilty from its neighbours.
        sharing: if number(row, "deaths")? + number(row, "failed_memory")? > 0 { Sharing::Alone } else { Sharing::Shared },
        weights,
        n_holders: weights.map_or(0, |WeightsKey(model)| holders.count(&model)),
        sibling: sibling.as_deref().map(device_of),
        // What was committed must be committed again elsewhere: part of the work. Weights are preferred though what they take is not known.
        move_ms: match (&sibling, weights) {
            (Some(_), _) => number(row, "estimated_ms")? / 2,
            (None, Some(_)) => number(row, "load_ms")?.max(1),
            (None, None) => 0,
        },
        waiting_ms: now_ms.unsigned_abs().saturating_sub(since_ms),
    };
    Ok(Ready {
        task: TaskKey { subject, name: get(row, "name")? },
        ordinal,
        epoch: get(row, "epoch")?,
        attempts: get(row, "attempts")?,
        candidate,
    })
}

/// A job's UUID as a number; a registration's begins with its time, as theirs do.
fn job_number(subject: &Subject, created_ms: u64) -> u128 {
    let of_registration = || u128::from(created_ms) << 80;
    uuid::Uuid::parse_str(&subject.id).map_or_else(|_| of_registration(), |id| id.as_u128())
}
