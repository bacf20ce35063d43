//! Launches of kernels: arguments, shapes, and launches that are gathered to be given to the driver as one graph.

use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::result;
use zkinfer_circuits::backend::BackendError;

use super::arena::Block;
use super::graph::Frozen;
use super::lane::Lane;
use super::memory::{WORD_BYTES, Words, WordsMut};

/// Threads of a block, where a kernel does not want another number.
pub(crate) const BLOCK_THREADS: u32 = 256;

/// An argument of a kernel.
pub(crate) enum Argument<'a> {
    /// Words that are read.
    In(Words<'a>),
    /// Words that are written, and perhaps read.
    Out(WordsMut<'a>),
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

/// A launch, and the blocks that it reads and writes: they are held until it is issued.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) frozen: Frozen,
    pub(crate) reads: Vec<Arc<Block>>,
    pub(crate) writes: Vec<Arc<Block>>,
}

impl Call {
    /// None if there is nothing to do.
    fn new(kernel: &'static str, shape: Shape, arguments: &[Argument<'_>]) -> Result<Option<Self>, BackendError> {
        let blocks = u32::try_from(shape.blocks).ok().filter(|&blocks| blocks < 1 << 31);
        let blocks = blocks.ok_or_else(|| BackendError::Unsupported(format!("{kernel} on {} blocks", shape.blocks)))?;
        let (mut words, mut reads, mut writes) = (Vec::with_capacity(arguments.len()), Vec::new(), Vec::new());
        for argument in arguments {
            words.push(match argument {
                Argument::In(view) => {
                    reads.push(Arc::clone(view.block()));
                    view.address()
                }
                Argument::Out(view) => {
                    writes.push(Arc::clone(view.as_view().block()));
                    view.as_view().address()
                }
                Argument::Same => words.last().copied().unwrap_or(0),
                Argument::Null => 0,
                Argument::Word(word) => *word,
                Argument::Count(count) => u64::from(*count),
            });
        }
        let shared_bytes = (shape.shared_words * WORD_BYTES as usize) as u32;
        let frozen = Frozen { kernel, blocks, threads: shape.threads, shared_bytes, words };
        Ok((blocks > 0).then_some(Self { frozen, reads, writes }))
    }
}

/// Launches that a lane was told of and has not issued: all of a step between two operations that are no launches.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    calls: RefCell<Vec<Call>>,
}

impl Recorder {
    pub(crate) fn push(&self, call: Call) {
        self.calls.borrow_mut().push(call);
    }

    pub(crate) fn take(&self) -> Vec<Call> {
        self.calls.take()
    }
}

impl Lane<'_> {
    /// Launches a kernel, or tells the recorder. Arguments are in the order of its parameters, and every range that its header states lies inside the
    /// views given; this is what each caller in this module sees to.
    pub(crate) fn launch(&self, kernel: &'static str, shape: Shape, arguments: Vec<Argument<'_>>) -> Result<(), BackendError> {
        let _span = tracing::trace_span!("launch", otel.name = kernel, kernel, blocks = shape.blocks).entered();
        let Some(call) = Call::new(kernel, shape, &arguments)? else {
            return Ok(());
        };
        match self.recorder() {
            Some(recorder) => {
                recorder.push(call);
                Ok(())
            }
            None => self.issue(&[call]),
        }
    }

    /// Gives launches to the driver, as a graph if there are several.
    pub(crate) fn issue(&self, calls: &[Call]) -> Result<(), BackendError> {
        let reads: Vec<&Arc<Block>> = calls.iter().flat_map(|call| &call.reads).collect();
        let writes: Vec<&Arc<Block>> = calls.iter().flat_map(|call| &call.writes).collect();
        self.operate(&reads, &writes, |stream| {
            let frozen: Vec<&Frozen> = calls.iter().map(|call| &call.frozen).collect();
            if calls.len() < 2 || !self.device.graphs.launch(self.device, stream, &frozen)? {
                frozen.iter().try_for_each(|call| self.launch_alone(call))?;
            }
            Ok(())
        })?;
        calls.iter().for_each(|call| self.device.note_launch(call.frozen.kernel));
        Ok(())
    }

    fn launch_alone(&self, call: &Frozen) -> Result<(), BackendError> {
        let function = self.device.function(call.kernel)?;
        let mut words = call.words.clone();
        let mut pointers: Vec<*mut c_void> = words.iter_mut().map(|word| std::ptr::from_mut(word).cast()).collect();
        let stream = self.stream().cuda().cu_stream();
        self.device.bind()?;
        // SAFETY: the pointers are those of the kernel's parameters, in order, of at least their widths: hosts of devices are little-endian, so that a
        // parameter of 32 bits is the first half of its word. The kernel's accesses stay inside the blocks behind them, as the callers of `launch` see
        // to; `operate` orders it behind other uses of those, and they remember it. Function and stream are of the device's context, now current.
        #[allow(unsafe_code)]
        let launched =
            unsafe { result::launch_kernel(function, (call.blocks, 1, 1), (call.threads, 1, 1), call.shared_bytes, stream, &mut pointers) };
        self.device.graphs.note_plain();
        launched.map_err(|error| self.device.failed(error))
    }
}
