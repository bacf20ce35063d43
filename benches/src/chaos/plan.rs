//! Who is killed, and when: drawn from a seed, so that a run that fails can be repeated.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::cluster::{Layout, Network, Store, Victim};

/// Longest wait between a number of jobs being done and the kill.
const MAX_DELAY_MS: u64 = 900;
/// Longest time that a victim stays dead.
const MAX_DOWNTIME_MS: u64 = 400;
/// Longest time that a cable stays unplugged, in leases.
const MAX_CUT_LEASES: u32 = 2;

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

/// `n_kills` kills spread over `n_jobs` jobs of a cluster.
pub fn strikes(seed: u64, n_jobs: usize, n_kills: usize, layout: &Layout) -> Vec<Strike> {
    let mut random = StdRng::seed_from_u64(seed);
    let longest_cut = layout.limits.lease * MAX_CUT_LEASES;
    (0..n_kills)
        .map(|i| {
            let delay = Duration::from_millis(random.gen_range(0..=MAX_DELAY_MS));
            let victim = victim(&mut random, layout);
            let downtime = match victim {
                Victim::Cable(_) => random.gen_range(Duration::ZERO..=longest_cut),
                _ => Duration::from_millis(random.gen_range(0..=MAX_DOWNTIME_MS)),
            };
            Strike { after_jobs: i * n_jobs / n_kills.max(1), delay, victim, downtime }
        })
        .collect()
}

fn victim(random: &mut StdRng, layout: &Layout) -> Victim {
    let mut victims = vec![Victim::Server(random.gen_range(0..layout.servers.count()))];
    if layout.n_workers > 0 {
        let worker = random.gen_range(0..layout.n_workers);
        victims.extend([Victim::Supervisor(worker), Victim::Prover(worker)]);
        if layout.network == Network::Namespaces {
            victims.push(Victim::Cable(worker));
        }
    }
    if layout.store == Store::Postgres {
        victims.push(Victim::Database);
    }
    victims[random.gen_range(0..victims.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::limits;
    use crate::cluster::{Clocks, Disks, Servers};

    fn layout(store: Store, network: Network) -> Layout {
        let limits = limits(Duration::from_secs(3));
        let (program, cache_dir) = ("zkinferd".into(), None);
        let servers = Servers::Roles { n_apis: 2, n_schedulers: 2 };
        let (clocks, disks) = (Clocks::Right, Disks::default());
        Layout { program, store, servers, limits, workers_in_server: 1, n_workers: 2, cache_dir, clocks, network, disks }
    }

    #[test]
    fn a_seed_gives_one_plan_that_reaches_to_the_last_jobs() {
        let layout = layout(Store::Postgres, Network::Namespaces);
        let plan = strikes(7, 200, 100, &layout);
        assert_eq!(plan, strikes(7, 200, 100, &layout));
        assert_ne!(plan, strikes(8, 200, 100, &layout));
        assert_eq!((plan[0].after_jobs, plan[99].after_jobs), (0, 198));
        let of_workers = [Victim::Supervisor(0), Victim::Supervisor(1), Victim::Prover(0), Victim::Database, Victim::Cable(1)];
        for victim in (0..4).map(Victim::Server).chain(of_workers) {
            assert!(plan.iter().any(|strike| strike.victim == victim), "{victim:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_killed() {
        let plan = strikes(7, 200, 100, &layout(Store::Sqlite, Network::Loopback));
        assert!(plan.iter().all(|strike| !matches!(strike.victim, Victim::Database | Victim::Cable(_))));
    }
}
