//! Who is killed, and when: drawn from a seed, so that a run that fails can be repeated.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::cluster::{Store, Victim};

/// Longest wait between a number of jobs being done and the kill.
const MAX_DELAY_MS: u64 = 900;
/// Longest time that the victim stays dead.
const MAX_DOWNTIME_MS: u64 = 400;

/// One kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    /// Not before so many jobs are done.
    pub after_jobs: usize,
    /// And so long after that.
    pub delay: Duration,
    /// Whom.
    pub victim: Victim,
    /// It stays dead for so long.
    pub downtime: Duration,
}

/// `n_kills` kills spread over `n_jobs` jobs.
pub fn strikes(seed: u64, n_jobs: usize, n_kills: usize, n_workers: usize, store: Store) -> Vec<Strike> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..n_kills)
        .map(|i| Strike {
            after_jobs: i * n_jobs / n_kills.max(1),
            delay: Duration::from_millis(random.gen_range(0..=MAX_DELAY_MS)),
            victim: victim(&mut random, n_workers, store),
            downtime: Duration::from_millis(random.gen_range(0..=MAX_DOWNTIME_MS)),
        })
        .collect()
}

fn victim(random: &mut StdRng, n_workers: usize, store: Store) -> Victim {
    let worker = random.gen_range(0..n_workers.max(1));
    let n_kinds = if store == Store::Postgres { 4 } else { 3 };
    match random.gen_range(0..n_kinds) {
        0 => Victim::Server,
        1 if n_workers > 0 => Victim::Supervisor(worker),
        2 if n_workers > 0 => Victim::Prover(worker),
        3 => Victim::Database,
        _ => Victim::Server,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_plan_that_reaches_to_the_last_jobs() {
        let plan = strikes(7, 200, 100, 2, Store::Postgres);
        assert_eq!(plan, strikes(7, 200, 100, 2, Store::Postgres));
        assert_ne!(plan, strikes(8, 200, 100, 2, Store::Postgres));
        assert_eq!((plan[0].after_jobs, plan[99].after_jobs), (0, 198));
        for victim in [Victim::Server, Victim::Supervisor(0), Victim::Supervisor(1), Victim::Prover(0), Victim::Database] {
            assert!(plan.iter().any(|strike| strike.victim == victim), "{victim:?}");
        }
    }

    #[test]
    fn sqlite_has_no_process_to_kill() {
        assert!(strikes(7, 200, 100, 2, Store::Sqlite).iter().all(|strike| strike.victim != Victim::Database));
    }
}
