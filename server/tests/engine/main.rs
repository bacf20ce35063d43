//! One conformance suite for the engine, instantiated on SQLite and on PostgreSQL.
//!
//! PostgreSQL is a throwaway instance; where it is not installed, its half of the suite prints so and is not run.

mod chaos;
mod clock;
mod costs;
mod deletion;
mod earlier;
mod ends;
mod garbage;
mod hooks;
mod host_memory;
mod joint;
mod leases;
mod lifecycle;
mod locks;
#[path = "../support/log.rs"]
mod log;
mod memory;
mod migration;
mod model_deletion;
mod order;
mod outages;
mod overview;
mod plans;
#[path = "../support/postgres.rs"]
mod postgres;
mod proofs;
mod remake;
mod rolling;
mod secrets;
mod settling;
mod sharing;
mod stops;
mod world;

/// Instantiates tests, async functions of a [`world::World`], for each database.
macro_rules! conformance {
    ($($module:ident::$test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                crate::$module::$test(crate::world::World::sqlite().await).await;
            })*
        }

        mod postgresql {
            $(#[tokio::test]
            async fn $test() {
                let Some(world) = crate::world::World::postgres(stringify!($test)).await else { return };
                crate::$module::$test(world).await;
            })*
        }
    };
}

conformance! {
    clock::the_clocks_of_callers_decide_no_place_in_the_queue,
    clock::a_request_that_is_repeated_is_told_the_first_time,
    clock::requests_and_uploads_are_forgotten_by_the_engines_clock,
    clock::what_is_old_is_forgotten_page_by_page_the_oldest_first,
    lifecycle::a_model_and_a_job_end_with_their_results_and_counted_events,
    lifecycle::the_same_request_is_admitted_once_also_at_the_same_time,
    lifecycle::a_batch_is_admitted_as_a_whole_or_not_at_all,
    lifecycle::a_batch_counts_its_jobs,
    lifecycle::a_batch_of_many_is_admitted_with_all_its_tasks,
    lifecycle::calls_that_are_dropped_or_cut_leave_nothing_behind,
    lifecycle::the_end_of_a_job_is_told_until_it_was_heard,
    lifecycle::what_was_to_be_told_to_a_deleted_webhook_stops_no_other,
    lifecycle::a_quota_is_set_and_read,
    lifecycle::lists_are_filtered_and_paged,
    lifecycle::webhooks_are_paged_oldest_first,
    lifecycle::a_tenant_has_a_place_for_so_many,
    leases::a_task_waits_for_all_it_needs_and_is_given_their_results,
    leases::the_tasks_of_a_job_are_told_with_what_they_need,
    leases::an_older_epoch_changes_nothing,
    leases::a_silent_worker_loses_its_task_and_what_it_sends_later_is_refused,
    leases::a_task_that_workers_die_of_is_poisoned,
    leases::a_failed_task_is_tried_again_later_until_its_budget_ends,
    leases::what_the_process_left_is_taken_up_at_its_next_start,
    leases::a_released_task_costs_no_attempt,
    leases::a_failed_step_ends_the_job_and_fences_the_others,
    leases::sessions_are_listed_cordoned_and_closed,
    leases::a_fallback_is_told_with_its_reason,
    order::tenants_share_by_their_weights,
    order::the_oldest_job_of_the_highest_priority_goes_first_along_its_longest_way,
    order::a_layer_waits_a_little_for_who_committed_it,
    order::a_task_waits_a_little_for_who_holds_its_model,
    order::a_model_at_hand_and_free_memory_decide,
    order::many_who_ask_at_once_are_given_a_task_each,
    outages::a_worker_that_outlives_an_outage_keeps_its_task,
    outages::who_is_not_heard_of_after_an_outage_did_not_die_of_its_task,
    outages::the_end_of_a_server_is_no_death_of_what_its_workers_held,
    outages::a_silent_worker_is_a_death_and_one_that_still_gives_signs_is_not,
    order::a_task_that_a_worker_died_with_runs_alone,
    order::tasks_that_are_too_large_hide_none_that_fit,
    order::tenants_whose_tasks_nobody_can_take_keep_no_other_out,
    memory::a_task_that_no_device_can_hold_is_told_of_once_and_fails_after_a_wait,
    memory::tasks_that_are_too_large_are_found_in_the_queue_of_every_tenant,
    memory::a_registration_asks_for_memory_by_the_size_of_its_file,
    memory::a_larger_device_ends_the_wait_and_nothing_is_decided_without_workers,
    memory::what_no_device_can_hold_is_done_on_processors_with_the_reason,
    host_memory::a_task_that_a_host_had_no_memory_for_is_done_where_there_is_more,
    host_memory::the_second_time_the_job_fails_and_nothing_is_poisoned,
    host_memory::what_others_took_beside_it_is_not_a_tasks_own,
    host_memory::a_task_that_no_host_can_hold_any_more_is_told_of_and_fails_after_a_wait,
    host_memory::a_host_that_is_not_known_takes_any_task,
    sharing::what_a_worker_holds_is_not_given_again,
    sharing::one_call_gives_no_more_than_fits_and_processors_count_nothing,
    sharing::a_device_is_kept_free_for_what_has_waited_long,
    sharing::a_device_of_one_task_at_a_time_is_kept_free_for_nobody,
    sharing::layers_of_a_job_spread_over_idle_devices,
    sharing::layers_of_a_job_spread_over_those_who_ask_at_once,
    sharing::nothing_is_left_to_devices_that_cannot_take_it,
    sharing::nothing_is_left_to_devices_that_would_load_for_long,
    sharing::what_must_run_alone_is_not_passed_for_ever,
    sharing::a_task_without_memory_asks_for_more_than_it_took_and_runs_alone,
    sharing::what_others_took_beside_it_does_not_make_a_task_larger,
    sharing::what_the_largest_device_holds_is_tried_there,
    overview::operators_see_all_tenants_newest_first,
    overview::operators_see_what_runs_where,
    settling::what_a_task_of_another_kind_gives_is_refused_and_changes_nothing,
    settling::a_text_that_cannot_be_stored_is_the_callers_fault,
    settling::a_job_that_has_its_result_keeps_it,
    settling::one_damaged_row_keeps_no_other_from_being_taken_up,
    settling::one_damaged_row_keeps_no_other_from_workers,
    stops::a_waiting_job_is_cancelled_at_once_and_a_running_one_when_it_stops,
    stops::a_result_that_comes_after_the_cancellation_is_not_published,
    stops::a_passed_deadline_ends_a_job,
    costs::a_job_of_steps_costs_what_all_attempts_at_them_took,
    costs::what_ends_with_a_job_is_counted_before_it_has_ended,
    costs::what_stops_with_a_job_is_counted_whichever_stops_last,
    costs::a_job_of_one_task_counts_each_attempt_once,
    remake::a_damaged_result_is_made_again_and_only_who_still_needs_it_waits,
    remake::readers_that_run_find_out_by_themselves_and_take_nothing_back_twice,
    remake::who_was_not_heard_is_heard_when_it_is_given_out_anew,
    remake::several_are_made_again_and_what_they_read_is_found_out_by_them,
    remake::a_task_that_is_to_be_made_again_waits_for_what_is_made_again,
    remake::what_is_needed_through_others_is_made_again_with_them,
    remake::lies_and_stale_words_take_nothing_back,
    remake::a_result_that_is_damaged_again_and_again_ends_the_job,
    remake::readers_are_given_the_new_result_and_the_job_gives_both_back_at_its_end,
    garbage::what_is_held_or_referred_to_is_not_deleted,
    garbage::garbage_is_found_behind_pages_of_what_is_used,
    garbage::garbage_before_the_place_of_the_last_sweep_is_found_too,
    garbage::what_is_being_deleted_is_not_there_until_it_is_stored_again,
    garbage::a_deletion_that_broke_off_is_taken_up_and_a_late_one_forgets_nothing,
    garbage::what_was_put_and_never_recorded_is_deleted,
    garbage::results_of_tasks_are_deleted_when_their_job_is_final,
    garbage::artifacts_of_an_earlier_version_stay,
    garbage::a_put_that_races_with_a_deletion_loses_nothing,
    garbage::a_reference_that_races_with_a_deletion_is_made_or_refused,
    joint::who_is_refused_keeps_none_of_those_who_come_at_once_out,
    joint::one_that_cannot_be_written_keeps_none_of_those_who_come_at_once_out,
    joint::who_goes_away_keeps_none_of_those_who_come_with_it_out,
    joint::tasks_of_who_is_dropped_serving_or_unread_go_back,
    joint::who_is_dropped_admitting_others_admits_them,
    joint::batches_and_jobs_at_once_keep_to_their_tenants_limit,
    joint::places_are_told_also_far_from_the_front,
    joint::two_servers_promise_the_memory_of_a_session_once,
    joint::a_key_that_is_not_the_models_must_be_there,
    proofs::proofs_that_come_at_once_end_their_jobs,
    proofs::a_proof_that_is_refused_keeps_none_of_those_out_that_come_with_it,
    proofs::a_proof_that_cannot_be_written_keeps_none_of_those_out_that_come_with_it,
    proofs::who_is_dropped_writing_others_proofs_writes_them,
    proofs::steps_of_a_job_that_are_given_at_once_begin_it_once,
    proofs::a_tenant_at_its_limit_keeps_none_of_those_out_that_are_asked_for_at_once,
    deletion::an_old_job_goes_with_all_that_belongs_to_it_and_nothing_else,
    deletion::a_job_is_as_old_as_its_end,
    deletion::what_another_job_refers_to_stays_until_that_goes_too,
    deletion::a_job_that_is_not_over_is_never_deleted,
    deletion::a_job_stays_until_its_webhooks_have_heard,
    deletion::many_are_deleted_page_by_page_and_what_stays_hides_none,
    deletion::several_who_delete_at_once_share_the_work_and_double_nothing,
    deletion::a_batch_counts_the_jobs_that_are_there_and_goes_with_the_last,
    deletion::the_same_request_is_answered_as_before_after_its_job_is_gone,
    deletion::a_list_goes_on_behind_a_job_that_was_deleted,
    deletion::who_deletes_its_jobs_is_not_served_sooner,
    model_deletion::a_model_goes_with_all_that_belongs_to_it_and_jobs_that_are_over_stay,
    model_deletion::a_model_that_is_registered_or_has_jobs_is_not_deleted,
    model_deletion::no_job_is_created_of_a_deleted_model_and_its_name_is_free,
    model_deletion::a_key_of_the_model_before_must_be_there,
    model_deletion::of_a_job_and_the_deletion_of_its_model_at_once_one_is_refused,
    model_deletion::who_deletes_its_models_is_not_served_sooner,
    hooks::a_receiver_gets_the_signed_end_of_a_job_again_until_it_answers_well,
    hooks::a_receiver_that_never_answers_delays_nobody_else,
    hooks::one_failure_counts_for_all_that_a_webhook_was_to_hear,
    hooks::secrets_lie_encrypted_and_those_from_before_stay_readable,
    secrets::salts_and_seeds_lie_encrypted_and_workers_are_told_them,
    secrets::a_job_whose_key_is_not_there_waits_for_it_and_holds_up_no_other,
    rolling::each_migration_says_which_programs_work_with_it,
    rolling::a_program_goes_on_and_starts_again_on_a_wider_schema,
    rolling::a_program_refuses_a_schema_that_is_not_for_it_and_says_what_to_do,
    chaos::crashing_workers_lose_and_double_nothing,
}
