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
    /// In how many milliseconds it pays to ask again though nothing else happens: then a task that still waits for its preferred place may be stolen.
    /// `None` if there is no such task, or no slot is left.
    pub look_again_ms: Option<u64>,
}

/// A tenant that may still have tasks to give.
struct Queue {
    load: TenantLoad,
    tasks: Vec<usize>,
}

/// Chooses tasks for a session's offer.
///
/// Each step serves the tenant with the least `running / share` of those that have a task which some device may take now, and gives it the first such
/// task in the order of its level, its rank less what must be moved, its age and its key, on the device where it moves least. The result depends on
/// nothing but the arguments, and not on the order of the candidates. `O((slots + tenants) · candidates · devices)`.
pub fn choose(candidates: &[Candidate], offer: &Offer, loads: &[TenantLoad], limits: &Limits) -> Chosen {
    let mut room = Room::new(offer, limits);
    room.reserve(candidates);
    let mut queues = queues(candidates, offer, loads);
    let mut choices = Vec::new();
    while choices.len() < offer.slots as usize {
        let Some(index) = least_served(&queues) else { break };
        let Some((position, spot)) = first_task(&queues[index].tasks, candidates, &room, limits) else {
            // Room only shrinks: what does not fit now does not fit later in this call.
            queues.remove(index);
            continue;
        };
        let task = queues[index].tasks.swap_remove(position);
        room.place(&candidates[task], spot);
        queues[index].load.served();
        choices.push(Choice { candidate: task, device: spot.device, moved_ms: spot.moved_ms });
    }
    let look_again_ms = if choices.len() < offer.slots as usize { look_again_ms(candidates, offer, &choices, &room) } else { None };
    Chosen { choices, look_again_ms }
}

/// The tenants with their tasks of the offer's kinds, in the order of the loads.
fn queues(candidates: &[Candidate], offer: &Offer, loads: &[TenantLoad]) -> Vec<Queue> {
    let mut queues: Vec<Queue> = loads.iter().map(|&load| Queue { load, tasks: Vec::new() }).collect();
    for (index, candidate) in candidates.iter().enumerate().filter(|(_, candidate)| offer.kinds.contains(candidate.kind)) {
        if let Some(queue) = queues.get_mut(candidate.tenant) {
            queue.tasks.push(index);
        }
    }
    queues.retain(|queue| !queue.tasks.is_empty());
    queues
}

/// The first of equals: the order of the loads is the last tie-breaker.
fn least_served(queues: &[Queue]) -> Option<usize> {
    (0..queues.len()).min_by(|&left, &right| queues[left].load.compare(&queues[right].load))
}

/// The first task in order that has a spot, as a position in `tasks`.
fn first_task(tasks: &[usize], candidates: &[Candidate], room: &Room<'_>, limits: &Limits) -> Option<(usize, Spot)> {
    let placed = |(position, &task): (usize, &usize)| {
        let candidate = &candidates[task];
        let spot = room.best_spot(candidate)?;
        Some((order(candidate, spot.moved_ms, limits), position, spot))
    };
    tasks.iter().enumerate().filter_map(placed).min_by_key(|(order, ..)| *order).map(|(_, position, spot)| (position, spot))
}

fn look_again_ms(candidates: &[Candidate], offer: &Offer, choices: &[Choice], room: &Room<'_>) -> Option<u64> {
    let is_left = |index: usize| choices.iter().all(|choice| choice.candidate != index);
    let waiting = candidates.iter().enumerate().filter(|(index, candidate)| offer.kinds.contains(candidate.kind) && is_left(*index));
    waiting.filter_map(|(_, candidate)| room.stealable_in_ms(candidate)).min()
}
