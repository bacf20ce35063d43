//! What holds of every choice, for random candidates, offers and loads.

use proptest::prelude::*;

use super::*;

fn weights() -> impl Strategy<Value = WeightsKey> {
    (0_u8..4).prop_map(|byte| WeightsKey([byte; 32]))
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let place = (0_usize..5, 0_u64..10, 0_u64..4, prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    let time = (0_u64..5, -3_i32..4, 0_u64..300_000, 0_u64..20_000);
    let locality = (prop::option::of(weights()), prop::option::of(0_u128..4), 0_u64..3_000, 0_u32..2);
    let one = (0_u128..12, place, time, locality).prop_map(|(job, place, time, locality)| Candidate {
        key: TaskKey { job, number: 0 },
        tenant: place.0,
        need_device_bytes: place.1 * GIB,
        need_host_bytes: place.2 * GIB,
        sharing: if place.3 { Sharing::Alone } else { Sharing::Shared },
        pool: if place.4 { Pool::Cpu } else { Pool::Any },
        rank_ms: time.0 * 500,
        priority: time.1,
        job_created_ms: time.2,
        waiting_ms: time.3,
        weights: locality.0,
        sibling: locality.1.map(DeviceId),
        move_ms: locality.2,
        n_holders: locality.3,
        ..candidate(job, 0)
    });
    let numbered = |mut all: Vec<Candidate>| {
        for (number, candidate) in all.iter_mut().enumerate() {
            candidate.key.number = number as u32;
        }
        all
    };
    prop::collection::vec(one, 0..30).prop_map(numbered)
}

fn offers() -> impl Strategy<Value = Offer> {
    let flags = (prop::bool::weighted(0.1), prop::bool::weighted(0.9), prop::bool::weighted(0.3));
    let one = (0_u64..10, 0_u32..4, flags, prop::collection::btree_set(weights(), 0..3)).prop_map(|(free, running, flags, cached)| {
        let class = if flags.2 { DeviceClass::Cpu } else { DeviceClass::Gpu };
        DeviceOffer { free_bytes: free * GIB, running, runs_alone: flags.0, is_healthy: flags.1, class, cached, ..device(0) }
    });
    let devices = prop::collection::vec(one, 1..5).prop_map(|mut devices| {
        for (id, device) in devices.iter_mut().enumerate() {
            device.id = DeviceId(id as u128);
        }
        devices
    });
    (0_u32..8, devices, 0_u64..12).prop_map(|(slots, devices, host)| Offer { host_free_bytes: host * GIB, ..offer(slots, devices) })
}

fn loads() -> impl Strategy<Value = Vec<TenantLoad>> {
    let one =
        (0_u64..9, 1_u32..5, 0_u64..3).prop_map(|(running, share, last_leased_ms)| TenantLoad { last_leased_ms, ..load(running, share) });
    prop::collection::vec(one, 4)
}

/// Whether an empty device of the offer could hold it, now or later.
fn could_run(candidate: &Candidate, offer: &Offer) -> bool {
    let holds = |device: &DeviceOffer| {
        let is_of_pool = candidate.pool == Pool::Any || device.class == DeviceClass::Cpu;
        device.is_healthy && is_of_pool && candidate.need_device_bytes <= device.total_bytes
    };
    candidate.need_host_bytes <= 64 * GIB && offer.devices.iter().any(holds)
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn no_device_is_given_more_than_it_has(candidates in candidates(), offer in offers(), loads in loads()) {
        let limits = Limits::default();
        let chosen = choose(&candidates, &offer, &loads, &limits);
        prop_assert!(chosen.choices.len() <= offer.slots as usize);
        let all: BTreeSet<usize> = chosen.choices.iter().map(|choice| choice.candidate).collect();
        prop_assert_eq!(all.len(), chosen.choices.len(), "no task twice");
        for (index, device) in offer.devices.iter().enumerate() {
            let given: Vec<&Candidate> =
                chosen.choices.iter().filter(|choice| choice.device == index).map(|choice| &candidates[choice.candidate]).collect();
            prop_assert!(given.iter().map(|task| task.need_device_bytes).sum::<u64>() <= device.free_bytes.min(device.total_bytes));
            prop_assert!(given.is_empty() || (device.is_healthy && !device.runs_alone));
            prop_assert!(given.is_empty() || device.running as usize + given.len() <= limits.tasks_per_device as usize);
            prop_assert!(given.iter().all(|task| task.pool == Pool::Any || device.class == DeviceClass::Cpu));
            if given.iter().any(|task| task.sharing == Sharing::Alone) {
                prop_assert_eq!((device.running, given.len()), (0, 1));
            }
            let jobs: BTreeSet<u128> = given.iter().map(|task| task.key.job).collect();
            prop_assert_eq!(jobs.len(), given.len(), "a job's tasks spread");
        }
        let host: u64 = chosen.choices.iter().map(|choice| candidates[choice.candidate].need_host_bytes).sum();
        prop_assert!(host <= offer.host_free_bytes);
        prop_assert!(chosen.choices.iter().all(|choice| candidates[choice.candidate].tenant < loads.len()));
    }

    #[test]
    fn the_order_of_the_candidates_does_not_matter(candidates in candidates(), offer in offers(), loads in loads(), turn in 0_usize..30) {
        let keys = |list: &[Candidate]| {
            let chosen = choose(list, &offer, &loads, &Limits::default());
            let keys = chosen.choices.iter().map(|choice| (list[choice.candidate].key, choice.device, choice.moved_ms)).collect::<Vec<_>>();
            (keys, chosen.look_again_ms)
        };
        let mut turned = candidates.clone();
        turned.reverse();
        turned.rotate_left(turn.min(candidates.len()));
        prop_assert_eq!(keys(&candidates), keys(&turned));
    }

    #[test]
    fn nothing_that_could_run_now_is_left_while_slots_are(candidates in candidates(), offer in offers(), loads in loads()) {
        // With as many slots as tasks, whatever is left over finds no spot in what is left of the offer: asked again with it, nothing is chosen.
        let offer = Offer { slots: 100, ..offer };
        let chosen = choose(&candidates, &offer, &loads, &Limits::default());
        let mut rest = offer;
        for choice in &chosen.choices {
            let (task, device) = (&candidates[choice.candidate], &mut rest.devices[choice.device]);
            device.free_bytes = device.free_bytes.min(device.total_bytes) - task.need_device_bytes;
            device.running += 1;
            device.runs_alone |= task.sharing == Sharing::Alone;
            rest.host_free_bytes -= task.need_host_bytes;
        }
        let placed: BTreeSet<u128> = chosen.choices.iter().map(|choice| candidates[choice.candidate].key.job).collect();
        let is_left = |(index, task): &(usize, &Candidate)| {
            !placed.contains(&task.key.job) && chosen.choices.iter().all(|choice| choice.candidate != *index)
        };
        let left: Vec<Candidate> = candidates.iter().enumerate().filter(is_left).map(|(_, task)| *task).collect();
        // What was kept free for a task that starves may be kept for another one now: leave those out.
        let patient: Vec<Candidate> = left.into_iter().filter(|task| task.waiting_ms < Limits::default().reserve_after_ms).collect();
        if candidates.iter().all(|task| task.waiting_ms < Limits::default().reserve_after_ms) {
            prop_assert_eq!(choose(&patient, &rest, &loads, &Limits::default()).choices, []);
        }
    }

    #[test]
    fn who_is_served_has_least_of_those_that_could_be(candidates in candidates(), offer in offers(), loads in loads()) {
        let offer = Offer { slots: 1, ..offer };
        if let [choice] = choose(&candidates, &offer, &loads, &Limits::default()).choices[..] {
            let served = loads[candidates[choice.candidate].tenant];
            let has_less = |load: &TenantLoad| !served.is_close(load, Limits::default().share_slack_percent);
            for (tenant, load) in loads.iter().enumerate().filter(|(_, load)| has_less(load)) {
                // Among the tasks of who has less, none has a spot: alone in the list it is not chosen either, unless a device was kept free.
                let own: Vec<Candidate> = candidates.iter().filter(|task| task.tenant == tenant).copied().collect();
                if candidates.iter().all(|task| task.waiting_ms < Limits::default().reserve_after_ms) {
                    prop_assert_eq!(choose(&own, &offer, &loads, &Limits::default()).choices, [], "{:?} waits", load);
                }
            }
        }
    }

    #[test]
    fn every_task_that_some_device_can_hold_is_chosen_in_the_end(candidates in candidates(), offer in offers()) {
        let limits = Limits::default();
        // Each round all devices are empty and the rest has waited longer; no task comes.
        let mut offer = Offer { slots: 1, host_free_bytes: 64 * GIB, ..offer };
        for device in &mut offer.devices {
            (device.free_bytes, device.running, device.runs_alone) = (device.total_bytes, 0, false);
        }
        let loads = vec![load(0, 1); 5];
        let mut left: Vec<Candidate> = candidates.into_iter().filter(|task| could_run(task, &offer)).collect();
        for _ in 0..left.len() + 1 {
            let chosen = choose(&left, &offer, &loads, &limits);
            chosen.choices.iter().for_each(|choice| { left.swap_remove(choice.candidate); });
            left.iter_mut().for_each(|task| task.waiting_ms += limits.patience_ms);
        }
        prop_assert!(left.len() <= 1 && left.iter().all(|task| task.waiting_ms >= limits.patience_ms), "{left:?}");
        prop_assert!(left.is_empty() || choose(&left, &offer, &loads, &limits).choices.len() == 1);
    }
}
