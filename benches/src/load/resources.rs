//! What the process holds while it is under load: memory, files, threads, tasks. What only grows is lost.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::machine::{field, kibibytes, read};
use crate::record::Record;
use crate::samples::slope;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
const SECONDS_PER_HOUR: f64 = 3600.0;

/// Looks at this process, one a second.
#[derive(Clone, Debug, Default)]
pub(super) struct Resources {
    at_s: Vec<f64>,
    resident_bytes: Vec<f64>,
    open_files: Vec<f64>,
    threads: Vec<f64>,
    tasks: Vec<f64>,
    streams: Vec<f64>,
}

impl Resources {
    /// Looks for so long, at the number of open streams too.
    pub(super) async fn watch(time: Duration, n_streams: &AtomicUsize) -> Self {
        let (began, mut seen) = (Instant::now(), Self::default());
        while began.elapsed() < time {
            seen.look(began.elapsed());
            seen.streams.push(n_streams.load(Ordering::Relaxed) as f64);
            tokio::time::sleep(EVERY).await;
        }
        seen
    }

    fn look(&mut self, at: Duration) {
        let status = read("/proc/self/status");
        self.at_s.push(at.as_secs_f64());
        self.resident_bytes.push(kibibytes(&field(&status, "VmRSS")) as f64);
        self.open_files.push(std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as f64);
        self.threads.push(field(&status, "Threads").parse().unwrap_or(0.0));
        self.tasks.push(tokio::runtime::Handle::current().metrics().num_alive_tasks() as f64);
    }

    /// Notes least, middle and largest of each, and how it changed.
    ///
    /// # Errors
    /// Too few looks.
    pub(super) fn note(&self, record: &mut Record) -> anyhow::Result<()> {
        let n = self.at_s.len();
        ensure!(n >= 10, "the measurement was too short");
        let half = n / 2;
        let (before_last, last) = (n - 2 * (n / 5), n - n / 5);
        let kinds = [
            ("resident_bytes", &self.resident_bytes),
            ("open_files", &self.open_files),
            ("threads", &self.threads),
            ("tokio_tasks", &self.tasks),
            ("open_streams", &self.streams),
        ];
        for (name, samples) in kinds {
            record.add(name, samples);
            record.add_single(&format!("{name}_second_half_minus_first"), mean(&samples[half..]) - mean(&samples[..half]));
            record.add_single(&format!("{name}_last_fifth_minus_fourth"), mean(&samples[last..]) - mean(&samples[before_last..last]));
            let change = slope(&self.at_s[half..], &samples[half..]) * SECONDS_PER_HOUR;
            record.add_single(&format!("{name}_per_hour_in_second_half"), change);
        }
        Ok(())
    }
}

fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len().max(1) as f64
}
