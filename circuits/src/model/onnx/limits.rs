//! What an ONNX file may ask for.

/// Bounds on an ONNX file; each is checked before the memory it stands for is taken.
///
/// Memory while importing is at most about `32 · file size + 600 · items + 16 · parameters` bytes (`circuits/tests/model_memory.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportLimits {
    /// Bytes of the file.
    pub max_file_bytes: usize,
    /// Messages and strings in the file, of the kinds that are read.
    pub max_items: usize,
    /// Operators.
    pub max_nodes: usize,
    /// Elements of one array, and numbers in the lists of one file.
    pub max_tensor_elements: usize,
    /// Entries of all weight matrices together, a shared one counted each time it is used.
    pub max_parameters: usize,
    /// Elements of all values that the network computes together.
    pub max_activations: usize,
    /// Bytes of a name.
    pub max_name_bytes: usize,
}

impl Default for ImportLimits {
    /// 2 GiB, 2^18 items, 2^15 nodes, 2^28 elements, 2^28 parameters, 2^26 activations, names of 1 KiB.
    fn default() -> Self {
        Self {
            max_file_bytes: 2 << 30,
            max_items: 1 << 18,
            max_nodes: 1 << 15,
            max_tensor_elements: 1 << 28,
            max_parameters: 1 << 28,
            max_activations: 1 << 26,
            max_name_bytes: 1024,
        }
    }
}
