//! What steps of running jobs left on a place for later steps: oracles from the commitment of a layer to its proof. Losing one costs a second commitment.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zkinfer_circuits::backend::Backend;
use zkinfer_circuits::pipeline::tasks::KeptOracles;

use super::{DigestBytes, ProveRequest};

/// Jobs for which a place keeps something.
const KEPT_JOBS: usize = 4;

/// Identifies a job: nothing that its proof depends on is left out.
pub(super) fn job_key(model: DigestBytes, request: &ProveRequest<'_>) -> DigestBytes {
    let mut hasher = blake3::Hasher::new_derive_key("zkinfer kept oracles of a job");
    for part in [&model, request.seed, request.nonce, request.input_salt] {
        hasher.update(part);
    }
    hasher.update(request.input);
    *hasher.finalize().as_bytes()
}

struct Job<B: Backend> {
    key: DigestBytes,
    oracles: Arc<KeptOracles<B>>,
    layers: HashSet<usize>,
}

/// The kept oracles of a few jobs; the job used last comes first.
pub(super) struct KeptJobs<B: Backend>(Mutex<Vec<Job<B>>>);

impl<B: Backend> Default for KeptJobs<B> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<B: Backend> KeptJobs<B> {
    /// The oracles of a job, begun if there are none; those of the job that was used longest ago are dropped.
    pub(super) fn of(&self, key: DigestBytes) -> Arc<KeptOracles<B>> {
        let mut jobs = self.lock();
        let job = match jobs.iter().position(|job| job.key == key) {
            Some(position) => jobs.remove(position),
            None => Job { key, oracles: Arc::default(), layers: HashSet::new() },
        };
        let oracles = Arc::clone(&job.oracles);
        jobs.insert(0, job);
        jobs.truncate(KEPT_JOBS);
        oracles
    }

    /// A layer of a job was committed here.
    pub(super) fn committed(&self, key: DigestBytes, layer: usize) {
        if let Some(job) = self.lock().iter_mut().find(|job| job.key == key) {
            job.layers.insert(layer);
        }
    }

    /// A layer of a job was proved here: what was kept for it is used up.
    pub(super) fn proved(&self, key: DigestBytes, layer: usize) {
        if let Some(job) = self.lock().iter_mut().find(|job| job.key == key) {
            job.layers.remove(&layer);
        }
    }

    /// Whether a layer of a job was committed here and waits for its proof.
    pub(super) fn has(&self, key: DigestBytes, layer: usize) -> bool {
        self.lock().iter().any(|job| job.key == key && job.layers.contains(&layer))
    }

    /// The job has ended, or what was kept lies on a device that failed.
    pub(super) fn forget(&self, key: Option<DigestBytes>) {
        self.lock().retain(|job| key.is_some_and(|key| job.key != key));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Job<B>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use zkinfer_kernels::CpuBackend;

    use super::*;

    #[test]
    fn the_job_used_longest_ago_is_dropped_and_layers_are_used_up() {
        let kept = KeptJobs::<CpuBackend>::default();
        let key = |number: usize| [number as u8; 32];
        for number in 0..KEPT_JOBS {
            kept.of(key(number));
            kept.committed(key(number), 7);
        }
        let first = kept.of(key(0));
        kept.of(key(KEPT_JOBS));
        assert!(kept.has(key(0), 7) && !kept.has(key(1), 7), "the second was used longest ago");
        assert!(Arc::ptr_eq(&first, &kept.of(key(0))));
        kept.proved(key(0), 7);
        assert!(!kept.has(key(0), 7) && kept.has(key(2), 7));
        kept.forget(Some(key(2)));
        assert!(!kept.has(key(2), 7) && kept.has(key(3), 7));
        kept.forget(None);
        assert!(!kept.has(key(3), 7));
    }
}
