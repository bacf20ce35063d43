//! What holds over time: tasks arrive, run and end at random; shares, overtaking, and that nobody starves.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A cluster of one session, minimally: tasks end after as many turns as they take.
struct Cluster {
    offer: Offer,
    loads: Vec<TenantLoad>,
    ready: Vec<Candidate>,
    /// By device: task and the turn at whose begin it ends.
    running: Vec<Vec<(Candidate, u64)>>,
    limits: Limits,
}

impl Cluster {
    fn new(n_devices: u128, shares: &[u32]) -> Self {
        let loads = shares.iter().map(|&share| load(0, share)).collect();
        let running = (0..n_devices).map(|_| Vec::new()).collect();
        let limits = Limits {
            tasks_per_device: 2,
            aging_ms: 100,
            priority_span: 2,
            share_after_ms: 0,
            reserve_after_ms: 50,
            reserve_step_ms: 10,
            ..Limits::default()
        };
        Self { offer: offer(0, (0..n_devices).map(device).collect()), loads, ready: Vec::new(), running, limits }
    }

    /// One turn, of 10 ms: ends what has run, leases again. Answers the tasks that were started.
    fn turn(&mut self, now: u64) -> Vec<Candidate> {
        for (device, running) in self.offer.devices.iter_mut().zip(&mut self.running) {
            for (task, _) in running.iter().filter(|(_, ends)| *ends <= now) {
                self.loads[task.tenant].running -= 1;
            }
            running.retain(|(_, ends)| *ends > now);
            device.free_bytes = device.total_bytes - running.iter().map(|(task, _)| task.need_device_bytes).sum::<u64>();
            device.running = running.len() as u32;
            device.runs_alone = running.iter().any(|(task, _)| task.sharing == Sharing::Alone);
        }
        self.offer.slots = 64;
        let chosen = choose(&self.ready, &self.offer, &self.loads, &self.limits).choices;
        let mut started = Vec::new();
        for choice in &chosen {
            let task = self.ready[choice.candidate];
            self.loads[task.tenant].running += 1;
            self.loads[task.tenant].last_leased_ms = now * 10;
            self.running[choice.device].push((task, now + task.estimated_ms));
            started.push(task);
        }
        self.ready.retain(|task| started.iter().all(|other| other.key != task.key));
        self.ready.iter_mut().for_each(|task| task.waiting_ms += 10);
        started
    }
}

/// Sizes of tasks: duration in turns, GiB.
fn tasks() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec((1_u64..6, 1_u64..5), 16)
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn tenants_with_work_get_their_shares(sizes in tasks(), shares in prop::collection::vec(1_u32..5, 3)) {
        let mut cluster = Cluster::new(8, &shares);
        let (slots, all, n) = (16.0, f64::from(shares.iter().sum::<u32>()), shares.len() as f64);
        let mut job = 0_u128;
        for at in 0..200 {
            for tenant in 0..shares.len() {
                while cluster.ready.iter().filter(|task| task.tenant == tenant).count() < 16 {
                    let (turns, _) = sizes[job as usize % sizes.len()];
                    cluster.ready.push(Candidate { estimated_ms: turns, job_created_ms: at * 10, ..candidate(job, tenant) });
                    job += 1;
                }
            }
            cluster.turn(at);
            prop_assert_eq!(cluster.loads.iter().map(|load| load.running).sum::<u64>(), 16, "no slot is ever empty");
            for load in &cluster.loads {
                // At all times between the fair part less n · share / all shares, and one task more than the fair part (docs/SCHEDULING.md).
                let (running, share) = (load.running as f64, f64::from(load.share.get()));
                let fair = slots * share / all;
                prop_assert!(fair - n * share / all <= running && running <= fair + 1.0, "{running} of {fair}");
            }
        }
    }

    #[test]
    fn nobody_is_overtaken_by_who_came_the_bound_later(sizes in tasks(), priorities in prop::collection::vec(-2_i32..3, 16)) {
        // Twice as much arrives as can be done; urgent jobs without end.
        let mut cluster = Cluster::new(1, &[1]);
        let mut waiting: BTreeMap<u128, u64> = BTreeMap::new();
        for at in 0..400_u64 {
            let (turns, _) = sizes[at as usize % 16];
            let task = Candidate { estimated_ms: turns, priority: priorities[at as usize % 16], rank_ms: turns * 1_000, job_created_ms: at * 10,
                ..candidate(u128::from(at), 0) };
            cluster.ready.push(task);
            waiting.insert(u128::from(at), at * 10);
            for started in cluster.turn(at) {
                waiting.remove(&started.key.job);
                let oldest = waiting.values().next().copied().unwrap_or(u64::MAX);
                prop_assert!(started.job_created_ms < oldest.saturating_add(cluster.limits.overtaking_ms()), "{started:?} overtakes {oldest}");
            }
        }
    }

    #[test]
    fn large_tasks_and_lone_ones_run_though_small_ones_never_stop_coming(sizes in tasks(), n_devices in 1_u128..6) {
        let mut cluster = Cluster::new(n_devices, &[1, 1]);
        let mut outstanding = BTreeSet::new();
        for at in 0..200_u64 {
            while cluster.ready.iter().filter(|task| task.tenant == 0).count() < 16 {
                let job = u128::from(at) << 32 | cluster.ready.len() as u128;
                let (turns, _) = sizes[job as usize % 16];
                cluster.ready.push(Candidate { estimated_ms: turns, rank_ms: 9_000, ..candidate(job, 0) });
            }
            if at % 50 == 0 {
                let sharing = if at == 100 { Sharing::Alone } else { Sharing::Shared };
                let large = Candidate { need_device_bytes: 8 * GIB, estimated_ms: 2, sharing, ..candidate(1 << 90 | u128::from(at), 1) };
                outstanding.insert(large.key);
                cluster.ready.push(large);
            }
            for started in cluster.turn(at) {
                outstanding.remove(&started.key);
            }
            // From the bound on, 50 + 10 · 10 ms, every device is kept free; the longest task on one takes five turns.
            let late = cluster.ready.iter().filter(|task| task.tenant == 1 && task.waiting_ms > 150 + 5 * 10 + 3 * 20 + 10).count();
            prop_assert_eq!(late, 0);
        }
    }
}
