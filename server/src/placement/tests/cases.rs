//! One rule of the policy each.

use super::*;

const MODEL: WeightsKey = WeightsKey([7; 32]);

/// Chooses for one tenant.
fn choose_one(candidates: &[Candidate], offer: &Offer) -> Chosen {
    choose(candidates, offer, &[load(0, 1)], &Limits::default())
}

#[test]
fn the_tenant_with_least_for_its_share_is_served_first() {
    let candidates = [candidate(1, 0), candidate(2, 1)];
    let first = |loads: [TenantLoad; 2]| pairs(&choose(&candidates, &offer(1, vec![device(1)]), &loads, &Limits::default()))[0].0;
    assert_eq!(first([load(3, 1), load(2, 1)]), 1);
    assert_eq!(first([load(3, 2), load(2, 1)]), 0);
    assert_eq!(first([load(2, 1), load(2, 1)]), 0);
    let waited = TenantLoad { last_leased_ms: 5, ..load(2, 1) };
    assert_eq!(first([TenantLoad { last_leased_ms: 9, ..waited }, waited]), 1);
}

#[test]
fn shares_divide_the_slots_of_one_call() {
    let candidates: Vec<Candidate> = (0..40).map(|job| candidate(job, (job % 2) as usize)).collect();
    let devices = (0..12).map(device).collect();
    let chosen = choose(&candidates, &offer(12, devices), &[load(0, 3), load(0, 1)], &Limits::default());
    let first = chosen.choices.iter().filter(|choice| candidates[choice.candidate].tenant == 0).count();
    assert_eq!((chosen.choices.len(), first), (12, 9));
}

#[test]
fn within_a_tenant_level_comes_before_rank_and_rank_before_age() {
    let limits = Limits::default();
    let order_of = |candidates: &[Candidate]| {
        let devices = (0..3).map(device).collect();
        choose_one(candidates, &offer(3, devices)).choices.iter().map(|choice| choice.candidate).collect::<Vec<_>>()
    };
    let plain = candidate(1, 0);
    let urgent = Candidate { priority: 1, ..candidate(2, 0) };
    let critical = Candidate { rank_ms: 2_000, job_created_ms: plain.job_created_ms + 1, ..candidate(3, 0) };
    assert_eq!(order_of(&[plain, urgent, critical]), [1, 2, 0]);
    let old = Candidate { job_created_ms: plain.job_created_ms - 2 * limits.aging_ms, ..candidate(4, 0) };
    assert_eq!(order_of(&[plain, urgent, old]), [2, 1, 0]);
}

#[test]
fn a_task_goes_where_its_weights_are() {
    let with_weights = Candidate { weights: Some(MODEL), move_ms: 500, n_holders: 1, ..candidate(1, 0) };
    let holder = DeviceOffer { cached: BTreeSet::from([MODEL]), running: 1, ..device(2) };
    assert_eq!(pairs(&choose_one(&[with_weights], &offer(1, vec![device(1), holder.clone()]))), [(0, 1)]);
    let other = candidate(0, 0);
    assert_eq!(pairs(&choose_one(&[other, with_weights], &offer(1, vec![DeviceOffer { running: 2, ..holder }]))), [(0, 0)]);
}

#[test]
fn a_cached_model_is_worth_one_level_and_no_more() {
    let limits = Limits::default();
    let holder = DeviceOffer { cached: BTreeSet::from([MODEL]), ..device(1) };
    let here = Candidate { weights: Some(MODEL), move_ms: 500, n_holders: 1, rank_ms: 10, ..candidate(9, 0) };
    let first = |job_created_ms| {
        let elsewhere = Candidate { weights: Some(WeightsKey([8; 32])), rank_ms: 9_000, job_created_ms, n_holders: 0, ..here };
        choose_one(&[elsewhere, here], &offer(1, vec![holder.clone()])).choices[0]
    };
    assert_eq!(first(here.job_created_ms).candidate, 1);
    assert_eq!(first(here.job_created_ms - limits.aging_ms), Choice { candidate: 0, device: 0, moved_ms: 500 });
}

#[test]
fn a_tenant_close_to_the_least_served_goes_first_if_it_need_move_nothing() {
    let holder = DeviceOffer { cached: BTreeSet::from([MODEL]), ..device(1) };
    let elsewhere = Candidate { weights: Some(WeightsKey([8; 32])), move_ms: 500, ..candidate(1, 0) };
    let here = Candidate { weights: Some(MODEL), ..candidate(2, 1) };
    let first = |running| {
        let chosen = choose(&[elsewhere, here], &offer(1, vec![holder.clone()]), &[load(100, 1), load(running, 1)], &Limits::default());
        chosen.choices[0].candidate
    };
    assert_eq!((first(105), first(106)), (1, 0));
    // Who has nothing is not passed over, not even by equals.
    let loads = [load(0, 1), TenantLoad { last_leased_ms: 1, ..load(0, 1) }];
    assert_eq!(choose(&[elsewhere, here], &offer(1, vec![holder]), &loads, &Limits::default()).choices[0].candidate, 0);
}

#[test]
fn an_idle_device_steals_once_the_task_has_waited_what_moving_costs() {
    let waiting = |waiting_ms| Candidate { sibling: Some(DeviceId(5)), move_ms: 40, waiting_ms, ..candidate(1, 0) };
    let chosen = choose_one(&[waiting(15)], &offer(1, vec![device(1)]));
    assert_eq!((chosen.choices.len(), chosen.look_again_ms), (0, Some(25)));
    let chosen = choose_one(&[waiting(40)], &offer(1, vec![device(1)]));
    assert_eq!(chosen.choices, [Choice { candidate: 0, device: 0, moved_ms: 40 }]);
    let chosen = choose_one(&[waiting(0)], &offer(1, vec![device(5)]));
    assert_eq!(chosen.choices, [Choice { candidate: 0, device: 0, moved_ms: 0 }]);
    // Nobody holds them: there is nothing to wait for.
    let nowhere = Candidate { weights: Some(MODEL), move_ms: 500, ..candidate(1, 0) };
    assert_eq!(choose_one(&[nowhere], &offer(1, vec![device(1)])).choices[0].moved_ms, 500);
}

#[test]
fn layers_of_a_job_spread_over_devices() {
    let layers: Vec<Candidate> = (0..4).map(|number| Candidate { key: TaskKey { job: 1, number }, ..candidate(1, 0) }).collect();
    assert_eq!(pairs(&choose_one(&layers, &offer(9, vec![device(1), device(2), device(3)]))), [(0, 0), (1, 1), (2, 2)]);
}

#[test]
fn several_small_tasks_share_a_device_as_memory_allows() {
    let small = |job| Candidate { need_device_bytes: 3 * GIB, ..candidate(job, 0) };
    let candidates = [small(1), small(2), small(3)];
    assert_eq!(pairs(&choose_one(&candidates, &offer(3, vec![device(1)]))), [(0, 0), (1, 0)]);
    let busy = DeviceOffer { running: Limits::default().tasks_per_device, ..device(1) };
    assert_eq!(pairs(&choose_one(&candidates, &offer(3, vec![busy]))), []);
    let host = Offer { host_free_bytes: GIB, ..offer(3, vec![device(1)]) };
    let hungry = Candidate { need_host_bytes: GIB, ..candidate(4, 0) };
    assert_eq!(pairs(&choose_one(&[hungry, Candidate { key: TaskKey { job: 5, number: 0 }, ..hungry }], &host)), [(0, 0)]);
}

#[test]
fn a_task_joins_others_only_after_idle_devices_had_their_chance() {
    let fresh = Candidate { waiting_ms: 5, ..candidate(1, 0) };
    let busy = DeviceOffer { running: 1, ..device(1) };
    let chosen = choose_one(&[fresh], &offer(1, vec![busy.clone()]));
    assert_eq!((chosen.choices.len(), chosen.look_again_ms), (0, Some(Limits::default().share_after_ms - 5)));
    assert_eq!(pairs(&choose_one(&[fresh], &offer(1, vec![busy.clone(), device(2)]))), [(0, 1)]);
    let waited = Candidate { waiting_ms: Limits::default().share_after_ms, ..fresh };
    assert_eq!(pairs(&choose_one(&[waited], &offer(1, vec![busy]))), [(0, 0)]);
}

#[test]
fn who_must_run_alone_gets_an_empty_device_and_keeps_it() {
    let alone = Candidate { sharing: Sharing::Alone, rank_ms: 9_000, ..candidate(1, 0) };
    let candidates = [candidate(2, 0), alone];
    let busy = DeviceOffer { running: 1, ..device(1) };
    assert_eq!(pairs(&choose_one(&candidates, &offer(2, vec![busy]))), [(0, 0)]);
    assert_eq!(pairs(&choose_one(&candidates, &offer(2, vec![device(1)]))), [(1, 0)]);
    let occupied = DeviceOffer { running: 1, runs_alone: true, ..device(1) };
    assert_eq!(pairs(&choose_one(&candidates, &offer(2, vec![occupied]))), []);
}

#[test]
fn sick_devices_wrong_pools_and_foreign_kinds_get_nothing() {
    let sick = DeviceOffer { is_healthy: false, ..device(1) };
    assert_eq!(pairs(&choose_one(&[candidate(1, 0)], &offer(1, vec![sick]))), []);
    let for_processors = Candidate { pool: Pool::Cpu, ..candidate(1, 0) };
    let processors = DeviceOffer { class: DeviceClass::Cpu, ..device(2) };
    assert_eq!(pairs(&choose_one(&[for_processors], &offer(1, vec![device(1), processors]))), [(0, 1)]);
    let only_leaves = Offer { kinds: KindSet::of(&[TaskKind::Leaf]), ..offer(1, vec![device(1)]) };
    assert_eq!(pairs(&choose_one(&[candidate(1, 0)], &only_leaves)), []);
    assert_eq!(pairs(&choose_one(&[candidate(1, 3)], &offer(1, vec![device(1)]))), [], "a tenant that is not in the list");
}

#[test]
fn a_device_is_kept_free_for_who_has_waited_long_for_memory() {
    let limits = Limits::default();
    let large = |waiting_ms| Candidate { need_device_bytes: 7 * GIB, waiting_ms, ..candidate(1, 0) };
    let busy = DeviceOffer { running: 1, free_bytes: 4 * GIB, ..device(1) };
    let chosen = |waiting_ms| pairs(&choose_one(&[large(waiting_ms), candidate(2, 0)], &offer(1, vec![busy.clone()])));
    assert_eq!(chosen(0), [(1, 0)]);
    let all_kept = limits.reserve_after_ms + 10 * limits.reserve_step_ms;
    assert_eq!(chosen(all_kept), []);
    assert_eq!(pairs(&choose_one(&[large(all_kept), candidate(2, 0)], &offer(1, vec![device(1)]))), [(0, 0)]);
    // Who has less goes first, unless the starving task's tenant has no more than its part.
    let chosen = |running| {
        let candidates = [large(all_kept), candidate(2, 1)];
        pairs(&choose(&candidates, &offer(1, vec![busy.clone()]), &[load(running, 1), load(1, 1)], &limits))
    };
    assert_eq!((chosen(2), chosen(1)), (vec![(1, 0)], vec![]));
    // A task that no device of this offer could ever hold keeps nothing free.
    let impossible = Candidate { need_device_bytes: 9 * GIB, ..large(all_kept) };
    assert_eq!(pairs(&choose_one(&[impossible, candidate(2, 0)], &offer(1, vec![busy.clone()]))), [(1, 0)]);
    // Nor one that its host could never hold; what others take of the host now is given back.
    let on_host = |need_host_bytes| {
        let host = Offer { host_free_bytes: GIB, ..offer(1, vec![busy.clone()]) };
        pairs(&choose_one(&[Candidate { need_host_bytes, ..large(all_kept) }, candidate(2, 0)], &host))
    };
    assert_eq!((on_host(65 * GIB), on_host(64 * GIB)), (vec![(1, 0)], vec![]));
}
