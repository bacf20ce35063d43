//! What each who asks is to have: [`crate::placement`] chooses from what is ready, after what they hold and what others are to have.

use std::collections::HashSet;
use std::time::Duration;

use super::super::{Leased, TaskKey};
use super::idle::IdleSessions;
use super::lease::{Holding, device_of};
use super::ready::{Asking, Ready, ReadyLists, WINDOW};
use super::tenants::{Tenant, sort_tenants};
use crate::placement::{self, Candidate, DeviceClass, DeviceOffer, KindSet, Sharing, TenantLoad, WeightsKey};

/// How often it is chosen again, if others were faster.
const ROUNDS: usize = WINDOW as usize;

/// One who asks, while tasks are chosen.
pub(super) struct Turn<'a> {
    pub(super) asking: Asking<'a>,
    pub(super) given: Vec<Leased>,
    /// In how long it pays to ask again, if time alone lets it have something.
    pub(super) look_again: Option<Duration>,
    /// What it may choose from; read when its turn comes first.
    ready: Option<Vec<&'a Ready>>,
    n_chosen: u32,
    rounds: usize,
}

/// What is ready, and what of it was chosen for somebody.
pub(super) struct Table<'a> {
    lists: &'a ReadyLists,
    tenants: Vec<Tenant>,
    tried: HashSet<&'a TaskKey>,
    idle: IdleSessions,
}

impl<'a> Table<'a> {
    pub(super) fn new(lists: &'a ReadyLists, tenants: Vec<Tenant>, idle: IdleSessions) -> Self {
        Self { lists, tenants, tried: HashSet::new(), idle }
    }

    /// Of what a turn may choose from what was not tried yet and is of a tenant that may run more now; with that tenant's place.
    fn untried(&self, ready: &[&'a Ready]) -> Vec<(usize, &'a Ready)> {
        let place = |ready: &Ready| {
            let may_run = |tenant: &Tenant| tenant.name == ready.task.subject.tenant && tenant.load.running < tenant.may_run;
            self.tenants.iter().position(may_run)
        };
        ready.iter().filter(|ready| !self.tried.contains(&ready.task)).filter_map(|ready| Some((place(ready)?, *ready))).collect()
    }

    fn tenant(&mut self, name: &str) -> Option<&mut Tenant> {
        self.tenants.iter_mut().find(|tenant| tenant.name == name)
    }
}

impl<'a> Turn<'a> {
    pub(super) fn new(asking: Asking<'a>) -> Self {
        Self { asking, given: Vec::new(), look_again: None, ready: None, n_chosen: 0, rounds: ROUNDS }
    }

    /// The tasks that it is to have next; they count as given until it is told that one could not be. None: it has what it can have, unless others miss
    /// theirs.
    pub(super) fn choose(&mut self, table: &mut Table<'a>, held: &mut Holding) -> Vec<&'a Ready> {
        if self.rounds == 0 {
            return Vec::new();
        }
        sort_tenants(&mut table.tenants);
        let ready = self.ready.get_or_insert_with(|| once_each(table.lists.of(&table.tenants, &self.asking)));
        let mut untried = table.untried(ready);
        let left_for_ms = if held.n_tasks > 0 { leave(&mut untried, &table.idle, &self.asking) } else { None };
        let slots = self.asking.offer.max_tasks.saturating_sub(self.n_chosen);
        let rules = placement::Limits {
            tasks_per_device: held.n_tasks.saturating_add(slots).max(self.asking.offer.n_slots).max(1),
            // What is left to others is not among them.
            share_after_ms: 0,
            ..placement::Limits::default()
        };
        let chosen = choose_tasks(&untried, &table.tenants, &self.asking, held, (slots, rules));
        self.look_again = chosen.look_again_ms.into_iter().chain(left_for_ms).min().map(Duration::from_millis);
        self.rounds -= usize::from(!chosen.choices.is_empty());
        let chosen = chosen.choices.iter().map(|choice| untried[choice.candidate].1);
        chosen.filter(|ready| self.count(table, held, ready)).collect()
    }

    /// Counts a task as given, unless its tenant runs as many as it may: one call may give a tenant several, and that limit is its own, not placement's.
    fn count(&mut self, table: &mut Table<'a>, held: &mut Holding, ready: &'a Ready) -> bool {
        let Some(tenant) = table.tenant(&ready.task.subject.tenant).filter(|tenant| tenant.load.running < tenant.may_run) else {
            return false;
        };
        tenant.load.running += 1;
        // What was given is gone; so is what somebody else had.
        table.tried.insert(&ready.task);
        table.idle.note(self.asking.session, true);
        held.n_tasks = held.n_tasks.saturating_add(1);
        held.promised_bytes = held.promised_bytes.saturating_add(ready.candidate.need_device_bytes);
        held.runs_alone |= ready.candidate.sharing == Sharing::Alone;
        self.n_chosen += 1;
        true
    }

    /// A task was given.
    pub(super) fn hit(&mut self, table: &mut Table<'a>, leased: Leased, now_ms: i64) {
        if let Some(tenant) = table.tenant(&leased.lease.task.subject.tenant) {
            tenant.load.last_leased_ms = now_ms.unsigned_abs();
        }
        self.given.push(leased);
    }

    /// A task could not be given. However many are `put_off`, those of other tenants have their turn.
    pub(super) fn miss(&mut self, table: &mut Table<'a>, held: &mut Holding, ready: &Ready, put_off: bool) {
        if let Some(tenant) = table.tenant(&ready.task.subject.tenant) {
            tenant.load.running = tenant.load.running.saturating_sub(1);
        }
        held.n_tasks = held.n_tasks.saturating_sub(1);
        table.idle.note(self.asking.session, held.n_tasks > 0);
        held.promised_bytes = held.promised_bytes.saturating_sub(ready.candidate.need_device_bytes);
        // It would have been the only one.
        held.runs_alone &= ready.candidate.sharing != Sharing::Alone;
        self.n_chosen = self.n_chosen.saturating_sub(1);
        self.rounds += usize::from(put_off);
    }
}

/// Takes out what is left to sessions that have nothing to do; answers in how many milliseconds the first of it is anybody's.
fn leave(untried: &mut Vec<(usize, &Ready)>, idle: &IdleSessions, asking: &Asking<'_>) -> Option<u64> {
    let mut soonest_ms = None;
    untried.retain(|(_, ready)| match idle.left_for_ms(ready, asking) {
        None => true,
        Some(left_ms) => {
            soonest_ms = Some(soonest_ms.map_or(left_ms, |soonest: u64| soonest.min(left_ms)));
            false
        }
    });
    soonest_ms
}

fn once_each<'a>(ready: impl Iterator<Item = &'a Ready>) -> Vec<&'a Ready> {
    let mut known = HashSet::new();
    ready.filter(|ready| known.insert(&ready.task)).collect()
}

/// The tasks that the session is to have, by their positions.
///
/// What the session tells is one device. What another session committed waits a little for that one, what another holds the weights of for the other. What a
/// task needs of its host is known only once it must run alone: nothing else takes of it.
fn choose_tasks(
    ready: &[(usize, &Ready)],
    tenants: &[Tenant],
    &Asking { session, offer, .. }: &Asking<'_>,
    held: &Holding,
    (slots, rules): (u32, placement::Limits),
) -> placement::Chosen {
    let device = DeviceOffer {
        id: device_of(session),
        class: DeviceClass::Gpu,
        total_bytes: offer.device_bytes,
        free_bytes: held.free_bytes(offer),
        running: held.n_tasks,
        runs_alone: held.runs_alone,
        cached: offer.cached_models.iter().copied().map(WeightsKey).collect(),
        is_healthy: true,
    };
    let (host_total_bytes, host_free_bytes) = (offer.host_bytes, offer.host_bytes);
    let of_session = placement::Offer { slots, devices: vec![device], host_total_bytes, host_free_bytes, kinds: KindSet::ALL };
    let loads: Vec<TenantLoad> = tenants.iter().map(|tenant| tenant.load).collect();
    let candidates: Vec<Candidate> = ready.iter().map(|(tenant, ready)| Candidate { tenant: *tenant, ..ready.candidate }).collect();
    placement::choose(&candidates, &of_session, &loads, &rules)
}
