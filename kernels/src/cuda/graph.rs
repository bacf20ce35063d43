//! Sequences of launches that the driver is given as one graph.
//!
//! A sequence that comes for the first time is launched as it is. When one of its shape (kernels, grids, blocks) comes again, a graph is made of it, a
//! chain of one node a launch, and kept: a later one with the same parameters is one call of the driver, one with others a further call for every launch
//! that differs. Memory is never allocated by a graph, and a graph that cannot be made is no error: the launches are issued one by one.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaContext, DriverError, result, sys};
use zkinfer_circuits::backend::BackendError;

use super::device::Device;
use super::streams::{Stream, Streams};

/// Sequences that are remembered; beyond, that used longest ago is forgotten.
const MAX_SEQUENCES: usize = 256;
/// Sequences of one shape that are remembered, for callers that compute at once.
const MAX_ALIKE: usize = 4;

/// Most words of extensions that a step writes for its launches to be gathered: at these a launch takes a tenth of what it computes (docs/GPU.md).
const SMALL_WORDS: usize = 1 << 21;

/// Which sequences of launches become graphs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GraphPolicy {
    /// Those of steps so small that launching them takes a good part of their time (`docs/GPU.md`).
    #[default]
    Small,
    /// None.
    Never,
}

/// How launches reached the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GraphUse {
    /// Launches given to the driver one by one.
    pub n_plain: u64,
    /// Graphs given to the driver, a call each.
    pub n_graphs: u64,
    /// Launches in them.
    pub n_launches: u64,
    /// Of the graphs, those that were kept with just these parameters.
    pub n_unchanged: u64,
    /// Launches whose parameters were changed in a graph that was kept, a call each.
    pub n_changed_launches: u64,
    /// Graphs made.
    pub n_made: u64,
    /// Graphs that could not be made or changed.
    pub n_refused: u64,
}

/// A launch as the driver takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frozen {
    pub(crate) kernel: &'static str,
    pub(crate) blocks: u32,
    pub(crate) threads: u32,
    pub(crate) shared_bytes: u32,
    /// Parameters, a word each.
    pub(crate) words: Vec<u64>,
}

impl Frozen {
    fn is_alike(&self, other: &Self) -> bool {
        (self.kernel, self.blocks, self.threads, self.shared_bytes) == (other.kernel, other.blocks, other.threads, other.shared_bytes)
    }

    /// Calls `receive` with the driver's form of the launch, which lives as long as the call.
    fn with_parameters(
        &self,
        function: sys::CUfunction,
        receive: impl FnOnce(&sys::CUDA_KERNEL_NODE_PARAMS) -> sys::CUresult,
    ) -> Result<(), DriverError> {
        let mut words = self.words.clone();
        let mut pointers: Vec<*mut c_void> = words.iter_mut().map(|word| ptr::from_mut(word).cast()).collect();
        let parameters = sys::CUDA_KERNEL_NODE_PARAMS {
            func: function,
            gridDimX: self.blocks,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: self.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: self.shared_bytes,
            kernelParams: pointers.as_mut_ptr(),
            extra: ptr::null_mut(),
            kern: ptr::null_mut(),
            ctx: ptr::null_mut(),
        };
        receive(&parameters).result()
    }
}

/// A sequence that came, and its graph if it has one.
#[derive(Debug)]
struct Sequence<G> {
    launches: Vec<Frozen>,
    graph: Option<G>,
    last_use: u64,
}

impl<G> Sequence<G> {
    fn is_alike(&self, launches: &[&Frozen]) -> bool {
        self.launches.len() == launches.len() && self.launches.iter().zip(launches).all(|(mine, other)| mine.is_alike(other))
    }

    /// Positions of the launches whose parameters differ.
    fn changed(&self, launches: &[&Frozen]) -> Vec<usize> {
        (0..launches.len()).filter(|&position| self.launches[position].words != launches[position].words).collect()
    }
}

/// What is done with launches; the number is the sequence's.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    /// They came for the first time: launch them one by one.
    Remember,
    /// Make a graph of them.
    Make(usize),
    /// Launch the graph with the parameters of these launches changed.
    Launch(usize, Vec<usize>),
}

/// The sequences used last.
#[derive(Debug)]
struct Sequences<G> {
    all: Vec<Sequence<G>>,
    clock: u64,
}

impl<G> Default for Sequences<G> {
    fn default() -> Self {
        Self { all: Vec::new(), clock: 0 }
    }
}

impl<G> Sequences<G> {
    fn choose(&mut self, launches: &[&Frozen]) -> Choice {
        self.clock += 1;
        let alike: Vec<usize> = (0..self.all.len()).filter(|&index| self.all[index].is_alike(launches)).collect();
        let nearest = alike.iter().map(|&index| (index, self.all[index].changed(launches))).min_by_key(|(_, changed)| changed.len());
        let Some((index, changed)) = nearest else {
            self.remember(launches);
            return Choice::Remember;
        };
        if self.all[index].graph.is_some() {
            // Another caller's, or other buffers: changing most of it would cost what it saves.
            if 2 * changed.len() > launches.len() && alike.len() < MAX_ALIKE {
                return Choice::Make(self.remember(launches));
            }
            self.all[index].last_use = self.clock;
            return Choice::Launch(index, changed);
        }
        self.all[index].last_use = self.clock;
        Choice::Make(index)
    }

    /// The number of a new sequence, in place of that used longest ago if there are too many.
    fn remember(&mut self, launches: &[&Frozen]) -> usize {
        if self.all.len() >= MAX_SEQUENCES {
            let oldest = (0..self.all.len()).min_by_key(|&index| self.all[index].last_use);
            oldest.map(|index| self.all.swap_remove(index));
        }
        self.all.push(Sequence { launches: launches.iter().copied().cloned().collect(), graph: None, last_use: self.clock });
        self.all.len() - 1
    }
}

/// A graph that the driver can launch.
#[derive(Debug)]
struct Graph {
    context: Arc<CudaContext>,
    streams: Arc<Streams>,
    graph: sys::CUgraph,
    nodes: Vec<sys::CUgraphNode>,
    /// Null until it is made.
    executable: sys::CUgraphExec,
}

// SAFETY: the handles are the driver's, valid on every thread with the context; graphs are used under the lock of [`Graphs`] alone, by one thread at a
// time.
#[allow(unsafe_code)]
unsafe impl Send for Graph {}

impl Graph {
    /// A chain of the launches.
    fn new(device: &Device, launches: &[&Frozen]) -> Result<Self, BackendError> {
        let failed = |error| device.failed(error);
        device.bind()?;
        let mut graph = ptr::null_mut();
        // SAFETY: the place for the handle is valid, and the context is current.
        #[allow(unsafe_code)]
        let created = unsafe { sys::cuGraphCreate(&raw mut graph, 0) };
        created.result().map_err(failed)?;
        let mut made = Self {
            context: Arc::clone(&device.context),
            streams: Arc::clone(&device.streams),
            graph,
            nodes: Vec::with_capacity(launches.len()),
            executable: ptr::null_mut(),
        };
        for launch in launches {
            made.append(device.function(launch.kernel)?, launch).map_err(failed)?;
        }
        // SAFETY: the graph is the one just made, and complete.
        #[allow(unsafe_code)]
        let executable = unsafe { result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)) };
        made.executable = executable.map_err(failed)?;
        Ok(made)
    }

    /// Adds a launch after the last one.
    fn append(&mut self, function: sys::CUfunction, launch: &Frozen) -> Result<(), DriverError> {
        let before = self.nodes.last().map_or(ptr::null(), ptr::from_ref);
        let n_before = usize::from(!self.nodes.is_empty());
        let mut node = ptr::null_mut();
        launch.with_parameters(function, |parameters| {
            // SAFETY: the graph is alive, the node before is its own, and the parameters, which the driver copies, are those of the kernel, as
            // `Lane::launch` states.
            #[allow(unsafe_code)]
            unsafe {
                sys::cuGraphAddKernelNode_v2(&raw mut node, self.graph, before, n_before, parameters)
            }
        })?;
        self.nodes.push(node);
        Ok(())
    }

    /// Changes the parameters of a launch, for the times that the graph is launched from now on.
    fn change(&self, function: sys::CUfunction, position: usize, launch: &Frozen) -> Result<(), DriverError> {
        launch.with_parameters(function, |parameters| {
            // SAFETY: the node is one of the graph that the executable was made of, the kernel is the same, and the parameters, which the driver
            // copies, are those of the kernel.
            #[allow(unsafe_code)]
            unsafe {
                sys::cuGraphExecKernelNodeSetParams_v2(self.executable, self.nodes[position], parameters)
            }
        })
    }

    fn launch(&self, stream: &Stream) -> Result<(), DriverError> {
        // SAFETY: the executable is alive, and the stream of its context; what its kernels use is alive and ordered, as for launches one by one. The
        // driver orders this launch behind earlier ones of the same graph.
        #[allow(unsafe_code)]
        let launched = unsafe { result::graph::launch(self.executable, stream.cuda().cu_stream()) };
        launched
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // It may still run; what fails here is reported to the next caller that waits.
        self.context.record_err(self.streams.wait_for_all());
        self.context.record_err(self.context.bind_to_thread());
        if !self.executable.is_null() {
            // SAFETY: it was made, runs no more, and is not used after this.
            #[allow(unsafe_code)]
            let destroyed = unsafe { result::graph::exec_destroy(self.executable) };
            self.context.record_err(destroyed);
        }
        // SAFETY: the graph was created, and is not used after this.
        #[allow(unsafe_code)]
        let destroyed = unsafe { result::graph::destroy(self.graph) };
        self.context.record_err(destroyed);
    }
}

/// The graphs of a device.
#[derive(Debug)]
pub(crate) struct Graphs {
    policy: GraphPolicy,
    sequences: Mutex<Sequences<Graph>>,
    n_plain: AtomicU64,
    of_graphs: Mutex<GraphUse>,
}

impl Graphs {
    pub(crate) fn new(policy: GraphPolicy) -> Self {
        Self { policy, sequences: Mutex::default(), n_plain: AtomicU64::new(0), of_graphs: Mutex::default() }
    }

    /// Whether the launches of a step that writes so many words are gathered.
    pub(crate) fn are_for(&self, n_words: usize) -> bool {
        self.policy == GraphPolicy::Small && n_words <= SMALL_WORDS
    }

    pub(crate) fn usage(&self) -> GraphUse {
        GraphUse { n_plain: self.n_plain.load(Ordering::Relaxed), ..*self.of_graphs.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Counts a launch that was given to the driver alone.
    pub(crate) fn note_plain(&self) {
        self.n_plain.fetch_add(1, Ordering::Relaxed);
    }

    /// Launches a graph of the launches; false if there is none, and nothing was launched.
    pub(crate) fn launch(&self, device: &Device, stream: &Stream, launches: &[&Frozen]) -> Result<bool, BackendError> {
        let mut sequences = self.sequences.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = GraphUse { n_graphs: 1, n_launches: launches.len() as u64, ..GraphUse::default() };
        let ready = match sequences.choose(launches) {
            Choice::Remember => return Ok(false),
            Choice::Make(index) => {
                seen.n_made = 1;
                make(device, &mut sequences.all[index], launches)
            }
            Choice::Launch(index, changed) => {
                seen.n_unchanged = u64::from(changed.is_empty());
                seen.n_changed_launches = changed.len() as u64;
                change(device, &mut sequences.all[index], launches, &changed)
            }
        };
        let graph = match ready {
            Ok(graph) => graph,
            Err(error) => {
                tracing::debug!(device = device.name(), %error, "launches are issued one by one: there is no graph of them");
                self.note(GraphUse { n_refused: 1, ..GraphUse::default() });
                return Ok(false);
            }
        };
        device.bind()?;
        graph.launch(stream).map_err(|error| device.failed(error))?;
        self.note(seen);
        Ok(true)
    }

    fn note(&self, seen: GraphUse) {
        let mut total = self.of_graphs.lock().unwrap_or_else(PoisonError::into_inner);
        total.n_graphs += seen.n_graphs;
        total.n_launches += seen.n_launches;
        total.n_unchanged += seen.n_unchanged;
        total.n_changed_launches += seen.n_changed_launches;
        total.n_made += seen.n_made;
        total.n_refused += seen.n_refused;
    }
}

/// Makes the graph of a sequence.
fn make<'a>(device: &Device, sequence: &'a mut Sequence<Graph>, launches: &[&Frozen]) -> Result<&'a Graph, BackendError> {
    let graph = Graph::new(device, launches)?;
    sequence.launches = launches.iter().copied().cloned().collect();
    Ok(sequence.graph.insert(graph))
}

/// The graph of a sequence, with the parameters of some launches changed; it is given up if that fails.
fn change<'a>(
    device: &Device,
    sequence: &'a mut Sequence<Graph>,
    launches: &[&Frozen],
    changed: &[usize],
) -> Result<&'a Graph, BackendError> {
    let missing = || BackendError::Unsupported("a sequence without a graph".to_owned());
    let graph = sequence.graph.take().ok_or_else(missing)?;
    device.bind()?;
    for &position in changed {
        let launch = launches[position];
        graph.change(device.function(launch.kernel)?, position, launch).map_err(|error| device.failed(error))?;
        sequence.launches[position] = launch.clone();
    }
    Ok(sequence.graph.insert(graph))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(kernel: &'static str, words: &[u64]) -> Frozen {
        Frozen { kernel, blocks: 1, threads: 32, shared_bytes: 0, words: words.to_vec() }
    }

    /// Does what is chosen, on graphs that are none.
    fn come(sequences: &mut Sequences<()>, launches: &[Frozen]) -> Choice {
        let launches: Vec<&Frozen> = launches.iter().collect();
        let choice = sequences.choose(&launches);
        if let Choice::Make(index) | Choice::Launch(index, _) = choice {
            sequences.all[index].graph = Some(());
            sequences.all[index].launches = launches.into_iter().cloned().collect();
        }
        choice
    }

    fn pair(first: u64, second: u64) -> [Frozen; 2] {
        [launch("a", &[first, 0]), launch("b", &[second])]
    }

    #[test]
    fn second_sequence_of_a_shape_becomes_a_graph_that_later_ones_reuse() {
        let mut sequences = Sequences::default();
        assert_eq!(come(&mut sequences, &pair(1, 2)), Choice::Remember);
        assert_eq!(come(&mut sequences, &pair(3, 4)), Choice::Make(0));
        assert_eq!(come(&mut sequences, &pair(3, 4)), Choice::Launch(0, vec![]));
        assert_eq!(come(&mut sequences, &pair(5, 4)), Choice::Launch(0, vec![0]));
        let wider = pair(5, 4).map(|launch| Frozen { blocks: 2, ..launch });
        assert_eq!(come(&mut sequences, &wider), Choice::Remember);
        assert_eq!(come(&mut sequences, &pair(5, 4)[..1]), Choice::Remember);
    }

    #[test]
    fn callers_with_other_buffers_have_graphs_of_their_own_up_to_a_bound() {
        let mut sequences = Sequences::default();
        come(&mut sequences, &pair(0, 0));
        for caller in 0..MAX_ALIKE as u64 {
            assert_eq!(come(&mut sequences, &pair(caller, caller)), Choice::Make(caller as usize));
        }
        for caller in 0..MAX_ALIKE as u64 {
            assert_eq!(come(&mut sequences, &pair(caller, caller)), Choice::Launch(caller as usize, vec![]));
        }
        assert_eq!(come(&mut sequences, &pair(100, 100)), Choice::Launch(0, vec![0, 1]));
        assert_eq!(sequences.all.len(), MAX_ALIKE);
    }

    #[test]
    fn sequence_used_longest_ago_is_forgotten() {
        let mut sequences = Sequences::default();
        let of_length = |length: usize| vec![launch("a", &[]); length];
        for length in 2..MAX_SEQUENCES + 2 {
            assert_eq!(come(&mut sequences, &of_length(length)), Choice::Remember);
        }
        assert_eq!(come(&mut sequences, &of_length(2)), Choice::Make(0));
        assert_eq!(come(&mut sequences, &of_length(MAX_SEQUENCES + 2)), Choice::Remember);
        assert_eq!(sequences.all.len(), MAX_SEQUENCES);
        assert_eq!(come(&mut sequences, &of_length(3)), Choice::Remember);
        assert!(matches!(come(&mut sequences, &of_length(2)), Choice::Launch(_, changed) if changed.is_empty()));
    }
}
