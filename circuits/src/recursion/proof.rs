//! The encoding of published proofs: canonical by construction.
//!
//! Layout, little end first: magic (4), format version (2), kind (1), zero (1), parameters id (32), then every field element of the proof
//! as eight bytes. The number and order of the elements follow from the circuit's common data, so there is exactly one valid length, no
//! length is read from the bytes, and each element must be below p. The public input is not encoded: the verifier computes it.

use plonky2::field::polynomial::PolynomialCoeffs;
use plonky2::field::types::{Field, PrimeField64};
use plonky2::fri::oracle::SALT_SIZE;
use plonky2::fri::proof::{FriInitialTreeProof, FriProof, FriQueryRound, FriQueryStep};
use plonky2::hash::merkle_proofs::MerkleProof;
use plonky2::hash::merkle_tree::MerkleCap;
use plonky2::plonk::circuit_data::CommonCircuitData;
use plonky2::plonk::proof::{OpeningSet, Proof, ProofWithPublicInputs};
use thiserror::Error;

use crate::field::{C, D, Digest, F, H, K, ORDER, ext, limbs};

const MAGIC: [u8; 4] = *b"ZKIP";
const FORMAT_VERSION: u16 = 1;
const HEADER_BYTES: usize = 40;
const ELEMENT_BYTES: usize = 8;

/// Which circuit made a published proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofKind {
    /// An inference.
    Inference,
    /// A registration.
    Registration,
}

impl ProofKind {
    fn code(self) -> u8 {
        match self {
            Self::Inference => 0,
            Self::Registration => 1,
        }
    }
}

/// Bytes that are no proof.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Not ours.
    #[error("the bytes do not start with the header of a proof (magic ZKIP)")]
    Magic,
    /// Another format version.
    #[error("proof format version {got} is not supported, only {FORMAT_VERSION}")]
    Version {
        /// The version found.
        got: u16,
    },
    /// Another kind of proof.
    #[error("proof kind byte is {got}, expected {expected} for {kind:?}; give the proof of the right kind")]
    Kind {
        /// Kind asked for.
        kind: ProofKind,
        /// Its byte.
        expected: u8,
        /// The byte found.
        got: u8,
    },
    /// A header byte that must be zero is not.
    #[error("reserved header byte is {got}, must be 0")]
    Reserved {
        /// The byte found.
        got: u8,
    },
    /// Made with other parameters.
    #[error("the proof was made with other parameters than the verifier's; use the verifier key of its parameters id")]
    Parameters,
    /// Truncated or extended.
    #[error("a proof of these parameters has {expected} bytes, got {got}")]
    Length {
        /// The one valid length.
        expected: usize,
        /// Length found.
        got: usize,
    },
    /// An element not below p.
    #[error("field element {index} of the proof is not canonical")]
    NonCanonical {
        /// Position among the elements.
        index: usize,
    },
}

/// Eight bytes an element.
pub(crate) fn encode_digest(digest: Digest) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (chunk, element) in bytes.chunks_exact_mut(ELEMENT_BYTES).zip(digest.elements) {
        chunk.copy_from_slice(&element.to_canonical_u64().to_le_bytes());
    }
    bytes
}

/// Reads [`encode_digest`]; `None` if an element is not canonical.
pub(crate) fn decode_digest(bytes: [u8; 32]) -> Option<Digest> {
    let mut digest = Digest::ZERO;
    for (element, chunk) in digest.elements.iter_mut().zip(bytes.chunks_exact(ELEMENT_BYTES)) {
        *element = canonical(chunk.try_into().ok()?)?;
    }
    Some(digest)
}

fn canonical(bytes: [u8; ELEMENT_BYTES]) -> Option<F> {
    let value = u64::from_le_bytes(bytes);
    (value < ORDER).then(|| F::from_canonical_u64(value))
}

/// Sizes that the common data fix.
struct Shape {
    cap: usize,
    openings: [usize; 7],
    leaves: [usize; 4],
    initial_siblings: usize,
    /// (evaluations, siblings) of each folding step.
    steps: Vec<(usize, usize)>,
    n_queries: usize,
    final_poly: usize,
}

impl Shape {
    fn of(common: &CommonCircuitData<F, D>) -> Self {
        let (config, fri) = (&common.config, &common.fri_params);
        let n_challenges = config.num_challenges;
        let n_partial_products = n_challenges * common.num_partial_products;
        let n_quotients = n_challenges * common.quotient_degree_factor;
        let salt = if fri.hiding { SALT_SIZE } else { 0 };
        let cap_height = fri.config.cap_height;
        let mut height = fri.lde_bits();
        let initial_siblings = height - cap_height;
        let step = |&arity_bits: &usize| {
            height -= arity_bits;
            (1 << arity_bits, height - cap_height)
        };
        let steps = fri.reduction_arity_bits.iter().map(step).collect();
        Self {
            cap: 1 << cap_height,
            openings: [
                common.num_constants,
                config.num_routed_wires,
                config.num_wires,
                n_challenges,
                n_challenges,
                n_partial_products,
                n_quotients,
            ],
            leaves: [
                common.num_constants + config.num_routed_wires,
                config.num_wires + salt,
                n_challenges + n_partial_products + salt,
                n_quotients + salt,
            ],
            initial_siblings,
            steps,
            n_queries: fri.config.num_query_rounds,
            final_poly: fri.final_poly_len(),
        }
    }

    fn n_elements(&self) -> usize {
        let caps = 4 * self.cap * (3 + self.steps.len());
        let openings = D * self.openings.iter().sum::<usize>();
        let initial: usize = self.leaves.iter().map(|leaf| leaf + 4 * self.initial_siblings).sum();
        let folding: usize = self.steps.iter().map(|(evals, siblings)| D * evals + 4 * siblings).sum();
        caps + openings + self.n_queries * (initial + folding) + D * self.final_poly + 1
    }
}

/// Bytes of every proof of a circuit.
pub fn proof_bytes(common: &CommonCircuitData<F, D>) -> usize {
    HEADER_BYTES + ELEMENT_BYTES * Shape::of(common).n_elements()
}

#[derive(Default)]
struct Writer {
    elements: Vec<F>,
}

impl Writer {
    fn digests(&mut self, digests: &[Digest]) {
        self.elements.extend(digests.iter().flat_map(|digest| digest.elements));
    }

    fn extensions(&mut self, values: &[K]) {
        self.elements.extend(values.iter().flat_map(|&value| limbs(value)));
    }

    fn query(&mut self, query: &FriQueryRound<F, H, D>) {
        for (leaf, path) in &query.initial_trees_proof.evals_proofs {
            self.elements.extend(leaf);
            self.digests(&path.siblings);
        }
        for step in &query.steps {
            self.extensions(&step.evals);
            self.digests(&step.merkle_proof.siblings);
        }
    }

    fn proof(&mut self, proof: &Proof<F, C, D>) {
        for cap in [&proof.wires_cap, &proof.plonk_zs_partial_products_cap, &proof.quotient_polys_cap] {
            self.digests(&cap.0);
        }
        let openings = &proof.openings;
        let lists = [
            &openings.constants,
            &openings.plonk_sigmas,
            &openings.wires,
            &openings.plonk_zs,
            &openings.plonk_zs_next,
            &openings.partial_products,
            &openings.quotient_polys,
        ];
        for list in lists {
            self.extensions(list);
        }
        let fri = &proof.opening_proof;
        for cap in &fri.commit_phase_merkle_caps {
            self.digests(&cap.0);
        }
        for query in &fri.query_round_proofs {
            self.query(query);
        }
        self.extensions(&fri.final_poly.coeffs);
        self.elements.push(fri.pow_witness);
    }
}

/// Encodes a proof of a circuit.
pub fn encode_proof(kind: ProofKind, parameters_id: Digest, proof: &Proof<F, C, D>) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.proof(proof);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + ELEMENT_BYTES * writer.elements.len());
    bytes.extend(MAGIC);
    bytes.extend(FORMAT_VERSION.to_le_bytes());
    bytes.extend([kind.code(), 0]);
    bytes.extend(encode_digest(parameters_id));
    bytes.extend(writer.elements.iter().flat_map(|element| element.to_canonical_u64().to_le_bytes()));
    bytes
}

/// Elements whose number was checked against the shape: the iterator cannot run out.
struct Reader<I> {
    elements: I,
}

impl<I: Iterator<Item = F>> Reader<I> {
    fn element(&mut self) -> F {
        self.elements.next().unwrap_or(F::ZERO)
    }

    fn elements(&mut self, count: usize) -> Vec<F> {
        (0..count).map(|_| self.element()).collect()
    }

    fn extensions(&mut self, count: usize) -> Vec<K> {
        (0..count).map(|_| ext(self.element(), self.element())).collect()
    }

    fn digests(&mut self, count: usize) -> Vec<Digest> {
        (0..count).map(|_| Digest { elements: std::array::from_fn(|_| self.element()) }).collect()
    }

    fn cap(&mut self, shape: &Shape) -> MerkleCap<F, H> {
        MerkleCap(self.digests(shape.cap))
    }

    fn openings(&mut self, shape: &Shape) -> OpeningSet<F, D> {
        let [constants, plonk_sigmas, wires, plonk_zs, plonk_zs_next, partial_products, quotient_polys] =
            shape.openings.map(|count| self.extensions(count));
        OpeningSet {
            constants,
            plonk_sigmas,
            wires,
            plonk_zs,
            plonk_zs_next,
            partial_products,
            quotient_polys,
            lookup_zs: vec![],
            lookup_zs_next: vec![],
        }
    }

    fn query(&mut self, shape: &Shape) -> FriQueryRound<F, H, D> {
        let mut leaf = |count| {
            let values = self.elements(count);
            (values, MerkleProof { siblings: self.digests(shape.initial_siblings) })
        };
        let evals_proofs = shape.leaves.iter().map(|&count| leaf(count)).collect();
        let mut step = |&(evals, siblings): &(usize, usize)| {
            let evals = self.extensions(evals);
            FriQueryStep { evals, merkle_proof: MerkleProof { siblings: self.digests(siblings) } }
        };
        let steps = shape.steps.iter().map(&mut step).collect();
        FriQueryRound { initial_trees_proof: FriInitialTreeProof { evals_proofs }, steps }
    }

    fn proof(&mut self, shape: &Shape) -> Proof<F, C, D> {
        let [wires_cap, plonk_zs_partial_products_cap, quotient_polys_cap] = std::array::from_fn(|_| self.cap(shape));
        let openings = self.openings(shape);
        let commit_phase_merkle_caps = shape.steps.iter().map(|_| self.cap(shape)).collect();
        let query_round_proofs = (0..shape.n_queries).map(|_| self.query(shape)).collect();
        let final_poly = PolynomialCoeffs::new(self.extensions(shape.final_poly));
        let pow_witness = self.element();
        Proof {
            wires_cap,
            plonk_zs_partial_products_cap,
            quotient_polys_cap,
            openings,
            opening_proof: FriProof { commit_phase_merkle_caps, query_round_proofs, final_poly, pow_witness },
        }
    }
}

fn check_header(kind: ProofKind, parameters_id: Digest, bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(DecodeError::Magic)?;
    if *magic != MAGIC {
        return Err(DecodeError::Magic);
    }
    let short = DecodeError::Length { expected: HEADER_BYTES, got: bytes.len() };
    let (&[low, high, code, reserved], rest) = rest.split_first_chunk::<4>().ok_or(short.clone())?;
    let version = u16::from_le_bytes([low, high]);
    if version != FORMAT_VERSION {
        return Err(DecodeError::Version { got: version });
    }
    if code != kind.code() {
        return Err(DecodeError::Kind { kind, expected: kind.code(), got: code });
    }
    if reserved != 0 {
        return Err(DecodeError::Reserved { got: reserved });
    }
    let (id, rest) = rest.split_first_chunk::<32>().ok_or(short)?;
    if *id != encode_digest(parameters_id) {
        return Err(DecodeError::Parameters);
    }
    Ok(rest)
}

/// Decodes a proof of a circuit; the public inputs are the verifier's own.
///
/// # Errors
/// Any byte string that [`encode_proof`] would not produce. Nothing is allocated before the length is checked.
pub fn decode_proof(
    kind: ProofKind,
    parameters_id: Digest,
    common: &CommonCircuitData<F, D>,
    public_inputs: Vec<F>,
    bytes: &[u8],
) -> Result<ProofWithPublicInputs<F, C, D>, DecodeError> {
    let body = check_header(kind, parameters_id, bytes)?;
    let shape = Shape::of(common);
    let expected = HEADER_BYTES + ELEMENT_BYTES * shape.n_elements();
    if bytes.len() != expected {
        return Err(DecodeError::Length { expected, got: bytes.len() });
    }
    let (chunks, _) = body.as_chunks::<ELEMENT_BYTES>();
    let elements = chunks.iter().enumerate();
    let elements: Result<Vec<F>, DecodeError> =
        elements.map(|(index, &chunk)| canonical(chunk).ok_or(DecodeError::NonCanonical { index })).collect();
    let proof = Reader { elements: elements?.into_iter() }.proof(&shape);
    Ok(ProofWithPublicInputs { proof, public_inputs })
}
