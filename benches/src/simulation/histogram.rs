//! Waits by size: sixteen steps to each doubling, so that a quantile is off by a sixteenth at most.

/// Waits in milliseconds, counted; the largest is exact.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    n: u64,
    largest_us: u64,
}

/// Steps to each doubling, log₂.
const STEP_BITS: u32 = 4;

fn step(value: u64) -> usize {
    let doublings = (u64::BITS - value.leading_zeros()).saturating_sub(STEP_BITS + 1);
    ((u64::from(doublings) << STEP_BITS) + (value >> doublings)) as usize
}

/// The least value of a step.
fn least(step: usize) -> u64 {
    let doublings = (step >> STEP_BITS).saturating_sub(1);
    ((step - (doublings << STEP_BITS)) as u64) << doublings
}

impl Histogram {
    pub(super) fn add(&mut self, wait_us: u64) {
        let step = step(wait_us / 1_000);
        if self.counts.len() <= step {
            self.counts.resize(step + 1, 0);
        }
        self.counts[step] += 1;
        self.n += 1;
        self.largest_us = self.largest_us.max(wait_us);
    }

    /// What so many percent of the waits are not above, in milliseconds.
    pub(super) fn quantile_ms(&self, percent: u64) -> u64 {
        let mut left = (self.n * percent).div_ceil(100);
        for (step, &count) in self.counts.iter().enumerate() {
            if count >= left {
                return least(step);
            }
            left -= count;
        }
        0
    }

    pub(super) fn largest_ms(&self) -> u64 {
        self.largest_us / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_in_order_and_at_most_a_sixteenth_wide() {
        for value in (0..5_000).chain((1..60).map(|bits| 1 << bits)).chain((1..60).map(|bits| (1 << bits) - 1)) {
            let floor = least(step(value));
            assert!(floor <= value && value - floor <= value / 16, "{value} counts as {floor}");
            assert!(step(value + 1) - step(value) <= 1, "{value}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut waits = Histogram::default();
        assert_eq!(waits.quantile_ms(50), 0);
        (1..=10).for_each(|ms| waits.add(ms * 1_000));
        assert_eq!((waits.quantile_ms(50), waits.quantile_ms(99), waits.largest_ms()), (5, 10, 10));
    }
}
