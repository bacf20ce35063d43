//! The choice: tenant, task, device, again and again until slots or tasks run out.

use super::fairness::TenantLoad;
use super::limits::Limits;
use super::offer::Offer;
use super::order::order;
use super::room::{Room, Spot};
use super::task::Candidate;

/// A task that is to be leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Position in the list of candidates.
    pub candidate: usize,
    /// Position in the offer's devices.
    pub device: usize,
    /// What has to be moved to the device, in milliseconds of work; 0 where everything is.
    pub moved_ms: u64,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// In the order of the decisions.
    pub choices: Vec<Choice>,
    /// In how many milliseconds it pays to ask again though nothing else happens: then a task that still waits for its preferred place may be stolen,
    /// or join others. `None` if there is no such task, or no slot is left.
    pub look_again_ms: Option<u64>,
}

/// A tenant that may still have tasks to give.
struct Queue {
    load: TenantLoad,
    tasks: Vec<usize>,
    first: Option<First>,
}

/// A tenant's first task in order: position in its queue, and where it would go.
#[derive(Clone, Copy)]
struct First {
    position: usize,
    spot: Spot,
}

/// Chooses tasks for a session's offer.
///
/// Each step serves the tenant with the least `running / share` of those that have a task which some device may take now, or one close to it that need
/// move nothing, and gives it the first such task in the order of its level, whether something must be moved, its rank, its age and its key, on the
/// device where it moves least. The result depends on nothing but the arguments, and not on the order of the candidates.
/// `O((slots + tenants) · candidates · devices)`.
pub fn choose(candidates: &[Candidate], offer: &Offer, loads: &[TenantLoad], limits: &Limits) -> Chosen {
    let mut room = Room::new(offer, loads, limits);
    room.reserve(candidates);
    let mut queues = queues(candidates, offer, loads);
    let mut choices = Vec::new();
    while choices.len() < offer.slots as usize {
        // Room only shrinks: a tenant none of whose tasks fits now has none that fits later in this call.
        queues.retain_mut(|queue| queue.find_first(candidates, &room, limits));
        let Some((queue, first)) = next(&mut queues, limits) else { break };
        let task = queue.tasks.swap_remove(first.position);
        room.place(&candidates[task], first.spot);
        queue.load.served();
        choices.push(Choice { candidate: task, device: first.spot.device, moved_ms: first.spot.moved_ms });
    }
    let look_again_ms = if choices.len() < offer.slots as usize { look_again_ms(candidates, offer, &choices, &room) } else { None };
    Chosen { choices, look_again_ms }
}

/// The tenants with their tasks of the offer's kinds, in the order of the loads.
fn queues(candidates: &[Candidate], offer: &Offer, loads: &[TenantLoad]) -> Vec<Queue> {
    let mut queues: Vec<Queue> = loads.iter().map(|&load| Queue { load, tasks: Vec::new(), first: None }).collect();
    for (index, candidate) in candidates.iter().enumerate().filter(|(_, candidate)| offer.kinds.contains(candidate.kind)) {
        if let Some(queue) = queues.get_mut(candidate.tenant) {
            queue.tasks.push(index);
        }
    }
    queues.retain(|queue| !queue.tasks.is_empty());
    queues
}

impl Queue {
    /// Finds the first task in order that has a spot; answers whether there is one.
    fn find_first(&mut self, candidates: &[Candidate], room: &Room<'_>, limits: &Limits) -> bool {
        let placed = |(position, &task): (usize, &usize)| {
            let candidate = &candidates[task];
            let spot = room.best_spot(candidate)?;
            Some((order(candidate, spot.moved_ms, limits), First { position, spot }))
        };
        let first = self.tasks.iter().enumerate().filter_map(placed).min_by_key(|(order, _)| *order);
        self.first = first.map(|(_, first)| first);
        self.first.is_some()
    }
}

/// The tenant to be served: the one that has least, or one close to it whose first task need move nothing if that one's must. The order of the loads is
/// the last tie-breaker.
fn next<'a>(queues: &'a mut [Queue], limits: &Limits) -> Option<(&'a mut Queue, First)> {
    let least = queues.iter().min_by(|left, right| left.load.compare(&right.load))?.load;
    let order = |queue: &Queue| {
        let is_home = queue.first.is_some_and(|first| first.spot.moved_ms == 0);
        let is_close = queue.load.is_close(&least, limits.share_slack_percent);
        !(is_home && is_close)
    };
    let queue = queues.iter_mut().min_by(|left, right| order(left).cmp(&order(right)).then(left.load.compare(&right.load)))?;
    let first = queue.first?;
    Some((queue, first))
}

fn look_again_ms(candidates: &[Candidate], offer: &Offer, choices: &[Choice], room: &Room<'_>) -> Option<u64> {
    let is_left = |index: usize| choices.iter().all(|choice| choice.candidate != index);
    let waiting = candidates.iter().enumerate().filter(|(index, candidate)| offer.kinds.contains(candidate.kind) && is_left(*index));
    waiting.filter_map(|(_, candidate)| room.patience_ends_in_ms(candidate)).min()
}
