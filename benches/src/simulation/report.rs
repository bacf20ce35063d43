//! What comes out, as committed in `benches/results/`: the same bytes from every run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cluster::Cluster;
use super::histogram::Histogram;
use super::settings::{SECOND, Settings, TENANTS};

/// Quantiles of waits, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// Half of them are not longer.
    pub median_ms: u64,
    /// Ninety-nine of a hundred are not longer.
    pub p99_ms: u64,
    /// The longest.
    pub longest_ms: u64,
}

/// Of one tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TenantReport {
    /// Its name.
    pub tenant: String,
    /// Its share.
    pub share: u32,
    /// Of the work that arrives, in percent.
    pub work_percent: u64,
    /// Jobs that succeeded.
    pub jobs: u64,
    /// From a job's creation to its first task.
    pub wait: Waits,
    /// From a job's creation to its proof.
    pub total: Waits,
    /// Any task, from ready to running.
    pub longest_task_wait_ms: u64,
    /// How much later a job was created that had a task started before this tenant's most overtaken job had its first.
    pub overtaken_ms: u64,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The command that gives the same bytes again.
    pub command: String,
    /// What was simulated.
    pub settings: Settings,
    /// Jobs by how they ended.
    pub jobs: BTreeMap<String, u64>,
    /// Attempts that failed, by cause.
    pub failed_attempts: BTreeMap<String, u64>,
    /// Counts of all else.
    pub counts: BTreeMap<String, u64>,
    /// Seconds, percent and indices; the names say which.
    pub figures: BTreeMap<String, f64>,
    /// From a job's creation to its proof, by network.
    pub networks: BTreeMap<String, Waits>,
    /// By tenant.
    pub tenants: Vec<TenantReport>,
}

impl Waits {
    fn of(histogram: &Histogram) -> Self {
        Self { median_ms: histogram.quantile_ms(50), p99_ms: histogram.quantile_ms(99), longest_ms: histogram.largest_ms() }
    }
}

/// Hundredths of a percent, exactly.
fn percent(part: u64, whole: u64) -> f64 {
    (u128::from(part) * 10_000 / u128::from(whole.max(1))) as f64 / 100.0
}

fn owned(counts: &BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

impl Report {
    pub(super) fn of(cluster: &Cluster) -> Self {
        let measure = &cluster.measure;
        let mut jobs = owned(&measure.failed_jobs);
        jobs.insert("SUCCEEDED".to_owned(), measure.tenants.iter().map(|tenant| tenant.n_succeeded).sum());
        let networks = cluster.networks.iter().zip(&measure.of_network);
        Self {
            command: cluster.settings.command(),
            settings: cluster.settings.clone(),
            jobs,
            failed_attempts: owned(&measure.failures),
            counts: counts(cluster),
            figures: figures(cluster),
            networks: networks.map(|(network, total)| (network.name.to_owned(), Waits::of(total))).collect(),
            tenants: tenants(cluster),
        }
    }
}

fn counts(cluster: &Cluster) -> BTreeMap<String, u64> {
    let measure = &cluster.measure;
    let counts = [
        ("attempts", measure.n_attempts),
        ("events", measure.n_events),
        ("requests", measure.n_requests),
        ("requests_without_a_task", measure.n_empty_requests),
        ("device_failures", measure.n_device_failures),
        ("workers_killed", measure.n_workers_killed),
        ("most_ready_tasks", measure.most_ready),
        ("minutes_compared_for_fairness", measure.fairness.2),
        ("layers_with_an_oracle_somewhere", measure.n_with_sibling),
        ("layers_at_their_oracle", measure.n_at_sibling),
        ("tasks_that_need_weights", measure.n_with_weights),
        ("tasks_at_their_weights", measure.n_at_weights),
    ];
    counts.map(|(name, count)| (name.to_owned(), count)).into_iter().collect()
}

fn figures(cluster: &Cluster) -> BTreeMap<String, f64> {
    let measure = &cluster.measure;
    let (least, sum, n) = measure.fairness;
    let figures = [
        ("simulated_s", (measure.ended_us / SECOND) as f64),
        ("arrivals_s", (cluster.arrivals.span_us / SECOND) as f64),
        ("busy_of_demand_percent", percent(measure.busy_us, measure.demand_us)),
        ("useful_of_demand_percent", percent(measure.useful_us, measure.demand_us)),
        ("busy_while_full_percent", percent(measure.busy_while_full_us, measure.full_us)),
        ("full_of_demand_percent", percent(measure.full_us, measure.demand_us)),
        ("moving_of_busy_percent", percent(measure.moved_us, measure.busy_us)),
        ("oracle_hits_percent", percent(measure.n_at_sibling, measure.n_with_sibling)),
        ("weights_hits_percent", percent(measure.n_at_weights, measure.n_with_weights)),
        ("fairness_least", least as f64 / 1e6),
        ("fairness_mean", sum.checked_div(n).map_or(1.0, |mean| mean as f64 / 1e6)),
        ("longest_wait_for_much_memory_s", (measure.large_wait_us / 1_000) as f64 / 1e3),
        ("overtaking_bound_s", (cluster.limits.overtaking_ms() / 1_000) as f64),
    ];
    figures.map(|(name, figure)| (name.to_owned(), figure)).into_iter().collect()
}

fn tenants(cluster: &Cluster) -> Vec<TenantReport> {
    let report = |(tenant, of): (&super::settings::Tenant, &super::measure::OfTenant)| TenantReport {
        tenant: tenant.name.to_owned(),
        share: tenant.share,
        work_percent: tenant.work_percent,
        jobs: of.n_succeeded,
        wait: Waits::of(&of.wait),
        total: Waits::of(&of.total),
        longest_task_wait_ms: of.longest_task_wait_us / 1_000,
        overtaken_ms: of.overtaken_us / 1_000,
    };
    TENANTS.iter().zip(&cluster.measure.tenants).map(report).collect()
}
