//! Node proofs in a store: what an aggregation that repeats itself need not prove again.
//!
//! A saved node is as internal as the node itself: it belongs into the prover's private store and nowhere else. What comes back is verified
//! before it is used, so that a damaged entry costs time and nothing else.

use plonky2::plonk::circuit_data::VerifierCircuitData;

use crate::encoding::{Canonical, DecodeError, Reader, Writer};
use crate::field::Digest;
use crate::recursion::digest::verifier_data_digest;
use crate::recursion::gadgets::{Proof, VerifierData};
use crate::recursion::leaf::LayerCircuit;
use crate::recursion::prover::aggregator::{Aggregator, NodeProof};
use crate::recursion::prover::seal::{seal, unseal};

const MAGIC: &str = "ZKND";
const FORMAT_VERSION: u16 = 1;
/// Most bytes of a saved part; a node proof takes about 150 kB.
const MAX_PART_BYTES: usize = 1 << 22;
/// Stands for the slot of a join, which has none.
const NO_SLOT: u32 = u32::MAX;

/// A node in bytes.
struct SavedNode {
    slot: u32,
    verifier_data: Vec<u8>,
    proof: Vec<u8>,
}

impl Canonical for SavedNode {
    const NAME: &'static str = "saved node";
    const MAX_BYTES: usize = 2 * MAX_PART_BYTES + 64;

    fn write(&self, writer: &mut Writer) {
        writer.head(MAGIC, FORMAT_VERSION);
        writer.u32(self.slot);
        writer.blob(&self.verifier_data);
        writer.blob(&self.proof);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.head(MAGIC, FORMAT_VERSION)?;
        Ok(Self {
            slot: reader.u32("slot")?,
            verifier_data: reader.blob("verifier data", MAX_PART_BYTES)?.to_vec(),
            proof: reader.blob("proof", MAX_PART_BYTES)?.to_vec(),
        })
    }
}

impl SavedNode {
    fn new(node: &NodeProof) -> Option<Self> {
        let slot = node.slot.map_or(Some(NO_SLOT), |slot| u32::try_from(slot).ok())?;
        Some(Self { slot, verifier_data: node.verifier_data.to_bytes().ok()?, proof: node.proof.to_bytes() })
    }

    fn slot(&self) -> Option<usize> {
        (self.slot != NO_SLOT).then_some(self.slot as usize)
    }
}

impl<L: LayerCircuit> Aggregator<L> {
    /// Keeps a node in the store under a name.
    pub fn save_node(&self, name: &str, node: &NodeProof) {
        if let Some(bytes) = self.encode_node(node) {
            self.store().store(name, &bytes);
        }
    }

    /// The node kept under a name, if there is one, its circuit is of this parameter set, and its proof verifies.
    pub fn load_node(&self, name: &str) -> Option<NodeProof> {
        self.decode_node(&self.store().load(name)?)
    }

    /// The node in bytes. `None` if plonky2 cannot write its circuit's key.
    pub fn encode_node(&self, node: &NodeProof) -> Option<Vec<u8>> {
        SavedNode::new(node).map(|saved| seal(saved.to_bytes()))
    }

    /// The node of these bytes, if they are its one encoding and undamaged, its circuit is of this parameter set, and its proof verifies.
    pub fn decode_node(&self, bytes: &[u8]) -> Option<NodeProof> {
        let saved = SavedNode::from_bytes(unseal(bytes)?).ok()?;
        let slot = saved.slot();
        let verifier_data = VerifierData::from_bytes(saved.verifier_data).ok()?;
        if verifier_data_digest(&verifier_data) != self.node_identity(slot)? {
            return None;
        }
        let proof = Proof::from_bytes(saved.proof, self.node_common()).ok()?;
        let circuit = VerifierCircuitData { verifier_only: verifier_data.clone(), common: self.node_common().clone() };
        circuit.verify(proof.clone()).ok()?;
        let node = NodeProof { proof, verifier_data, slot };
        // plonky2 reads what it needs of a part and ignores what follows.
        (self.encode_node(&node)? == bytes).then_some(node)
    }

    /// Verifier-data digest of the leaf circuit in a slot, or of the join.
    fn node_identity(&self, slot: Option<usize>) -> Option<Digest> {
        match slot {
            Some(slot) => self.parameters().registry().leaves().get(slot).copied(),
            None => Some(self.parameters().join_digest()),
        }
    }
}
