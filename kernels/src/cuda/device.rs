//! A CUDA device: context, streams, kernels, memory, staging.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaContext, CudaFunction, DriverError, PinnedHostSlice, sys};
use cudarc::nvrtc::Ptx;
use zkinfer_circuits::backend::BackendError;

use super::DeviceOptions;
use super::arena::Arena;
use super::circuit::cache::Cache;
use super::circuit::gates;
use super::graph::Graphs;
use super::lane::Lane;
use super::memory::MemoryUse;
use super::oracle::Oracle;
use super::residency::Residents;
use super::streams::Streams;
use super::transform::{TableKey, Tables};

/// Machine code for sm_80, sm_89, sm_90, sm_100 and PTX, built by `kernels/cuda/build.sh`.
const FATBIN: &[u8] = include_bytes!("../../cuda/zkinfer.fatbin");

/// Every kernel of the module but [`gates::KERNELS`].
const KERNELS: [&str; 23] = [
    "coset_points",
    "combine_columns",
    "divide_columns",
    "evaluate_columns",
    "ext_powers",
    "ext_scale_add",
    "finish_quotients",
    "fold_coefficients",
    "fold_column",
    "grind_nonces",
    "interpret",
    "lagrange_factors",
    "merkle_column_answers",
    "merkle_column_leaves",
    "merkle_coset_answers",
    "merkle_coset_leaves",
    "merkle_level",
    "merkle_top",
    "ntt_forward",
    "ntt_inverse",
    "recurrence_apply",
    "recurrence_totals",
    "sum_chunks",
];

/// Words of a staging buffer, 8 MiB.
pub(crate) const STAGE_WORDS: usize = 1 << 20;

/// Two buffers of pinned host memory: one is filled while the other is copied. Made when first needed.
#[derive(Debug, Default)]
struct Staging {
    buffers: Vec<PinnedHostSlice<u64>>,
    next: usize,
}

/// A kernel, and how often it was launched.
#[derive(Debug)]
struct Kernel {
    function: CudaFunction,
    n_launches: AtomicU64,
}

/// A device with this crate's kernels loaded.
#[derive(Debug)]
pub(crate) struct Device {
    name: String,
    pub(crate) context: Arc<CudaContext>,
    pub(crate) streams: Arc<Streams>,
    n_callers: AtomicUsize,
    n_waits: AtomicU64,
    is_unreliable: AtomicBool,
    kernels: HashMap<&'static str, Kernel>,
    pub(crate) arena: Arc<Arena>,
    pub(crate) graphs: Graphs,
    pub(crate) residents: Residents,
    staging: Mutex<Staging>,
    tables: Mutex<HashMap<TableKey, Arc<Tables>>>,
    /// Constants and σ of circuits: dropped first when memory is short.
    pub(crate) circuits: Cache<Oracle>,
}

impl Device {
    /// Opens device `ordinal`; what is taken of its memory never exceeds `limit_bytes`.
    pub(crate) fn open(ordinal: usize, limit_bytes: u64, options: DeviceOptions) -> Result<Self, BackendError> {
        let device = format!("cuda:{ordinal}");
        let broken = |message: String| BackendError::Device { device: device.clone(), message };
        if !crate::devices::is_driver_present() {
            return Err(broken("the CUDA driver library was not found".to_owned()));
        }
        // cudarc panics where a driver lacks a function.
        let opened = catch_unwind(AssertUnwindSafe(|| Self::open_present(ordinal, limit_bytes, options)));
        let opened = opened.map_err(|_| broken("the driver is too old for this build".to_owned()))?;
        opened.map_err(|error| broken(error.to_string()))
    }

    fn open_present(ordinal: usize, limit_bytes: u64, options: DeviceOptions) -> Result<Self, DriverError> {
        let context = CudaContext::new(ordinal)?;
        let name = format!("cuda:{ordinal} ({})", context.name()?);
        let module = context.load_module(Ptx::from_binary(FATBIN.to_vec()))?;
        let load = |name| Ok((name, Kernel { function: module.load_function(name)?, n_launches: AtomicU64::new(0) }));
        let kernels = KERNELS.into_iter().chain(gates::KERNELS).map(load).collect::<Result<_, DriverError>>()?;
        let streams = Arc::new(Streams::new(&context)?);
        let limit_bytes = limit_bytes.min(context.total_mem()? as u64);
        let arena = Arena::new(Arc::clone(&context), Arc::clone(&streams), limit_bytes, options.chunks);
        Ok(Self {
            name,
            context,
            streams,
            n_callers: AtomicUsize::new(0),
            n_waits: AtomicU64::new(0),
            is_unreliable: AtomicBool::new(false),
            kernels,
            arena,
            graphs: Graphs::new(options.graphs),
            residents: Residents::default(),
            staging: Mutex::default(),
            tables: Mutex::default(),
            circuits: Cache::default(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn memory(&self) -> MemoryUse {
        self.arena.usage()
    }

    pub(crate) fn mark_memory(&self) {
        self.arena.mark();
    }

    /// Every kernel and its launches so far, by name.
    pub(crate) fn launches(&self) -> BTreeMap<&'static str, u64> {
        self.kernels.iter().map(|(&name, kernel)| (name, kernel.n_launches.load(Ordering::Relaxed))).collect()
    }

    /// How often a caller waited for a stream so far.
    pub(crate) fn n_waits(&self) -> u64 {
        self.n_waits.load(Ordering::Relaxed)
    }

    /// Counts an oracle of so many bytes that was moved to the host.
    pub(crate) fn note_eviction(&self, bytes: u64) {
        self.arena.note_eviction(bytes);
    }

    /// What cudarc noted where it could not answer: it says so once, and not to whom it happened, so that from then on nobody's work can be relied on.
    pub(crate) fn check(&self) -> Result<(), BackendError> {
        let noted = self.context.check_err().map_err(|error| self.failed(error));
        if noted.is_err() {
            self.is_unreliable.store(true, Ordering::Relaxed);
        }
        if self.is_unreliable.load(Ordering::Relaxed) {
            let message = "an event or a buffer of another call failed".to_owned();
            return noted.and(Err(BackendError::Device { device: self.name.clone(), message }));
        }
        Ok(())
    }

    /// Waits until all work of all streams is done.
    pub(crate) fn synchronize(&self) -> Result<(), BackendError> {
        self.streams.wait_for_all().map_err(|error| self.failed(error))
    }

    /// Bytes that the driver could still give.
    pub(crate) fn free_bytes(&self) -> Result<u64, BackendError> {
        self.synchronize()?;
        Ok(self.context.mem_get_info().map_err(|error| self.failed(error))?.0 as u64)
    }

    /// The next pair of streams, in turn.
    pub(crate) fn lane(&self) -> Lane<'_> {
        Lane::new(self, self.streams.pair(self.n_callers.fetch_add(1, Ordering::Relaxed)))
    }

    /// A kernel's function.
    pub(crate) fn function(&self, kernel: &'static str) -> Result<sys::CUfunction, BackendError> {
        let found = self.kernels.get(kernel);
        let found = found.ok_or_else(|| BackendError::Unsupported(format!("there is no kernel {kernel}")))?;
        Ok(found.function.cu_function())
    }

    /// Counts a launch of a kernel.
    pub(crate) fn note_launch(&self, kernel: &'static str) {
        if let Some(kernel) = self.kernels.get(kernel) {
            kernel.n_launches.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a wait for a stream.
    pub(crate) fn note_wait(&self) {
        self.n_waits.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes the device's context the one of this thread.
    pub(crate) fn bind(&self) -> Result<(), BackendError> {
        self.context.bind_to_thread().map_err(|error| self.failed(error))
    }

    /// Gives a buffer of pinned memory to `use_buffer`, the one used longest ago.
    pub(crate) fn with_staging<T>(
        &self,
        use_buffer: impl FnOnce(&mut PinnedHostSlice<u64>) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        if staging.buffers.len() < 2 {
            // SAFETY: the memory is unset; each use fills all of it before it is read.
            #[allow(unsafe_code)]
            let pinned = unsafe { self.context.alloc_pinned::<u64>(STAGE_WORDS) };
            staging.buffers.push(pinned.map_err(|error| self.failed(error))?);
        }
        staging.next = (staging.next + 1) % staging.buffers.len();
        let next = staging.next;
        use_buffer(&mut staging.buffers[next])
    }

    pub(crate) fn failed(&self, error: DriverError) -> BackendError {
        if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return self.out_of_memory(0);
        }
        BackendError::Device { device: self.name.clone(), message: error.to_string() }
    }

    pub(crate) fn out_of_memory(&self, needed_bytes: u64) -> BackendError {
        BackendError::OutOfMemory { device: self.name.clone(), needed_bytes }
    }

    /// The tables of a transform, made by `make` when they are first asked for.
    pub(crate) fn tables(&self, key: TableKey, make: impl FnOnce() -> Result<Tables, BackendError>) -> Result<Arc<Tables>, BackendError> {
        if let Some(tables) = self.tables.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(tables));
        }
        let tables = Arc::new(make()?);
        Ok(Arc::clone(self.tables.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert(tables)))
    }
}
