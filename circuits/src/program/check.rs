//! Whether a program is one that statements may be made about (`docs/PROTOCOL.md` §7, item 2).

use thiserror::Error;

use super::{MAX_LAYERS, Program};
use crate::layer::spec::{LayerSpec, OutputRule, SpecError};
use crate::recursion::digest::{MAX_FAN_OUT, SizeError, input_capacity, output_capacity};

/// Why a program is refused. Tensor 0 is the graph's input, tensor k + 1 the output of layer k.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProgramError {
    /// Too few or too many layers.
    #[error("the program has {got} layers; it must have 1 to {MAX_LAYERS}")]
    LayerCount {
        /// Layers found.
        got: usize,
    },
    /// A layer's shape or range.
    #[error("layer {layer} is out of range")]
    Layer {
        /// Index of the layer.
        layer: usize,
        /// The field.
        #[source]
        source: SpecError,
    },
    /// An equation of a layer could wrap around the field.
    #[error("layer {layer} is too wide for its constants: its equations could wrap around the field")]
    Wrap {
        /// Index of the layer.
        layer: usize,
        /// The inequality.
        #[source]
        source: SpecError,
    },
    /// Input or output larger than any boundary circuit.
    #[error("the boundary fits no circuit")]
    Boundary(#[from] SizeError),
    /// The input tensor has no consumer, or too many.
    #[error("the graph's input is read {got} times; it must be read 1 to {MAX_FAN_OUT} times")]
    InputFanOut {
        /// Its fan-out.
        got: usize,
    },
    /// A tensor claims an edge outside 1 … E, E the sum of all fan-outs.
    #[error("tensor {tensor} produces edge {edge}; the program has edges 1 to {n_edges}")]
    EdgeRange {
        /// The tensor.
        tensor: usize,
        /// The edge.
        edge: usize,
        /// E.
        n_edges: usize,
    },
    /// Two tensors claim one edge.
    #[error("edge {edge} is produced by tensor {tensor} and by tensor {other}")]
    ProducedTwice {
        /// The edge.
        edge: usize,
        /// The earlier tensor.
        tensor: usize,
        /// The later tensor.
        other: usize,
    },
    /// An edge that is read is not produced by anything.
    #[error("{consumer} reads edge {edge}, which no tensor produces")]
    NotProduced {
        /// Who reads.
        consumer: Consumer,
        /// The edge.
        edge: usize,
    },
    /// An edge is read twice.
    #[error("edge {edge} is read by {consumer} and again by {other}")]
    ConsumedTwice {
        /// The edge.
        edge: usize,
        /// The first reader.
        consumer: Consumer,
        /// The second reader.
        other: Consumer,
    },
    /// An edge is never read.
    #[error("edge {edge} of tensor {tensor} is never read")]
    NotConsumed {
        /// The edge.
        edge: usize,
        /// Its producer.
        tensor: usize,
    },
    /// A layer reads its own output or a later one.
    #[error("{consumer} reads tensor {tensor}, which is not made before it")]
    Order {
        /// Who reads.
        consumer: Consumer,
        /// The tensor.
        tensor: usize,
    },
    /// Sizes at the two ends of an edge differ.
    #[error("edge {edge} carries {produced} elements from tensor {tensor}, but {consumer} reads {consumed}")]
    EdgeSize {
        /// The edge.
        edge: usize,
        /// Its producer.
        tensor: usize,
        /// Elements produced.
        produced: usize,
        /// Who reads.
        consumer: Consumer,
        /// Elements read.
        consumed: usize,
    },
    /// A raw tensor is read by a layer, or also by one.
    #[error("tensor {tensor} is raw; only the graph's output may read it, {consumer} does")]
    RawRead {
        /// The tensor.
        tensor: usize,
        /// Who reads.
        consumer: Consumer,
    },
    /// The graph's output is its input.
    #[error("the graph's output is its input; it must be the output of a layer")]
    OutputIsInput,
}

/// A reader of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumer {
    /// A layer, at its first (0) or second (1) input.
    Layer {
        /// Index of the layer.
        layer: usize,
        /// Which input.
        port: usize,
    },
    /// The graph's output.
    Output,
}

impl std::fmt::Display for Consumer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Layer { layer, port } => write!(formatter, "input {port} of layer {layer}"),
            Self::Output => formatter.write_str("the graph's output"),
        }
    }
}

/// What a checked program computes on what: derived, never read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wiring {
    /// Per layer, the tensors it reads: one (dense) or two (add).
    pub reads: Vec<Vec<usize>>,
    /// The tensor that is the graph's output.
    pub output: usize,
    /// Smallest and largest value that an output can have.
    pub output_range: (i64, i64),
}

/// An edge while it is being checked.
#[derive(Clone, Copy)]
struct Edge {
    tensor: usize,
    consumer: Option<Consumer>,
}

impl Program {
    /// Checks every rule of `docs/PROTOCOL.md` §7 item 2.
    ///
    /// # Errors
    /// The first rule that is violated.
    pub fn check(&self) -> Result<Wiring, ProgramError> {
        if !(1..=MAX_LAYERS).contains(&self.layers.len()) {
            return Err(ProgramError::LayerCount { got: self.layers.len() });
        }
        input_capacity(self.boundary.n_inputs)?;
        output_capacity(self.boundary.n_outputs)?;
        if !(1..=MAX_FAN_OUT).contains(&self.boundary.input_fan_out) {
            return Err(ProgramError::InputFanOut { got: self.boundary.input_fan_out });
        }
        for (layer, spec) in self.layers.iter().enumerate() {
            spec.check_shape().map_err(|source| ProgramError::Layer { layer, source })?;
        }
        let mut edges = self.produce_edges()?;
        let (reads, output) = self.consume_edges(&mut edges)?;
        let output_range = self.check_bounds(&reads, output)?;
        Ok(Wiring { reads, output, output_range })
    }

    /// First edge and fan-out of a tensor; both are 0 for a tensor that does not exist.
    fn produced(&self, tensor: usize) -> (usize, usize) {
        match tensor.checked_sub(1) {
            None => (self.boundary.first_input_edge, self.boundary.input_fan_out),
            Some(layer) => self.layers.get(layer).map_or((0, 0), |layer| (layer.edge_out as usize, layer.fan_out as usize)),
        }
    }

    /// Elements of a tensor; 0 for a tensor that does not exist.
    fn n_elements(&self, tensor: usize) -> usize {
        match tensor.checked_sub(1) {
            None => self.boundary.n_inputs,
            Some(layer) => self.layers.get(layer).map_or(0, |layer| layer.n_outputs),
        }
    }

    fn is_raw(&self, tensor: usize) -> bool {
        let layer = tensor.checked_sub(1).and_then(|layer| self.layers.get(layer));
        layer.is_some_and(|layer| layer.output == OutputRule::Raw)
    }

    /// Element `e − 1` is edge e. As E is the sum of the fan-outs, in range and without repetition means: each edge produced once.
    fn produce_edges(&self) -> Result<Vec<Option<Edge>>, ProgramError> {
        let n_edges = (0..=self.layers.len()).map(|tensor| self.produced(tensor).1).sum();
        let mut edges: Vec<Option<Edge>> = vec![None; n_edges];
        for tensor in 0..=self.layers.len() {
            let (first, fan_out) = self.produced(tensor);
            for edge in (0..fan_out).map(|k| first.saturating_add(k)) {
                let slot = slot(&mut edges, edge).ok_or(ProgramError::EdgeRange { tensor, edge, n_edges })?;
                if let Some(produced) = slot {
                    return Err(ProgramError::ProducedTwice { edge, tensor: produced.tensor, other: tensor });
                }
                *slot = Some(Edge { tensor, consumer: None });
            }
        }
        Ok(edges)
    }

    fn consume_edges(&self, edges: &mut [Option<Edge>]) -> Result<(Vec<Vec<usize>>, usize), ProgramError> {
        let mut reads = Vec::with_capacity(self.layers.len());
        for (layer, spec) in self.layers.iter().enumerate() {
            let ports = edges_in(spec).iter().enumerate();
            let read = ports.map(|(port, &edge)| self.consume(edges, edge as usize, Consumer::Layer { layer, port }, spec.n_inputs));
            reads.push(read.collect::<Result<Vec<usize>, ProgramError>>()?);
        }
        let output = self.consume(edges, self.boundary.output_edge, Consumer::Output, self.boundary.n_outputs)?;
        for (edge, slot) in (1..).zip(edges.iter()) {
            if let Some(Edge { tensor, consumer: None }) = *slot {
                return Err(ProgramError::NotConsumed { edge, tensor });
            }
        }
        Ok((reads, output))
    }

    /// Marks an edge as read; returns its producer.
    fn consume(&self, edges: &mut [Option<Edge>], edge: usize, consumer: Consumer, consumed: usize) -> Result<usize, ProgramError> {
        let not_produced = ProgramError::NotProduced { consumer, edge };
        let Some(Some(found)) = slot(edges, edge) else { return Err(not_produced) };
        let tensor = found.tensor;
        if let Some(first) = found.consumer.replace(consumer) {
            return Err(ProgramError::ConsumedTwice { edge, consumer: first, other: consumer });
        }
        match consumer {
            Consumer::Layer { layer, .. } if tensor > layer => return Err(ProgramError::Order { consumer, tensor }),
            Consumer::Layer { .. } if self.is_raw(tensor) => return Err(ProgramError::RawRead { tensor, consumer }),
            Consumer::Output if tensor == 0 => return Err(ProgramError::OutputIsInput),
            Consumer::Layer { .. } | Consumer::Output => {}
        }
        let produced = self.n_elements(tensor);
        if produced != consumed {
            return Err(ProgramError::EdgeSize { edge, tensor, produced, consumer, consumed });
        }
        Ok(tensor)
    }

    /// No wrap, layer by layer; returns the range of the output tensor.
    fn check_bounds(&self, reads: &[Vec<usize>], output: usize) -> Result<(i64, i64), ProgramError> {
        let offset = i64::from(self.boundary.input_offset);
        let mut largest = vec![offset.max(255 - offset)];
        for (layer, (spec, reads)) in self.layers.iter().zip(reads).enumerate() {
            // Producers come first, so their bounds are there.
            let bound = |port: usize| reads.get(port).and_then(|&tensor| largest.get(tensor)).copied().unwrap_or(0);
            let checked = spec.check_no_wrap([bound(0), bound(1)]);
            largest.push(checked.map_err(|source| ProgramError::Wrap { layer, source })?);
        }
        let spec = output.checked_sub(1).and_then(|layer| self.layers.get(layer)).ok_or(ProgramError::OutputIsInput)?;
        let bound = largest.get(output).copied().unwrap_or(0);
        Ok(match spec.output {
            OutputRule::Raw => (-bound, bound),
            OutputRule::Requantize { lo, hi, .. } => (lo, hi),
        })
    }
}

fn edges_in(spec: &LayerSpec) -> &[u32] {
    match spec.kind.operator {
        crate::kind::Operator::Dense => spec.edges_in.get(..1).unwrap_or(&[]),
        crate::kind::Operator::Add => &spec.edges_in,
    }
}

fn slot(edges: &mut [Option<Edge>], edge: usize) -> Option<&mut Option<Edge>> {
    edge.checked_sub(1).and_then(|index| edges.get_mut(index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::samples::{RELU, dense, residual};

    fn refusal(change: impl Fn(&mut Program)) -> ProgramError {
        let mut program = residual();
        change(&mut program);
        program.check().unwrap_err()
    }

    fn layer_field(error: ProgramError) -> (usize, &'static str) {
        match error {
            ProgramError::Layer { layer, source } | ProgramError::Wrap { layer, source } => (layer, source.field),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn accepts_the_sample_and_derives_its_wiring() {
        let wiring = residual().check().unwrap();
        assert_eq!(wiring.reads, vec![vec![0], vec![1], vec![1, 2], vec![3]]);
        assert_eq!(wiring.output, 4);
        let bound = 12 * 127 * 128 + (1 << 16);
        assert_eq!(wiring.output_range, (-bound, bound));
    }

    #[test]
    fn refuses_no_layers_and_too_many() {
        assert_eq!(refusal(|p| p.layers.clear()), ProgramError::LayerCount { got: 0 });
        assert_eq!(refusal(|p| p.layers = vec![p.layers[0].clone(); 4097]), ProgramError::LayerCount { got: 4097 });
    }

    #[test]
    fn refuses_shapes_and_ranges() {
        let cases: [(usize, &str, fn(&mut LayerSpec)); 15] = [
            (0, "kind.log_rows", |l| (l.kind.log_rows, l.log_period) = (usize::MAX, 8)),
            (0, "kind.log_rows", |l| l.kind.log_rows = 7),
            (0, "kind.log_rows", |l| l.kind.log_rows = 17),
            (0, "kind.n_columns", |l| l.kind.n_columns = 0),
            (0, "kind.n_columns", |l| l.kind.n_columns = 257),
            (0, "log_period", |l| l.log_period = 9),
            (0, "n_inputs", |l| l.n_inputs = 0),
            (0, "n_inputs", |l| l.log_period = 4),
            (0, "n_outputs", |l| l.n_outputs = 17),
            (0, "shift", |l| l.output = OutputRule::Requantize { shift: 40, lo: 0, hi: 127 }),
            (0, "lo", |l| l.output = OutputRule::Requantize { shift: 24, lo: -513, hi: -500 }),
            (0, "hi", |l| l.output = OutputRule::Requantize { shift: 24, lo: 0, hi: 256 }),
            (0, "bias_bits", |l| l.bias_bits = 32),
            (0, "mult_bits", |l| l.mult_bits = 0),
            (0, "fan_out", |l| l.fan_out = 9),
        ];
        for (layer, field, change) in cases {
            assert_eq!(layer_field(refusal(|p| change(&mut p.layers[layer]))), (layer, field));
        }
        assert_eq!(layer_field(refusal(|p| p.layers[1].edges_in[1] = 1)), (1, "edges_in"));
        assert_eq!(layer_field(refusal(|p| p.layers[2].kind.n_columns = 16)), (2, "kind.n_columns"));
        assert_eq!(layer_field(refusal(|p| p.layers[2].output = OutputRule::Raw)), (2, "output"));
        assert_eq!(layer_field(refusal(|p| p.layers[0].output = OutputRule::Requantize { shift: 24, lo: 512, hi: i64::MIN })), (0, "hi"));
    }

    #[test]
    fn refuses_equations_that_could_wrap() {
        let requantize = |shift| OutputRule::Requantize { shift, lo: 0, hi: 127 };
        let narrow = refusal(|p| p.layers[0].output = requantize(8));
        assert!(matches!(narrow, ProgramError::Wrap { layer: 0, .. }), "{narrow}");
        assert_eq!(layer_field(narrow), (0, "shift"));
        // 2^16 inputs of up to 767, with the widest constants: 2^63 + 2^64 exceeds p.
        let mut wide = residual();
        wide.layers.truncate(2);
        wide.boundary.output_edge = 3;
        for (layer, (log_period, fan_out)) in wide.layers.iter_mut().zip([(8, 1), (16, 1)]) {
            layer.kind = crate::kind::LayerKind { log_rows: 16, n_columns: 256, ..layer.kind };
            (layer.log_period, layer.fan_out) = (log_period, fan_out);
        }
        wide.layers[0].n_outputs = 1 << 16;
        wide.layers[0].output = OutputRule::Requantize { shift: 24, lo: 512, hi: 767 };
        let last = LayerSpec { n_inputs: 1 << 16, n_outputs: 3, bias_bits: 31, mult_bits: 31, edge_out: 3, ..wide.layers[1].clone() };
        wide.layers[1] = LayerSpec { output: requantize(39), ..last };
        let ProgramError::Wrap { layer: 1, source } = wide.check().unwrap_err() else { panic!("another error") };
        assert_eq!(source.expected, "both sides of the requantization must stay below p");
    }

    #[test]
    fn refuses_boundaries_without_circuit() {
        let (empty, large) = (SizeError::Empty { what: "input" }, SizeError::TooLarge { what: "output", got: 1025, limit: 1024 });
        assert_eq!(refusal(|p| p.boundary.n_inputs = 0), ProgramError::Boundary(empty));
        assert_eq!(refusal(|p| p.boundary.n_outputs = 1025), ProgramError::Boundary(large));
        assert_eq!(refusal(|p| p.boundary.input_fan_out = 0), ProgramError::InputFanOut { got: 0 });
        assert_eq!(refusal(|p| p.boundary.input_fan_out = 9), ProgramError::InputFanOut { got: 9 });
    }

    #[test]
    fn refuses_edges_that_are_not_produced_once() {
        assert_eq!(refusal(|p| p.boundary.first_input_edge = 0), ProgramError::EdgeRange { tensor: 0, edge: 0, n_edges: 6 });
        assert_eq!(refusal(|p| p.layers[3].edge_out = 7), ProgramError::EdgeRange { tensor: 4, edge: 7, n_edges: 6 });
        assert_eq!(
            refusal(|p| p.layers[3].edge_out = u32::MAX),
            ProgramError::EdgeRange { tensor: 4, edge: u32::MAX as usize, n_edges: 6 }
        );
        assert_eq!(refusal(|p| p.layers[1].edge_out = 3), ProgramError::ProducedTwice { edge: 3, tensor: 1, other: 2 });
    }

    #[test]
    fn refuses_edges_that_are_not_consumed_once() {
        let first = Consumer::Layer { layer: 0, port: 0 };
        let other = Consumer::Layer { layer: 1, port: 0 };
        assert_eq!(refusal(|p| p.layers[0].edges_in[0] = 0), ProgramError::NotProduced { consumer: first, edge: 0 });
        assert_eq!(refusal(|p| p.layers[0].edges_in[0] = 7), ProgramError::NotProduced { consumer: first, edge: 7 });
        assert_eq!(refusal(|p| p.layers[1].edges_in[0] = 1), ProgramError::ConsumedTwice { edge: 1, consumer: first, other });
        let unread = refusal(|p| {
            p.boundary.input_fan_out = 2;
            p.layers.iter_mut().for_each(|layer| layer.edge_out += 1);
            p.layers[1].edges_in[0] += 1;
            p.layers[2].edges_in = [4, 5];
            p.layers[3].edges_in[0] += 1;
            p.boundary.output_edge += 1;
        });
        assert_eq!(unread, ProgramError::NotConsumed { edge: 2, tensor: 0 });
    }

    #[test]
    fn refuses_a_layer_that_reads_itself_or_later() {
        let consumer = Consumer::Layer { layer: 1, port: 0 };
        let swapped = |p: &mut Program| {
            p.layers[1].edges_in[0] = 4;
            p.layers[2].edges_in[1] = 2;
        };
        assert_eq!(refusal(swapped), ProgramError::Order { consumer, tensor: 2 });
    }

    #[test]
    fn refuses_an_edge_with_two_sizes() {
        let consumer = Consumer::Layer { layer: 1, port: 0 };
        let expected = ProgramError::EdgeSize { edge: 2, tensor: 1, produced: 11, consumer, consumed: 12 };
        assert_eq!(refusal(|p| p.layers[0].n_outputs = 11), expected);
        let expected = ProgramError::EdgeSize { edge: 6, tensor: 4, produced: 3, consumer: Consumer::Output, consumed: 2 };
        assert_eq!(refusal(|p| p.boundary.n_outputs = 2), expected);
    }

    #[test]
    fn refuses_raw_tensors_inside_and_the_input_as_output() {
        let consumer = Consumer::Layer { layer: 1, port: 0 };
        assert_eq!(refusal(|p| p.layers[0].output = OutputRule::Raw), ProgramError::RawRead { tensor: 1, consumer });
        let mut program = Program { layers: vec![dense(30, 3, RELU, 1, 3, 1)], boundary: residual().boundary };
        program.boundary.input_fan_out = 2;
        program.boundary.output_edge = 2;
        assert_eq!(program.check().unwrap_err(), ProgramError::OutputIsInput);
    }
}
