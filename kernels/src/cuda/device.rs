//! A CUDA device: context, streams, kernels, staging; and a lane, one stream of it with all that work on it needs.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{
    CudaContext, CudaFunction, CudaStream, CudaView, CudaViewMut, DevicePtr, DevicePtrMut, DriverError, LaunchConfig, PinnedHostSlice,
    PushKernelArg, SyncOnDrop, sys,
};
use cudarc::nvrtc::Ptx;
use zkinfer_circuits::backend::BackendError;
use zkinfer_circuits::field::F;

use super::circuit::cache::Cache;
use super::circuit::gates;
use super::memory::{Account, Buffer, MemoryUse, WORD_BYTES};
use super::oracle::Oracle;
use super::residency::Residents;
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

/// Pairs of streams of a device: as many callers compute at once, copies of one beside kernels of itself and of others.
const N_STREAMS: usize = 4;
/// Words of a staging buffer, 8 MiB.
pub(crate) const STAGE_WORDS: usize = 1 << 20;
/// Threads of a block, where a kernel does not want another number.
pub(crate) const BLOCK_THREADS: u32 = 256;

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

/// The streams that one caller computes with.
#[derive(Debug)]
struct Streams {
    kernels: Arc<CudaStream>,
    /// Uploads that run while kernels do.
    copies: Arc<CudaStream>,
}

/// A device with this crate's kernels loaded.
#[derive(Debug)]
pub(crate) struct Device {
    name: String,
    context: Arc<CudaContext>,
    streams: Vec<Streams>,
    next_stream: AtomicUsize,
    n_waits: AtomicU64,
    is_unreliable: AtomicBool,
    kernels: HashMap<&'static str, Kernel>,
    account: Arc<Account>,
    pub(crate) residents: Residents,
    staging: Mutex<Staging>,
    tables: Mutex<HashMap<TableKey, Arc<Tables>>>,
    /// Constants and σ of circuits: dropped first when memory is short.
    pub(crate) circuits: Cache<Oracle>,
}

impl Device {
    /// Opens device `ordinal`; its buffers never take more than `limit_bytes`.
    pub(crate) fn open(ordinal: usize, limit_bytes: u64) -> Result<Self, BackendError> {
        let device = format!("cuda:{ordinal}");
        let broken = |message: String| BackendError::Device { device: device.clone(), message };
        if !crate::devices::is_driver_present() {
            return Err(broken("the CUDA driver library was not found".to_owned()));
        }
        // cudarc panics where a driver lacks a function.
        let opened = catch_unwind(AssertUnwindSafe(|| Self::open_present(ordinal, limit_bytes)));
        let opened = opened.map_err(|_| broken("the driver is too old for this build".to_owned()))?;
        opened.map_err(|error| broken(error.to_string()))
    }

    fn open_present(ordinal: usize, limit_bytes: u64) -> Result<Self, DriverError> {
        let context = CudaContext::new(ordinal)?;
        let name = format!("cuda:{ordinal} ({})", context.name()?);
        let module = context.load_module(Ptx::from_binary(FATBIN.to_vec()))?;
        let load = |name| Ok((name, Kernel { function: module.load_function(name)?, n_launches: AtomicU64::new(0) }));
        let kernels = KERNELS.into_iter().chain(gates::KERNELS).map(load).collect::<Result<_, DriverError>>()?;
        let new_streams = |_| Ok(Streams { kernels: context.new_stream()?, copies: context.new_stream()? });
        let streams = (0..N_STREAMS).map(new_streams).collect::<Result<_, DriverError>>()?;
        keep_freed_memory(&context)?;
        let limit_bytes = limit_bytes.min(context.total_mem()? as u64);
        Ok(Self {
            name,
            context,
            streams,
            next_stream: AtomicUsize::new(0),
            n_waits: AtomicU64::new(0),
            is_unreliable: AtomicBool::new(false),
            kernels,
            account: Account::new(limit_bytes),
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
        self.account.now()
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
        self.account.note_eviction(bytes);
    }

    /// What cudarc noted where it could not answer: it says so once, and not to whom it happened, so that from then on nobody's work can be relied on.
    fn check(&self) -> Result<(), BackendError> {
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
        self.context.synchronize().map_err(|error| self.failed(error))
    }

    /// Bytes that the driver could still give.
    pub(crate) fn free_bytes(&self) -> Result<u64, BackendError> {
        self.synchronize()?;
        Ok(self.context.mem_get_info().map_err(|error| self.failed(error))?.0 as u64)
    }

    /// The next stream, in turn.
    pub(crate) fn lane(&self) -> Lane<'_> {
        let index = self.next_stream.fetch_add(1, Ordering::Relaxed) % self.streams.len();
        Lane { device: self, stream: &self.streams[index].kernels, copies: &self.streams[index].copies }
    }

    pub(crate) fn failed(&self, error: DriverError) -> BackendError {
        if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return self.out_of_memory(0);
        }
        BackendError::Device { device: self.name.clone(), message: error.to_string() }
    }

    fn out_of_memory(&self, needed_bytes: u64) -> BackendError {
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

/// Tells the driver's pool to keep freed memory for the next buffer, which else goes back to the system whenever a stream is waited for.
fn keep_freed_memory(context: &CudaContext) -> Result<(), DriverError> {
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut pool = std::ptr::null_mut();
    let mut threshold = u64::MAX;
    // SAFETY: `pool` is a valid place for the handle, and the device is the context's.
    #[allow(unsafe_code)]
    let found = unsafe { sys::cuDeviceGetDefaultMemPool(&raw mut pool, context.cu_device()) };
    found.result()?;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the pool is the one just found; the attribute's value is a 64-bit integer, read before the call returns.
    #[allow(unsafe_code)]
    let set = unsafe { sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()) };
    set.result()
}

/// An argument of a kernel.
pub(crate) enum Argument<'a> {
    /// Words that are read.
    In(CudaView<'a, u64>),
    /// Words that are written, and perhaps read.
    Out(CudaViewMut<'a, u64>),
    /// The pointer of the argument before.
    Same,
    /// No words.
    Null,
    /// A scalar of 64 bits.
    Word(u64),
    /// A scalar of 32 bits.
    Count(u32),
}

/// Grid and block of a launch, one dimension each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) blocks: u64,
    pub(crate) threads: u32,
    pub(crate) shared_words: usize,
}

impl Shape {
    /// One thread an item.
    pub(crate) fn of_items(items: u64) -> Self {
        Self { blocks: items.div_ceil(u64::from(BLOCK_THREADS)), threads: BLOCK_THREADS, shared_words: 0 }
    }
}

/// A stream of a device. What one lane is given is done in order; buffers that lanes share are waited for by cudarc's events.
#[derive(Clone, Copy)]
pub(crate) struct Lane<'a> {
    pub(crate) device: &'a Device,
    stream: &'a Arc<CudaStream>,
    copies: &'a Arc<CudaStream>,
}

impl<'a> Lane<'a> {
    /// The stream beside this one for uploads that are to run while this one's kernels do. What it is given needs no wait of its own if this lane
    /// reads it: events see to it.
    pub(crate) fn copies(&self) -> Lane<'a> {
        Lane { stream: self.copies, ..*self }
    }
}

impl Lane<'_> {
    /// Words with unspecified contents; if there is no room, what is kept of circuits is dropped, then idle oracles are moved to the host until there is.
    pub(crate) fn allocate(&self, n_words: usize) -> Result<Buffer, BackendError> {
        let n_evicted = self.device.memory().n_evicted;
        let mut result = self.allocate_now(n_words);
        if !matches!(result, Err(BackendError::OutOfMemory { .. })) {
            return result;
        }
        let residents = &self.device.residents;
        let _making_room = residents.making_room();
        // Another caller may have made room while this one waited.
        let mut has_room = self.device.memory().n_evicted != n_evicted;
        if self.device.circuits.release() {
            // The driver gives out what was freed when the streams have come to it.
            self.device.synchronize()?;
            has_room = true;
        }
        while matches!(result, Err(BackendError::OutOfMemory { .. })) && (has_room || residents.evict(*self)?) {
            has_room = false;
            result = self.allocate_now(n_words);
        }
        result
    }

    fn allocate_now(&self, n_words: usize) -> Result<Buffer, BackendError> {
        let n_words = n_words.max(1);
        let bytes = n_words as u64 * WORD_BYTES;
        let ticket = self.device.account.book(bytes).ok_or_else(|| self.device.out_of_memory(bytes))?;
        // SAFETY: the words are plain integers, valid whatever they hold; every kernel and copy that is given the buffer writes a word before any
        // reads it, so that nothing depends on what they hold.
        #[allow(unsafe_code)]
        let words = unsafe { self.stream.alloc::<u64>(n_words) };
        match words {
            Ok(words) => Ok(Buffer::new(words, ticket)),
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Err(self.device.out_of_memory(bytes)),
            Err(error) => Err(self.device.failed(error)),
        }
    }

    /// A buffer of these words.
    pub(crate) fn upload(&self, words: &[u64]) -> Result<Buffer, BackendError> {
        let mut buffer = self.allocate(words.len())?;
        self.write(buffer.part_mut(0, words.len()), words)?;
        Ok(buffer)
    }

    /// A buffer of these elements.
    pub(crate) fn upload_elements(&self, elements: &[F]) -> Result<Buffer, BackendError> {
        self.upload_with(elements.len(), |first, words| {
            for (word, element) in words.iter_mut().zip(&elements[first..]) {
                *word = element.0;
            }
        })
    }

    fn write(&self, mut target: CudaViewMut<'_, u64>, words: &[u64]) -> Result<(), BackendError> {
        if words.is_empty() {
            return Ok(());
        }
        self.stream.memcpy_htod(words, &mut target).map_err(|error| self.device.failed(error))
    }

    /// A buffer of `n_words` words made by `fill(first, words)`.
    pub(crate) fn upload_with(&self, n_words: usize, fill: impl FnMut(usize, &mut [u64])) -> Result<Buffer, BackendError> {
        let mut buffer = self.allocate(n_words)?;
        self.write_with(buffer.part_mut(0, n_words), fill)?;
        Ok(buffer)
    }

    /// Writes words made by `fill(first, words)`, through pinned memory as far as they fill whole staging buffers.
    pub(crate) fn write_with(&self, mut target: CudaViewMut<'_, u64>, mut fill: impl FnMut(usize, &mut [u64])) -> Result<(), BackendError> {
        let n_words = target.len();
        let staged = n_words / STAGE_WORDS * STAGE_WORDS;
        for first in (0..staged).step_by(STAGE_WORDS) {
            self.upload_stage(target.slice_mut(first..first + STAGE_WORDS), |words| fill(first, words))?;
        }
        let mut rest = vec![0; n_words - staged];
        fill(staged, &mut rest);
        self.write(target.slice_mut(staged..), &rest)
    }

    fn upload_stage(&self, mut target: CudaViewMut<'_, u64>, fill: impl FnOnce(&mut [u64])) -> Result<(), BackendError> {
        let mut staging = self.device.staging.lock().unwrap_or_else(PoisonError::into_inner);
        if staging.buffers.len() < 2 {
            // SAFETY: the memory is unset; each use fills all of it below before it is read.
            #[allow(unsafe_code)]
            let pinned = unsafe { self.device.context.alloc_pinned::<u64>(STAGE_WORDS) };
            staging.buffers.push(pinned.map_err(|error| self.device.failed(error))?);
        }
        staging.next = (staging.next + 1) % staging.buffers.len();
        let next = staging.next;
        let pinned = &mut staging.buffers[next];
        // Waits until the copy before has left this buffer.
        fill(pinned.as_mut_slice().map_err(|error| self.device.failed(error))?);
        self.stream.memcpy_htod(&*pinned, &mut target).map_err(|error| self.device.failed(error))
    }

    /// The words of a view, when all work before is done.
    pub(crate) fn download(&self, view: &CudaView<'_, u64>) -> Result<Vec<u64>, BackendError> {
        let mut words = vec![0; view.len()];
        if !words.is_empty() {
            self.stream.memcpy_dtoh(view, &mut words).map_err(|error| self.device.failed(error))?;
        }
        self.finish()?;
        Ok(words)
    }

    /// Copies on the device.
    pub(crate) fn copy(&self, from: &CudaView<'_, u64>, mut to: CudaViewMut<'_, u64>) -> Result<(), BackendError> {
        self.stream.memcpy_dtod(from, &mut to).map_err(|error| self.device.failed(error))
    }

    /// Zeroes.
    pub(crate) fn zero(&self, mut words: CudaViewMut<'_, u64>) -> Result<(), BackendError> {
        self.stream.memset_zeros(&mut words).map_err(|error| self.device.failed(error))
    }

    /// Waits until all work of this lane is done, and reports what went wrong in it.
    pub(crate) fn finish(&self) -> Result<(), BackendError> {
        self.device.n_waits.fetch_add(1, Ordering::Relaxed);
        self.stream.synchronize().map_err(|error| self.device.failed(error))?;
        self.device.check()
    }

    /// Launches a kernel. Arguments are in the order of its parameters, and every range that its header states lies inside the views given; this is
    /// what each caller in this module sees to.
    pub(crate) fn launch(&self, kernel: &'static str, shape: Shape, mut arguments: Vec<Argument<'_>>) -> Result<(), BackendError> {
        let _span = tracing::trace_span!("launch", otel.name = kernel, kernel, blocks = shape.blocks).entered();
        let found = self.device.kernels.get(kernel);
        let Kernel { function, n_launches } = found.ok_or_else(|| BackendError::Unsupported(format!("there is no kernel {kernel}")))?;
        let blocks = u32::try_from(shape.blocks).ok().filter(|&blocks| blocks < 1 << 31);
        let blocks = blocks.ok_or_else(|| BackendError::Unsupported(format!("{kernel} on {} blocks", shape.blocks)))?;
        if blocks == 0 {
            return Ok(());
        }
        let is_count: Vec<bool> = arguments.iter().map(|argument| matches!(argument, Argument::Count(_))).collect();
        let (words, guards) = self.resolve(&mut arguments);
        let counts: Vec<u32> = words.iter().map(|&word| word as u32).collect();
        let mut builder = self.stream.launch_builder(function);
        for ((word, count), is_count) in words.iter().zip(&counts).zip(is_count) {
            if is_count {
                builder.arg(count)
            } else {
                builder.arg(word)
            };
        }
        let config = LaunchConfig {
            grid_dim: (blocks, 1, 1),
            block_dim: (shape.threads, 1, 1),
            shared_mem_bytes: (shape.shared_words * WORD_BYTES as usize) as u32,
        };
        // SAFETY: the arguments have the widths of the kernel's parameters, in order, and its accesses stay inside the buffers behind them, as the
        // callers of this function see to; the buffers live until the guards, which order later uses on other streams after this one, are dropped.
        #[allow(unsafe_code)]
        let launched = unsafe { builder.launch(config) };
        launched.map_err(|error| self.device.failed(error))?;
        drop(guards);
        n_launches.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Pointers and scalars as words, with the guards that record the use of the buffers.
    fn resolve<'b>(&'b self, arguments: &'b mut [Argument<'_>]) -> (Vec<u64>, Vec<SyncOnDrop<'b>>) {
        let (mut words, mut guards) = (Vec::new(), Vec::new());
        for argument in arguments.iter_mut() {
            let word = match argument {
                Argument::In(view) => {
                    let (pointer, guard) = view.device_ptr(self.stream);
                    guards.push(guard);
                    pointer
                }
                Argument::Out(view) => {
                    let (pointer, guard) = view.device_ptr_mut(self.stream);
                    guards.push(guard);
                    pointer
                }
                Argument::Same => words.last().copied().unwrap_or(0),
                Argument::Null => 0,
                Argument::Word(word) => *word,
                Argument::Count(count) => u64::from(*count),
            };
            words.push(word);
        }
        (words, guards)
    }
}
