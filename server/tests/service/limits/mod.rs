//! Limits of docs/LIMITS.md that no other test looks at: what is at one passes, what is beyond it is refused as the document says, and the rest goes on.

mod calls;
mod calls_of_workers;
mod places;
mod sizes;
mod tenants;
mod times;

use std::time::Duration;

/// Long enough on a busy machine; who needs longer is stuck.
const PATIENCE: Duration = Duration::from_secs(60);
