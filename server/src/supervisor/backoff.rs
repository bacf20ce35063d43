//! How long to wait before a child that died is started again: a pure function of how it went so far.

use std::time::Duration;

use super::Patience;

/// The pauses of one child.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    /// Deaths since it last lived for long.
    deaths: u32,
}

impl Backoff {
    /// A child died after `lived`: how long to wait.
    pub(super) fn pause(&mut self, lived: Duration, patience: &Patience) -> Duration {
        if lived >= patience.proven {
            self.deaths = 0;
        }
        let doubled = patience.first_pause.saturating_mul(1 << self.deaths.min(20));
        self.deaths += 1;
        doubled.min(patience.longest_pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_the_longest_and_begin_anew_after_a_long_life() {
        let (mut backoff, patience) = (Backoff::default(), Patience::default());
        let mut pause = |lived: u64| backoff.pause(Duration::from_secs(lived), &patience).as_secs();
        assert_eq!([pause(0), pause(3), pause(0), pause(0), pause(0), pause(0), pause(0), pause(299)], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!([pause(300), pause(0)], [1, 2]);
    }
}
