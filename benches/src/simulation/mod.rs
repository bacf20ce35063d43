//! A simulation of a large cluster that runs the service's own placement: `zkinfer_server::placement`'s `choose` and `retry::decide`, on tasks as the
//! circuits' plan makes them, with the times of the committed measurements.
//!
//! Events in the order of time, integers alone, one seed: two runs give the same bytes. What is modelled and what is not: docs/SCHEDULING.md.

mod arrivals;
mod backlog;
mod catalog;
mod chance;
mod cluster;
mod device;
mod faults;
mod histogram;
mod job;
mod measure;
mod progress;
mod report;
mod serve;
mod settings;

pub use report::{Report, TenantReport, Waits};
pub use settings::Settings;

/// Simulates until every job is over.
///
/// # Errors
/// A network for which the circuits have no plan.
pub fn run(settings: &Settings) -> anyhow::Result<Report> {
    let mut cluster = cluster::Cluster::new(settings)?;
    cluster.run();
    Ok(Report::of(&cluster))
}
