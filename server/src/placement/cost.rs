//! What the tasks of an inference take, linear in the sizes of its layers, and a registration, linear in the size of its file; with coefficients that were
//! measured.
//!
//! | task | microseconds, of two threads of the machine of benches/results | from |
//! |---|---|---|
//! | witness | 452 + 0.000536 · multiplications | the stage `witness` of both networks |
//! | commit-k | 2,207 + 3.502 · rows | the stage `commit` of both |
//! | bind | 31 · layers | the stage `bind` of both |
//! | layer-k | 6,515 + 2.658 · rows + 0.008998 · rows · columns | the stage `layer` of both, three layer proofs |
//! | leaf-j | 291,000 | the stage `leaf`: 1 and 3 leaves |
//! | join-l-i | 338,000 | the stage `join`: 2 joins |
//! | outer | 283,000 | the stages `outer` and `verify` |
//! | loading weights | 0.001683 · bytes | `load_weights` of 2^14 × 256 |
//! | register | 2,924,000 + 0.5554 · bytes of the file | `registration_first_wall_s`: the two networks |
//!
//! Fits weigh relative errors. Layers are within a factor of 1.9 of every measurement they are fitted to, the others closer;
//! `benches/tests/simulation.rs` compares. Bytes of a layer are rows · (72 columns + 728) for its weights, exact at rate 1/8, and rows · 5,137 for all
//! else, measured at 2^14 × 256. Circuits take at most what the whole service took with mlp-mnist, 940 MB. A registration takes 571.9 MB and 48.27 bytes for
//! each of its file: the line through `registration_peak_bytes` of the two networks, 593 MB for the 438,188 bytes of mlp-mnist and 1,383 MB for the 16.8 MB of
//! the dense one, on processors, whose memory is the host's; a device is not known to take less. Both files have weights of 4 bytes; one that has weights of a
//! byte takes up to four times as much for each of its bytes.
//!
//! Estimates order tasks and divide memory; nothing becomes wrong by an estimate that is off: it is measured again when a task runs out of memory.

/// Sizes of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerSize {
    /// Rows of its table.
    pub rows: u64,
    /// Columns of weights.
    pub columns: u64,
    /// Multiplications of weights by values when it is evaluated.
    pub multiplications: u64,
}

impl LayerSize {
    /// Bytes of its committed weights.
    pub const fn weights_bytes(&self) -> u64 {
        self.rows.saturating_mul(self.columns.saturating_mul(72).saturating_add(728))
    }
}

/// What a task takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Time where nothing has to be moved, in microseconds.
    pub micros: u64,
    /// Device memory.
    pub device_bytes: u64,
    /// Host memory.
    pub host_bytes: u64,
}

/// Bytes of a layer's table other than its weights, per row.
const TABLE_BYTES_PER_ROW: u64 = 5_137;
/// Bytes of the proof of a circuit.
const CIRCUIT_BYTES: u64 = 940_000_000;

const fn host_only(micros: u64, host_bytes: u64) -> Estimate {
    Estimate { micros, device_bytes: 0, host_bytes }
}

const fn circuit(micros: u64) -> Estimate {
    Estimate { micros, device_bytes: CIRCUIT_BYTES, host_bytes: CIRCUIT_BYTES }
}

/// Evaluating the network.
pub fn witness(layers: &[LayerSize]) -> Estimate {
    let multiplications = layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.multiplications));
    let rows = layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.rows));
    host_only(452_u64.saturating_add(multiplications.saturating_mul(536) / 1_000_000), rows.saturating_mul(TABLE_BYTES_PER_ROW))
}

/// Committing a layer's tensors.
pub const fn commit(layer: &LayerSize) -> Estimate {
    let bytes = layer.rows.saturating_mul(TABLE_BYTES_PER_ROW);
    Estimate { micros: 2_207_u64.saturating_add(layer.rows.saturating_mul(3_502) / 1_000), device_bytes: bytes, host_bytes: bytes }
}

/// Deriving the shared challenges.
pub const fn bind(n_layers: u64) -> Estimate {
    host_only(n_layers.saturating_mul(31), 1 << 20)
}

/// Proving a layer. Its weights are counted.
pub const fn layer(layer: &LayerSize) -> Estimate {
    let of_cells = layer.rows.saturating_mul(layer.columns).saturating_mul(8_998) / 1_000_000;
    let table = layer.rows.saturating_mul(TABLE_BYTES_PER_ROW);
    Estimate {
        micros: 6_515_u64.saturating_add(layer.rows.saturating_mul(2_658) / 1_000).saturating_add(of_cells),
        device_bytes: table.saturating_add(layer.weights_bytes()),
        host_bytes: table,
    }
}

/// Verifying layers in a circuit. All nodes have one shape, whatever they verify.
pub const fn leaf() -> Estimate {
    circuit(291_000)
}

/// Joining two nodes.
pub const fn join() -> Estimate {
    circuit(338_000)
}

/// Making the published proof and verifying it.
pub const fn outer() -> Estimate {
    circuit(283_000)
}

/// A whole inference as one task.
pub fn prove(layers: &[LayerSize], n_leaves: u64) -> Estimate {
    let n_layers = layers.len() as u64;
    let mut micros = witness(layers).micros.saturating_add(bind(n_layers).micros).saturating_add(outer().micros);
    micros = micros.saturating_add(n_leaves.saturating_mul(leaf().micros));
    micros = micros.saturating_add(n_leaves.saturating_sub(1).saturating_mul(join().micros));
    let mut device_bytes = 0_u64;
    for size in layers {
        micros = micros.saturating_add(commit(size).micros).saturating_add(layer(size).micros);
        device_bytes = device_bytes.saturating_add(layer(size).device_bytes);
    }
    Estimate { micros, device_bytes: device_bytes.max(CIRCUIT_BYTES), host_bytes: CIRCUIT_BYTES.max(witness(layers).host_bytes) }
}

/// Registering a model whose file has so many bytes, with no circuit and no oracle of it at hand.
pub const fn register(file_bytes: u64) -> Estimate {
    let bytes = 571_900_000_u64.saturating_add(file_bytes.saturating_mul(4_827) / 100);
    let micros = 2_924_000_u64.saturating_add(file_bytes.saturating_mul(5_554) / 10_000);
    Estimate { micros, device_bytes: bytes, host_bytes: bytes }
}

/// Bringing committed weights of this many bytes to a device, in microseconds.
pub const fn load_micros(bytes: u64) -> u64 {
    bytes.saturating_mul(1_683) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: LayerSize = LayerSize { rows: 1 << 14, columns: 256, multiplications: 1 << 22 };

    #[test]
    fn bytes_of_weights_are_those_of_saved_oracles() {
        // benches/results/kernels_steps.json: saved_bytes, less some hundred bytes of header.
        for (rows, columns, saved) in [(1 << 10, 128, 10_182_184), (1 << 12, 16, 7_700_008), (1 << 14, 256, 313_916_968_u64)] {
            let bytes = LayerSize { rows, columns, multiplications: 0 }.weights_bytes();
            assert!(saved.abs_diff(bytes) < 2_000, "{rows} × {columns}: {bytes} and {saved}");
        }
        assert!(layer(&LARGE).device_bytes.abs_diff(398_082_048) < 100_000);
    }

    #[test]
    fn a_whole_inference_takes_what_its_tasks_take() {
        let whole = prove(&[LARGE, LARGE], 3);
        let parts = [witness(&[LARGE, LARGE]), bind(2), outer()].iter().map(|estimate| estimate.micros).sum::<u64>();
        assert_eq!(whole.micros, parts + 2 * (commit(&LARGE).micros + layer(&LARGE).micros) + 3 * leaf().micros + 2 * join().micros);
        assert_eq!(load_micros(LARGE.weights_bytes()) / 1_000, 528);
    }

    #[test]
    fn sizes_without_bounds_do_not_overflow() {
        let huge = LayerSize { rows: u64::MAX, columns: u64::MAX, multiplications: u64::MAX };
        assert_eq!(layer(&huge).device_bytes, u64::MAX);
        assert!(prove(&[huge, huge], u64::MAX).micros >= layer(&huge).micros);
        assert!(register(u64::MAX).device_bytes > register(1 << 40).device_bytes);
    }
}
