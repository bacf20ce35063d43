//! Whether a device can be trusted, as its driver's management library says. Without that library every device is healthy until its child says otherwise.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{EventSet, Nvml};

/// Errors after which a device, or what it has in memory, is not to be trusted: memory that could not be corrected (48, 63, 64, 94, 95), links (74), a
/// device that fell off its bus (79) or whose firmware hangs (119).
const CRITICAL_XIDS: [u64; 8] = [48, 63, 64, 74, 79, 94, 95, 119];
/// How long the library waits for an event, in milliseconds.
const WAIT_MS: u32 = 1_000;
/// How long after an error of the library itself it is listened to again.
const PAUSE: Duration = Duration::from_secs(30);

/// Health of devices.
pub trait DeviceHealth: Send + Sync {
    /// Why the device of this number is not to be trusted any more; `None`: it is. Once sick, always sick.
    fn sickness(&self, ordinal: usize) -> Option<String>;

    /// Whether a sickness of the device of this number would be noticed.
    fn is_watched(&self, ordinal: usize) -> bool;
}

/// Nothing is known to be wrong.
pub struct Unwatched;

impl DeviceHealth for Unwatched {
    fn sickness(&self, _: usize) -> Option<String> {
        None
    }

    fn is_watched(&self, _: usize) -> bool {
        false
    }
}

/// What NVML said, by the number of the device.
#[derive(Clone, Default)]
pub struct NvmlHealth(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    sick: HashMap<usize, String>,
    watched: HashSet<usize>,
}

/// Numbers of devices of CUDA by the index of NVML: several of one, if it is divided into slices.
type Ordinals = BTreeMap<u32, Vec<usize>>;

/// What befell a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Event {
    /// Of NVML.
    index: Option<u32>,
    xid: Option<u64>,
    is_memory: bool,
}

/// What is asked of NVML.
trait Events {
    /// Whether this device can be listened to.
    fn try_listen(&self, index: u32) -> Result<(), NvmlError>;

    /// Listens to these devices, and to no others.
    fn listen(&mut self, indices: &[u32]) -> Result<(), NvmlError>;

    /// The next event, or an error; [`NvmlError::Timeout`] if nothing happened for a while.
    fn wait(&mut self) -> Result<Event, NvmlError>;
}

impl NvmlHealth {
    /// Listens to NVML for these devices, on a thread of its own, for as long as the process lives.
    ///
    /// # Errors
    /// There is no NVML.
    pub fn start(ordinals: &[usize]) -> Result<Self, NvmlError> {
        let nvml = Nvml::init()?;
        let ordinals = indices(ordinals, std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref(), &nvml);
        let health = Self::default();
        let told = health.clone();
        std::thread::Builder::new()
            .name("device-health".to_owned())
            .spawn(move || told.listen(&mut Library { nvml: &nvml, set: None }, &ordinals, PAUSE))
            .map_err(|_| NvmlError::Unknown)?;
        Ok(health)
    }

    /// Listens until a device fell off its bus: then none is trusted, and there is nothing to listen for.
    fn listen(&self, library: &mut impl Events, ordinals: &Ordinals, pause: Duration) {
        loop {
            let error = match self.hear(library, ordinals) {
                // Which one it was is not told.
                Err(NvmlError::GpuLost) => {
                    ordinals.values().flatten().for_each(|&ordinal| self.mark(ordinal, "a device fell off its bus".to_owned()));
                    self.known().watched.clear();
                    return;
                }
                Err(error) => error,
                Ok(()) => return,
            };
            self.known().watched.clear();
            tracing::warn!(%error, ?pause, "the health of devices is not watched; it is tried again");
            std::thread::sleep(pause);
        }
    }

    /// Listens until an error. Ready at once if no device can ever be listened to.
    fn hear(&self, library: &mut impl Events, ordinals: &Ordinals) -> Result<(), NvmlError> {
        let (mut indices, mut failed) = (Vec::new(), Ok(()));
        for (&index, ordinals) in ordinals {
            match library.try_listen(index) {
                Ok(()) => indices.push(index),
                Err(error) => {
                    tracing::warn!(%error, ?ordinals, "the health of these devices is not watched");
                    if !matches!(error, NvmlError::NotSupported) {
                        failed = Err(error);
                    }
                }
            }
        }
        if indices.is_empty() {
            return failed;
        }
        library.listen(&indices)?;
        self.known().watched = indices.iter().filter_map(|index| ordinals.get(index)).flatten().copied().collect();
        loop {
            let event = match library.wait() {
                Ok(event) => event,
                Err(NvmlError::Timeout) => continue,
                Err(error) => return Err(error),
            };
            let befallen = event.index.and_then(|index| ordinals.get(&index));
            if let (Some(befallen), Some(reason)) = (befallen, judge(event.xid, event.is_memory)) {
                befallen.iter().for_each(|&ordinal| self.mark(ordinal, reason.clone()));
            }
        }
    }

    fn mark(&self, ordinal: usize, reason: String) {
        self.known().sick.entry(ordinal).or_insert(reason);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DeviceHealth for NvmlHealth {
    fn sickness(&self, ordinal: usize) -> Option<String> {
        self.known().sick.get(&ordinal).cloned()
    }

    fn is_watched(&self, ordinal: usize) -> bool {
        self.known().watched.contains(&ordinal)
    }
}

/// NVML itself.
struct Library<'nvml> {
    nvml: &'nvml Nvml,
    set: Option<EventSet<'nvml>>,
}

impl<'nvml> Library<'nvml> {
    fn register(&self, index: u32, set: EventSet<'nvml>) -> Result<EventSet<'nvml>, NvmlError> {
        let device = self.nvml.device_by_index(index)?;
        let events = device.supported_event_types()? & (EventTypes::CRITICAL_XID_ERROR | EventTypes::DOUBLE_BIT_ECC_ERROR);
        if events.is_empty() {
            return Err(NvmlError::NotSupported);
        }
        device.register_events(events, set).map_err(|failed| failed.error)
    }
}

impl Events for Library<'_> {
    /// In a set of its own: a set that a device could not be added to is lost.
    fn try_listen(&self, index: u32) -> Result<(), NvmlError> {
        self.register(index, self.nvml.create_event_set()?).map(drop)
    }

    fn listen(&mut self, indices: &[u32]) -> Result<(), NvmlError> {
        let set = self.nvml.create_event_set()?;
        self.set = Some(indices.iter().try_fold(set, |set, &index| self.register(index, set))?);
        Ok(())
    }

    fn wait(&mut self) -> Result<Event, NvmlError> {
        let event = self.set.as_ref().ok_or(NvmlError::Uninitialized)?.wait(WAIT_MS)?;
        let xid = match event.event_data {
            Some(XidError::Value(xid)) => Some(xid),
            Some(XidError::Unknown) | None => None,
        };
        let is_memory = event.event_type.contains(EventTypes::DOUBLE_BIT_ECC_ERROR);
        Ok(Event { index: event.device.index().ok(), xid, is_memory })
    }
}

/// Why an event makes a device sick, if it does.
fn judge(xid: Option<u64>, is_memory: bool) -> Option<String> {
    match xid {
        Some(xid) if CRITICAL_XIDS.contains(&xid) => Some(format!("Xid {xid}")),
        _ if is_memory => Some("a memory error that could not be corrected".to_owned()),
        _ => None,
    }
}

/// The devices of CUDA by their index of NVML, which sees all devices in the order of the bus, whatever the variable shows to CUDA.
fn indices(ordinals: &[usize], visible: Option<&str>, nvml: &Nvml) -> Ordinals {
    let by_uuid = |uuid: &str| {
        let named = nvml.device_by_uuid(uuid)?;
        // A slice has no events of its own: what befalls its device befalls it.
        let device = if uuid.starts_with(SLICE) { named.mig_parent_device()? } else { named };
        device.index()
    };
    let mut found = Ordinals::new();
    for &ordinal in ordinals {
        match index(ordinal, visible, by_uuid) {
            Ok(index) => found.entry(index).or_default().push(ordinal),
            Err(error) => tracing::warn!(%error, ordinal, "NVML does not know the device; its health is not watched"),
        }
    }
    found
}

/// How names of slices (MIG) begin.
const SLICE: &str = "MIG-";

fn index(ordinal: usize, visible: Option<&str>, by_uuid: impl Fn(&str) -> Result<u32, NvmlError>) -> Result<u32, NvmlError> {
    match visible {
        None => u32::try_from(ordinal).map_err(|_| NvmlError::InvalidArg),
        Some(list) => {
            let entry = list.split(',').nth(ordinal).ok_or(NvmlError::NotFound)?.trim();
            entry.parse().or_else(|_| by_uuid(entry))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn critical_errors_make_a_device_sick_and_those_of_programs_do_not() {
        for xid in CRITICAL_XIDS {
            assert_eq!(judge(Some(xid), false), Some(format!("Xid {xid}")));
        }
        // 13 and 31: a program's fault; 43: a program was stopped.
        for xid in [13, 31, 43] {
            assert_eq!(judge(Some(xid), false), None);
        }
        assert!(judge(None, true).is_some());
    }

    #[test]
    fn devices_are_found_behind_the_variable_that_hides_others() {
        let by_uuid = |uuid: &str| match uuid {
            "GPU-5" | "MIG-5a" | "MIG-5b" => Ok(5),
            _ => Err(NvmlError::NotFound),
        };
        let found = |ordinal, visible| index(ordinal, visible, by_uuid).ok();
        assert_eq!(found(1, None), Some(1));
        assert_eq!(found(1, Some("3, 2")), Some(2));
        assert_eq!(found(0, Some("GPU-5")), Some(5));
        assert_eq!([0, 1].map(|ordinal| found(ordinal, Some("MIG-5a,MIG-5b"))), [Some(5); 2]);
        assert_eq!(found(0, Some("GPU-6")), None);
        assert_eq!(found(2, Some("3,2")), None);
    }

    #[test]
    fn the_first_reason_stays() {
        let health = NvmlHealth::default();
        health.mark(1, "Xid 79".to_owned());
        health.mark(1, "Xid 48".to_owned());
        assert_eq!((health.sickness(0), health.sickness(1)), (None, Some("Xid 79".to_owned())));
    }

    /// What a library says in turn; a device whose index is odd has no events. Tells a test what is watched when it is asked for an event.
    struct Script {
        health: NvmlHealth,
        said: std::vec::IntoIter<Result<Event, NvmlError>>,
        watched: Vec<Vec<bool>>,
    }

    impl Events for Script {
        fn try_listen(&self, index: u32) -> Result<(), NvmlError> {
            if index.is_multiple_of(2) { Ok(()) } else { Err(NvmlError::NotSupported) }
        }

        fn listen(&mut self, indices: &[u32]) -> Result<(), NvmlError> {
            assert_eq!(indices, [0, 2]);
            Ok(())
        }

        fn wait(&mut self) -> Result<Event, NvmlError> {
            self.watched.push((0..4).map(|ordinal| self.health.is_watched(ordinal)).collect());
            self.said.next().expect("the library is not asked after a device fell off its bus")
        }
    }

    /// Four devices, of which the first and the last are slices of one.
    fn listen(said: Vec<Result<Event, NvmlError>>) -> (NvmlHealth, Vec<Vec<bool>>) {
        let health = NvmlHealth::default();
        let mut script = Script { health: health.clone(), said: said.into_iter(), watched: Vec::new() };
        let ordinals = Ordinals::from([(0, vec![0, 3]), (1, vec![1]), (2, vec![2])]);
        health.listen(&mut script, &ordinals, Duration::ZERO);
        (health, script.watched)
    }

    #[test]
    fn a_device_without_events_and_errors_of_the_library_do_not_end_the_watch_of_others() {
        let xid = |index, xid| Ok(Event { index: Some(index), xid: Some(xid), is_memory: false });
        let said = vec![Err(NvmlError::Timeout), Err(NvmlError::Unknown), xid(0, 13), xid(0, 48), Err(NvmlError::GpuLost)];
        let (health, watched) = listen(said);
        assert_eq!(watched, vec![[true, false, true, true]; 5]);
        let sick = [0, 1, 2, 3].map(|ordinal| health.sickness(ordinal).unwrap());
        let (xid, lost) = ("Xid 48", "a device fell off its bus");
        assert_eq!(sick, [xid, lost, lost, xid]);
        assert!((0..4).all(|ordinal| !health.is_watched(ordinal)), "nothing is heard any more");
    }

    #[test]
    fn without_a_device_that_has_events_nobody_listens() {
        let health = NvmlHealth::default();
        let mut script = Script { health: health.clone(), said: Vec::new().into_iter(), watched: Vec::new() };
        health.listen(&mut script, &Ordinals::from([(1, vec![0])]), Duration::ZERO);
        assert!(!health.is_watched(0) && script.watched.is_empty());
    }
}
