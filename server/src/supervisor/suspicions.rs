//! When a device that passes its self-test, but is suspected again and again to compute wrongly, is not used any more: a pure function of when it was.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// So many processes of a device that ended because it was suspected,
const ENOUGH: usize = 3;
/// within this time, are too many: the self-test does not see what is wrong.
const WITHIN: Duration = Duration::from_secs(3600);

/// The suspicions of one device, the latest ones.
#[derive(Debug, Default)]
pub(super) struct Suspicions(VecDeque<Instant>);

impl Suspicions {
    /// It was suspected once more: whether that is enough.
    pub(super) fn are_enough(&mut self, now: Instant) -> bool {
        self.0.push_back(now);
        self.0.retain(|at| now.duration_since(*at) < WITHIN);
        self.0.len() >= ENOUGH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_within_an_hour_are_enough() {
        let (mut suspicions, start) = (Suspicions::default(), Instant::now());
        let mut after = |minutes: u64| suspicions.are_enough(start + Duration::from_secs(60 * minutes));
        assert_eq!([0, 30, 60, 89, 149, 150, 160].map(&mut after), [false, false, false, true, false, false, true]);
    }
}
