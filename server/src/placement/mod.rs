//! Which task runs next, and where; what a failed attempt leads to; what tasks cost: pure functions, without clock, database or chance.
//!
//! A session of a worker asks for tasks. The engine fetches a bounded list of ready ones, [`choose`](choose()) decides, the engine leases. What the
//! functions need to know is in their arguments, so that the service, its tests and the simulation of a large cluster run the same code. Formulas,
//! bounds and their proofs: docs/SCHEDULING.md.
//!
//! - [`choose`](choose()): fair shares between tenants, then order within a tenant, then a device;
//! - [`level`]: the order of jobs that ages by itself, as a column of the database;
//! - [`retry`]: the table of causes;
//! - [`cost`], [`rank`]: what tasks take, and the longest path to the end of a job.

mod affinity;
mod choose;
pub mod cost;
mod fairness;
mod limits;
mod offer;
mod order;
pub mod rank;
mod reserve;
pub mod retry;
mod room;
mod task;

#[cfg(test)]
mod tests;

pub use affinity::wait_to_move_ms;
pub use choose::{Choice, Chosen, choose};
pub use fairness::TenantLoad;
pub use limits::{Limits, LimitsError};
pub use offer::{DeviceClass, DeviceOffer, Offer};
pub use order::level;
pub use task::{Candidate, DeviceId, KindSet, Pool, Sharing, TaskKey, TaskKind, WeightsKey};
