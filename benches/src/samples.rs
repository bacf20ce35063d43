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

/// Least-squares slope of `y` over `x`, of equal length; 0 if all `x` are the same.
pub fn slope(x: &[f64], y: &[f64]) -> f64 {
    let n = x.len().max(1) as f64;
    let (mean_x, mean_y) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let covariance: f64 = x.iter().zip(y).map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = x.iter().map(|x| (x - mean_x).powi(2)).sum();
    if variance > 0.0 { covariance / variance } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_slope() {
        assert_eq!(slope(&[0.0, 1.0, 2.0, 3.0], &[5.0, 7.0, 9.0, 11.0]), 2.0);
        assert_eq!(slope(&[0.0, 1.0, 2.0], &[4.0, 1.0, 4.0]), 0.0);
        assert_eq!(slope(&[2.0, 2.0], &[1.0, 3.0]), 0.0);
    }

    #[test]
    fn takes_the_middle() {
        assert_eq!(Summary::of(&[3.0, 1.0, 2.0]), Summary { n: 3, min: 1.0, median: 2.0, max: 3.0 });
        assert_eq!(Summary::of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Summary::single(7.0), Summary::of(&[7.0]));
    }
}
