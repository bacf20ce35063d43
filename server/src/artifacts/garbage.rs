//! Deletes artifacts that nothing refers to any more.
//!
//! The order is crash-safe: a record is *doomed*, then its bytes are deleted, then the record is forgotten. A crash in between leaves a doomed record,
//! which a later sweep takes up; bytes without a record are never left behind by a sweep, and a doomed artifact is not there for readers.
//!
//! **Why a write at the same time loses nothing.** Who stores an artifact does three things: *hold* it, put its bytes, commit a record with what refers to
//! it. Let the hold be granted at h and end at h + g, where g is the grace, and let the commit come before that (a put has time-outs that are far shorter).
//! 1. The hold was granted, so the artifact was not doomed at h. Nothing held is doomed, so it is not doomed before h + g, and after the commit it is
//!    referred to. Hence no sweep dooms it between h and the end of the reference, and none deletes its bytes on behalf of such a doom.
//! 2. A deletion on behalf of a doom from before h could still be on its way. That doom was forgotten before h, or else the hold would have been refused.
//!    The sweep that forgot it is either the one that deletes, which forgets only after its deletions have ended; or another one, which takes up a doom
//!    only when it is older than [`QUARANTINE`]. But a sweep begins no deletion later than [`DELETE_WITHIN`] after its doom, and gives up each after
//!    [`DELETE_TIME`]: together less than the quarantine. So none is on its way at h.
//!
//! Bytes that were put and never recorded, since who put them failed, are garbage too: when a hold ends and there is no record, a doomed one is written, and
//! the rest goes as above. Who comes later finds the doom, not a place to commit to.
//!
//! Clocks are compared only within the engine (doom and quarantine) and only as durations within a sweep: none has to agree with another.
//! References to artifacts that are there already (a job that names an uploaded input) need no hold: the transaction that adds one requires a record that
//! is not doomed, and dooming looks at references in its own transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};

use super::{ArtifactBytes, ArtifactError, Class};
use crate::engine::{Digest, EngineFuture};

/// A sweep begins no deletion later than this after it doomed.
const DELETE_WITHIN: Duration = Duration::from_secs(240);
/// Deletions at a time: a store far away takes as long for many as for one.
const DELETES_AT_ONCE: usize = 16;
/// A deletion that takes longer is given up.
const DELETE_TIME: Duration = Duration::from_secs(60);
/// A doom that is older is taken up by another sweep.
pub const QUARANTINE: Duration = Duration::from_secs(600);

/// Names an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArtifactId {
    /// Who may read it.
    pub class: Class,
    /// Owner.
    pub tenant: String,
    /// Hash.
    pub digest: Digest,
}

/// Artifacts that one sweep has doomed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doomed {
    /// Which ones.
    pub artifacts: Vec<ArtifactId>,
    /// What tells this doom from others of the same artifact: the engine's time, in milliseconds.
    pub at_ms: i64,
}

/// What the collector needs of the engine. Each method is one transaction, and all times are those of the engine's clock.
pub trait GarbageRecords: Send + Sync {
    /// Keeps artifacts from being doomed for a time, whether they are recorded or not. Answers `false`, and holds none, if one of them is doomed: then
    /// try again later. To be called before bytes are put; what refers to them must be committed within the time.
    fn hold(&self, artifacts: Vec<ArtifactId>, time: Duration) -> EngineFuture<'_, bool>;
    /// Dooms up to `limit` artifacts: those that are recorded for at least `grace` and that nothing holds or refers to; those that were held, are so no more,
    /// and were never recorded; and those whose doom is older than `quarantine`, again.
    fn doom(&self, grace: Duration, quarantine: Duration, limit: u32) -> EngineFuture<'_, Doomed>;
    /// Forgets the artifacts whose doom is this one.
    fn forget(&self, doomed: Doomed) -> EngineFuture<'_, ()>;
}

/// Sweeps.
#[derive(Clone)]
pub struct Collector {
    records: Arc<dyn GarbageRecords>,
    bytes: ArtifactBytes,
    grace: Duration,
}

impl Collector {
    /// Artifacts of one sweep, at most.
    pub const BATCH: u32 = 500;

    /// Deletes what nothing has referred to since it was recorded, at least `grace` ago.
    pub fn new(records: Arc<dyn GarbageRecords>, bytes: ArtifactBytes, grace: Duration) -> Self {
        Self { records, bytes, grace }
    }

    /// One batch. Answers how many artifacts were deleted; if it was full, there may be more.
    ///
    /// # Errors
    /// The engine's. What was deleted until then is forgotten by a later sweep.
    pub async fn sweep(&self) -> Result<usize, ArtifactError> {
        // From before the doom, so that what is measured is too long rather than too short.
        let begun = Instant::now();
        let doomed = self.records.doom(self.grace, QUARANTINE, Self::BATCH).await?;
        let deleted = self.delete(&doomed, || begun.elapsed()).await;
        let n_deleted = deleted.artifacts.len();
        if n_deleted > 0 {
            self.records.forget(deleted).await?;
            tracing::info!(n_deleted, "deleted artifacts that nothing refers to");
        }
        Ok(n_deleted)
    }

    /// Deletes bytes, as long as there is time; answers those whose bytes are gone.
    async fn delete(&self, doomed: &Doomed, elapsed: impl Fn() -> Duration) -> Doomed {
        let deleting = stream::iter(doomed.artifacts.clone()).map(|artifact| self.delete_one(artifact, &elapsed));
        let deleted: Vec<Option<ArtifactId>> = deleting.buffered(DELETES_AT_ONCE).collect().await;
        if elapsed() >= DELETE_WITHIN {
            tracing::warn!("deleting artifacts takes too long; a later sweep takes up the rest");
        }
        Doomed { artifacts: deleted.into_iter().flatten().collect(), at_ms: doomed.at_ms }
    }

    /// Deletes the bytes of an artifact, unless it is too late to begin; answers it if they are gone.
    async fn delete_one(&self, artifact: ArtifactId, elapsed: impl Fn() -> Duration) -> Option<ArtifactId> {
        if elapsed() >= DELETE_WITHIN {
            return None;
        }
        let delete = self.bytes.delete(artifact.class, &artifact.tenant, artifact.digest);
        match tokio::time::timeout(DELETE_TIME, delete).await {
            Ok(Ok(())) => return Some(artifact),
            Ok(Err(error)) => tracing::warn!(%error, "an artifact was not deleted; a later sweep takes it up"),
            Err(_) => tracing::warn!("deleting an artifact took too long; a later sweep takes it up"),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Mutex;

    use object_store::memory::InMemory;
    use proptest::prelude::*;

    use super::*;

    const GRACE: Duration = Duration::from_secs(86_400);

    fn ms(time: Duration) -> i64 {
        i64::try_from(time.as_millis()).unwrap()
    }

    #[derive(Default)]
    struct Tables {
        now_ms: i64,
        /// When recorded, and the doom.
        records: BTreeMap<ArtifactId, (i64, Option<i64>)>,
        /// Until when.
        holds: BTreeMap<ArtifactId, i64>,
        references: BTreeSet<ArtifactId>,
    }

    /// The engine's part, in memory.
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Tables>>);

    impl Memory {
        fn with<T>(&self, act: impl FnOnce(&mut Tables) -> T) -> T {
            act(&mut self.0.lock().unwrap())
        }

        /// The transaction of a writer: a record, if there is none, and a reference to it.
        fn commit(&self, artifact: &ArtifactId) -> bool {
            self.with(|tables| {
                let now_ms = tables.now_ms;
                let (_, doom) = tables.records.entry(artifact.clone()).or_insert((now_ms, None));
                let is_whole = doom.is_none();
                if is_whole {
                    tables.references.insert(artifact.clone());
                }
                is_whole
            })
        }

        /// A reference to what is there.
        fn refer(&self, artifact: &ArtifactId) -> bool {
            self.with(|tables| {
                let is_there = matches!(tables.records.get(artifact), Some((_, None)));
                is_there && tables.references.insert(artifact.clone())
            })
        }
    }

    impl GarbageRecords for Memory {
        fn hold(&self, artifacts: Vec<ArtifactId>, time: Duration) -> EngineFuture<'_, bool> {
            let is_held = self.with(|tables| {
                if artifacts.iter().any(|artifact| matches!(tables.records.get(artifact), Some((_, Some(_))))) {
                    return false;
                }
                let until = tables.now_ms + ms(time);
                tables.holds.extend(artifacts.into_iter().map(|artifact| (artifact, until)));
                true
            });
            Box::pin(async move { Ok(is_held) })
        }

        fn doom(&self, grace: Duration, quarantine: Duration, limit: u32) -> EngineFuture<'_, Doomed> {
            let doomed = self.with(|tables| {
                // Dooms of one artifact must differ.
                tables.now_ms += 1;
                let at_ms = tables.now_ms;
                let mut artifacts = Vec::new();
                while let Some(held) = tables.holds.iter().find(|(_, until)| **until <= at_ms).map(|(held, _)| held.clone()) {
                    tables.holds.remove(&held);
                    if !tables.records.contains_key(&held) {
                        tables.records.insert(held.clone(), (at_ms, Some(at_ms)));
                        artifacts.push(held);
                    }
                }
                for (artifact, (recorded, doom)) in &mut tables.records {
                    let is_held = tables.holds.get(artifact).is_some_and(|until| *until > at_ms);
                    let is_garbage = match doom {
                        None => *recorded <= at_ms - ms(grace) && !is_held && !tables.references.contains(artifact),
                        Some(doom) => *doom <= at_ms - ms(quarantine),
                    };
                    if is_garbage && artifacts.len() < limit as usize {
                        *doom = Some(at_ms);
                        artifacts.push(artifact.clone());
                    }
                }
                Doomed { artifacts, at_ms }
            });
            Box::pin(async move { Ok(doomed) })
        }

        fn forget(&self, doomed: Doomed) -> EngineFuture<'_, ()> {
            self.with(|tables| {
                for artifact in &doomed.artifacts {
                    if matches!(tables.records.get(artifact), Some((_, Some(doom))) if *doom == doomed.at_ms) {
                        tables.records.remove(artifact);
                    }
                }
            });
            Box::pin(async { Ok(()) })
        }
    }

    struct World {
        memory: Memory,
        bytes: ArtifactBytes,
        collector: Collector,
    }

    fn world() -> World {
        let memory = Memory::default();
        let bytes = ArtifactBytes::over(Arc::new(InMemory::new()), None);
        World { collector: Collector::new(Arc::new(memory.clone()), bytes.clone(), GRACE), memory, bytes }
    }

    fn content(number: u8) -> bytes::Bytes {
        vec![number; 40].into()
    }

    fn id(number: u8) -> ArtifactId {
        ArtifactId { class: Class::Public, tenant: "a".into(), digest: *blake3::hash(&content(number)).as_bytes() }
    }

    impl World {
        async fn store(&self, number: u8) -> bool {
            if !self.memory.hold(vec![id(number)], GRACE).await.unwrap() {
                return false;
            }
            self.bytes.put(Class::Public, "a", content(number)).await.unwrap();
            self.memory.commit(&id(number))
        }

        async fn has(&self, number: u8) -> bool {
            self.bytes.get(Class::Public, "a", id(number).digest).await.is_ok()
        }

        fn pass(&self, time: Duration) {
            self.memory.with(|tables| tables.now_ms += ms(time));
        }
    }

    #[tokio::test]
    async fn only_what_nothing_refers_to_and_is_old_is_deleted() {
        let world = world();
        for number in [1, 2] {
            assert!(world.store(number).await);
        }
        world.memory.with(|tables| tables.references.remove(&id(1)));
        assert_eq!(world.collector.sweep().await.unwrap(), 0, "too young");
        world.pass(GRACE);
        assert_eq!(world.collector.sweep().await.unwrap(), 1);
        assert!(!world.has(1).await && world.has(2).await);
        assert!(!world.memory.with(|tables| tables.records.contains_key(&id(1))));
        assert_eq!(world.collector.sweep().await.unwrap(), 0);
        assert!(world.store(1).await && world.has(1).await);
    }

    #[tokio::test]
    async fn a_sweep_that_broke_off_is_taken_up_after_the_quarantine() {
        let world = world();
        assert!(world.store(1).await);
        world.memory.with(|tables| tables.references.clear());
        world.pass(GRACE);
        world.memory.doom(GRACE, QUARANTINE, 10).await.unwrap();
        assert!(!world.store(1).await, "a doomed artifact cannot be stored");
        assert!(!world.memory.refer(&id(1)), "nor referred to");
        assert_eq!(world.collector.sweep().await.unwrap(), 0, "the other sweep may still delete");
        world.pass(QUARANTINE);
        assert_eq!(world.collector.sweep().await.unwrap(), 1);
        assert!(world.store(1).await && world.has(1).await);
    }

    #[tokio::test]
    async fn what_was_put_and_never_recorded_is_deleted_when_its_hold_ends() {
        let world = world();
        assert!(world.memory.hold(vec![id(1)], GRACE).await.unwrap());
        world.bytes.put(Class::Public, "a", content(1)).await.unwrap();
        assert_eq!(world.collector.sweep().await.unwrap(), 0, "it may still be recorded");
        world.pass(GRACE);
        assert_eq!(world.collector.sweep().await.unwrap(), 1);
        assert!(!world.has(1).await);
        assert!(world.store(1).await && world.has(1).await);
    }

    #[tokio::test]
    async fn a_sweep_that_stalled_deletes_nothing_any_more() {
        let world = world();
        assert!(world.store(1).await);
        world.memory.with(|tables| tables.references.clear());
        world.pass(GRACE);
        let stalled = world.memory.doom(GRACE, QUARANTINE, 10).await.unwrap();
        world.pass(QUARANTINE);
        assert_eq!(world.collector.sweep().await.unwrap(), 1);
        assert!(world.store(1).await);
        let deleted = world.collector.delete(&stalled, || QUARANTINE).await;
        assert!(deleted.artifacts.is_empty());
        world.memory.forget(stalled).await.unwrap();
        assert!(world.has(1).await && world.memory.with(|tables| tables.references.contains(&id(1))));
    }

    #[test]
    fn the_times_fit_into_each_other() {
        assert!(DELETE_WITHIN + DELETE_TIME < QUARANTINE);
    }

    /// One step of a writer, a collector or the clock. Two of each are at work on two artifacts.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// Writer `who` goes on with storing `what`: hold, put, commit.
        Write { who: usize, what: u8 },
        /// A writer dies.
        DropWriter { who: usize },
        /// What refers to it is gone.
        Dereference { what: u8 },
        /// A job names what is there.
        Refer { what: u8 },
        /// Collector `who` goes on: doom, delete one artifact, forget.
        Collect { who: usize },
        /// A collector dies.
        DropCollector { who: usize },
        /// Time passes.
        Pass { seconds: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        let (who, what) = (0..2usize, 0..2u8);
        prop_oneof![
            4 => (who.clone(), what.clone()).prop_map(|(who, what)| Step::Write { who, what }),
            1 => who.clone().prop_map(|who| Step::DropWriter { who }),
            3 => what.clone().prop_map(|what| Step::Dereference { what }),
            1 => what.prop_map(|what| Step::Refer { what }),
            5 => who.clone().prop_map(|who| Step::Collect { who }),
            1 => who.prop_map(|who| Step::DropCollector { who }),
            3 => prop::sample::select(vec![1, 100, 200, 300, 600, 40_000, 86_400]).prop_map(|seconds| Step::Pass { seconds }),
        ]
    }

    /// How far a writer is: what it stores, whether it has put, and until when its hold lasts.
    type Writing = Option<(u8, bool, i64)>;
    /// How far a collector is: its doom, and what it has deleted.
    type Collecting = Option<(Doomed, Vec<ArtifactId>)>;

    struct Run {
        world: World,
        writers: [Writing; 2],
        collectors: [Collecting; 2],
    }

    impl Run {
        async fn take(&mut self, step: Step) {
            let memory = self.world.memory.clone();
            match step {
                Step::Write { who, what } => self.write(who, what).await,
                Step::DropWriter { who } => self.writers[who] = None,
                Step::Dereference { what } => {
                    memory.with(|tables| tables.references.remove(&id(what)));
                }
                Step::Refer { what } => {
                    memory.refer(&id(what));
                }
                Step::Collect { who } => self.collect(who).await,
                Step::DropCollector { who } => self.collectors[who] = None,
                Step::Pass { seconds } => self.world.pass(Duration::from_secs(seconds)),
            }
        }

        async fn write(&mut self, who: usize, what: u8) {
            let memory = &self.world.memory;
            let now_ms = memory.with(|tables| tables.now_ms);
            self.writers[who] = match self.writers[who].take() {
                None => memory.hold(vec![id(what)], GRACE).await.unwrap().then_some((what, false, now_ms + ms(GRACE))),
                // Time-outs end a writer long before its hold ends.
                Some((_, _, until)) if until <= now_ms => None,
                Some((what, false, until)) => {
                    self.world.bytes.put(Class::Public, "a", content(what)).await.unwrap();
                    Some((what, true, until))
                }
                Some((what, true, _)) => {
                    assert!(memory.commit(&id(what)), "what is held is not doomed");
                    None
                }
            };
        }

        async fn collect(&mut self, who: usize) {
            let Some((doomed, mut deleted)) = self.collectors[who].take() else {
                let doomed = self.world.memory.doom(GRACE, QUARANTINE, 10).await.unwrap();
                self.collectors[who] = Some((doomed, Vec::new()));
                return;
            };
            let elapsed_ms = self.world.memory.with(|tables| tables.now_ms) - doomed.at_ms;
            let elapsed = Duration::from_millis(elapsed_ms.unsigned_abs());
            match doomed.artifacts.get(deleted.len()) {
                Some(next) if elapsed < DELETE_WITHIN => {
                    let one = Doomed { artifacts: vec![next.clone()], at_ms: doomed.at_ms };
                    deleted.extend(self.world.collector.delete(&one, || elapsed).await.artifacts);
                    self.collectors[who] = Some((doomed, deleted));
                }
                _ => self.world.memory.forget(Doomed { artifacts: deleted, at_ms: doomed.at_ms }).await.unwrap(),
            }
        }

        /// Every reference leads to bytes.
        async fn check(&self) {
            let references = self.world.memory.with(|tables| tables.references.clone());
            for what in 0..2 {
                assert!(!references.contains(&id(what)) || self.world.has(what).await, "artifact {what} is referred to and gone");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_order_of_writers_collectors_and_crashes_loses_what_is_referred_to(steps in prop::collection::vec(step(), 1..120)) {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(async {
                let mut run = Run { world: world(), writers: [None, None], collectors: [None, None] };
                for step in steps {
                    run.take(step).await;
                    run.check().await;
                }
            });
        }
    }
}
