//! The backends of a prover, one for each device, and which of them takes a job.
//!
//! A job runs on one of them from its first step to its last, since what it commits lies there. It goes where nothing has failed, then where the
//! fewest jobs run, then where its model's weights are committed already.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use zkinfer_circuits::backend::Backend;
use zkinfer_circuits::pipeline::CommittedModel;

use super::DigestBytes;
use super::kept::KeptJobs;
use crate::observe::DeviceReport;

/// Committed models kept in memory, for each backend.
const CACHED_MODELS: usize = 4;

/// One backend with the models that were committed on it.
pub(super) struct Place<B: Backend> {
    pub(super) backend: B,
    running: AtomicUsize,
    /// What steps of jobs left here.
    pub(super) kept: KeptJobs<B>,
    /// The one used last comes first.
    models: Mutex<Vec<(DigestBytes, Arc<CommittedModel<B>>)>>,
}

impl<B: Backend> Place<B> {
    fn new(backend: B) -> Self {
        Self { backend, running: AtomicUsize::new(0), kept: KeptJobs::default(), models: Mutex::new(Vec::new()) }
    }

    /// The committed model, if it is in memory.
    pub(super) fn model(&self, id: DigestBytes) -> Option<Arc<CommittedModel<B>>> {
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        models.iter().find(|(known, _)| *known == id).map(|(_, model)| Arc::clone(model))
    }

    /// Keeps a model, and forgets the one that was used longest ago.
    pub(super) fn remember(&self, id: DigestBytes, model: &Arc<CommittedModel<B>>) {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        models.retain(|(known, _)| *known != id);
        models.insert(0, (id, Arc::clone(model)));
        models.truncate(CACHED_MODELS);
    }

    /// Measures anew what is taken of its device's memory at most, unless something else runs here: then that goes on being measured as well.
    pub(super) fn mark_memory(&self) {
        if self.running.load(Ordering::Relaxed) == 1 {
            self.backend.mark_memory();
        }
    }

    /// The models in memory.
    fn cached(&self) -> Vec<DigestBytes> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(id, _)| *id).collect()
    }

    /// Forgets all models and oracles: they may lie on a device that failed.
    pub(super) fn forget(&self) {
        self.kept.forget(None);
        self.models.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// All backends of a prover; never empty.
pub(super) struct Places<B: Backend> {
    places: Vec<Place<B>>,
    /// Held while a place is chosen, so that two jobs do not both find the same one idle.
    choosing: Mutex<()>,
}

/// A place that a job runs on, until this is dropped.
pub(super) struct Taken<'a, B: Backend>(&'a Place<B>);

impl<B: Backend> std::ops::Deref for Taken<'_, B> {
    type Target = Place<B>;

    fn deref(&self) -> &Place<B> {
        self.0
    }
}

impl<B: Backend> Drop for Taken<'_, B> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<B: Backend> Places<B> {
    /// `None` if there are no backends.
    pub(super) fn new(backends: Vec<B>) -> Option<Self> {
        let places: Vec<Place<B>> = backends.into_iter().map(Place::new).collect();
        (!places.is_empty()).then_some(Self { places, choosing: Mutex::new(()) })
    }

    /// Takes a place for a job, on this model if it is known already.
    pub(super) fn take(&self, model: Option<DigestBytes>) -> Taken<'_, B> {
        self.take_best(|place| (place.running.load(Ordering::Relaxed), model.is_some_and(|id| place.model(id).is_none())))
    }

    /// Takes a place for a step of a job: rather the one that committed the layer that the step proves, even if one job more runs there.
    pub(super) fn take_for_step(&self, model: DigestBytes, job: DigestBytes, layer: Option<usize>) -> Taken<'_, B> {
        self.take_best(|place| {
            let is_kept = layer.is_some_and(|layer| place.kept.has(job, layer));
            let running = place.running.load(Ordering::Relaxed) + usize::from(!is_kept);
            (running, !is_kept, place.model(model).is_none())
        })
    }

    /// The place that ranks least of those where nothing has failed, if there are such.
    fn take_best<R: Ord>(&self, rank: impl Fn(&Place<B>) -> R) -> Taken<'_, B> {
        let _choosing = self.choosing.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.places.iter().min_by_key(|place| (place.backend.is_degraded(), rank(place))).expect("there is a place");
        place.running.fetch_add(1, Ordering::Relaxed);
        Taken(place)
    }

    /// Whether a backend computes on something slower than it was made for.
    pub(super) fn is_degraded(&self) -> bool {
        self.places.iter().any(|place| place.backend.is_degraded())
    }

    /// The places that have a model in memory, with it.
    pub(super) fn with_model(&self, id: DigestBytes) -> impl Iterator<Item = (&Place<B>, Arc<CommittedModel<B>>)> {
        self.places.iter().filter_map(move |place| Some((place, place.model(id)?)))
    }

    /// The models in memory, on any place.
    pub(super) fn cached(&self) -> Vec<DigestBytes> {
        let mut models: Vec<DigestBytes> = self.places.iter().flat_map(Place::cached).collect();
        models.sort_unstable();
        models.dedup();
        models
    }

    /// Names of the backends, in order.
    pub(super) fn names(&self) -> String {
        self.places.iter().map(|place| place.backend.name()).collect::<Vec<_>>().join("; ")
    }

    /// Each backend, as it is now.
    pub(super) fn reports(&self) -> Vec<DeviceReport> {
        let report = |place: &Place<B>| DeviceReport {
            jobs: place.running.load(Ordering::Relaxed),
            is_degraded: place.backend.is_degraded(),
            condition: place.backend.condition(),
        };
        self.places.iter().map(report).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }
}

#[cfg(test)]
mod tests {
    use zkinfer_circuits::backend::CommitShape;
    use zkinfer_circuits::columns::Columns;
    use zkinfer_kernels::faulty::{Fault, FaultSwitch, FaultyBackend};
    use zkinfer_kernels::{CpuBackend, FallbackBackend};

    use super::*;

    type Device = FallbackBackend<FaultyBackend<CpuBackend>, CpuBackend>;

    fn places(n: usize) -> (Places<Device>, Vec<FaultSwitch>) {
        let switches: Vec<FaultSwitch> = (0..n).map(|_| FaultSwitch::default()).collect();
        let device =
            |switch: &FaultSwitch| FallbackBackend::new(Some(FaultyBackend::new(CpuBackend::new(), switch.clone())), CpuBackend::new());
        (Places::new(switches.iter().map(device).collect()).unwrap(), switches)
    }

    fn index(places: &Places<Device>, taken: &Taken<'_, Device>) -> usize {
        places.places.iter().position(|place| std::ptr::eq(place, taken.0)).unwrap()
    }

    fn lose(place: &Place<Device>, switch: &FaultSwitch) {
        switch.fail_at("commit", Fault::Lost);
        place.backend.commit(&Columns::zero(4, 1), CommitShape { rate_bits: 1, cap_height: 0 }).unwrap();
    }

    #[test]
    fn jobs_spread_over_the_devices_and_come_back_to_the_idle_one() {
        let (places, _) = places(3);
        let taken: Vec<_> = (0..3).map(|_| places.take(None)).collect();
        assert_eq!(taken.iter().map(|taken| index(&places, taken)).collect::<Vec<_>>(), [0, 1, 2]);
        let mut taken = taken.into_iter();
        let (first, second) = (taken.next(), taken.next());
        drop(second);
        assert_eq!(index(&places, &places.take(None)), 1);
        drop(first);
    }

    #[test]
    fn a_device_that_failed_is_passed_over_even_if_the_others_are_busy() {
        let (places, switches) = places(2);
        lose(&places.places[0], &switches[0]);
        let first = places.take(None);
        let second = places.take(None);
        assert_eq!([index(&places, &first), index(&places, &second)], [1, 1]);
        lose(&places.places[1], &switches[1]);
        assert_eq!(index(&places, &places.take(None)), 0, "with none left, jobs spread over what computes in their stead");
    }

    #[test]
    fn a_layer_is_proved_where_it_was_committed_unless_much_runs_there() {
        let (places, _) = places(2);
        let (model, job) = ([1; 32], [2; 32]);
        let committed = &places.places[1].kept;
        committed.of(job);
        committed.committed(job, 5);
        let first = places.take_for_step(model, job, Some(5));
        let second = places.take_for_step(model, job, Some(5));
        let third = places.take_for_step(model, job, Some(5));
        assert_eq!([&first, &second, &third].map(|taken| index(&places, taken)), [1, 1, 0]);
        drop((first, second, third));
        assert_eq!(index(&places, &places.take_for_step(model, job, Some(6))), 0, "another layer");
        assert_eq!(index(&places, &places.take_for_step(model, job, None)), 0, "no layer");
    }

    #[test]
    fn there_is_no_prover_without_a_backend() {
        assert!(Places::<CpuBackend>::new(Vec::new()).is_none());
    }
}
