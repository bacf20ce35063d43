//! Repeated measurements of one quantity.

use serde::{Deserialize, Serialize};

/// Least, middle and largest of several measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of measurements.
    pub n: usize,
    /// The least.
    pub min: f64,
    /// The middle one; of an even number the mean of the middle two.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Of at least one measurement.
    ///
    /// # Panics
    /// If there is none: an error of the caller.
    pub fn of(values: &[f64]) -> Self {
        assert!(!values.is_empty(), "a summary needs a measurement");
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (n, middle) = (sorted.len(), sorted.len() / 2);
        let median = if n % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Self { n, min: sorted[0], median, max: sorted[n - 1] }
    }

    /// Of one measurement.
    pub fn single(value: f64) -> Self {
        Self { n: 1, min: value, median: value, max: value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_middle() {
        assert_eq!(Summary::of(&[3.0, 1.0, 2.0]), Summary { n: 3, min: 1.0, median: 2.0, max: 3.0 });
        assert_eq!(Summary::of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Summary::single(7.0), Summary::of(&[7.0]));
    }
}
