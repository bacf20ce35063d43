//! What a proof states: this registered model, on this input, gave this output, for this use (`docs/PROTOCOL.md` §5, §6).

use crate::encoding::{Canonical, DIGEST_BYTES, DecodeError, DecodeProblem, HEAD_BYTES, Reader, Writer, digest_bytes, parse_digest};
use crate::field::{Digest, F, from_signed};
use crate::hash::hash_bytes;
use crate::recursion::digest::{INPUT_CAPACITIES, OUTPUT_CAPACITIES, SizeError, StatementFields, input_commitment, output_commitment};

/// Outputs lie strictly between −2^62 and 2^62, so that an integer has one field element.
pub const OUTPUT_LIMIT: i64 = 1 << 62;

const MAGIC: &str = "ZKST";
const FORMAT_VERSION: u16 = 1;
const INPUT_PUBLIC: u8 = 0;
const INPUT_COMMITTED: u8 = 1;
const PREDICATE_NONE: u8 = 0;
const MAX_INPUT_BYTES: usize = INPUT_CAPACITIES[INPUT_CAPACITIES.len() - 1];
const MAX_OUTPUTS: usize = OUTPUT_CAPACITIES[OUTPUT_CAPACITIES.len() - 1];

/// Binds a proof to one use of it: 32 bytes that are four words below p, each word one field element. Other bytes are refused, so that
/// two different nonces are never the same elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextNonce(Digest);

impl ContextNonce {
    /// No context.
    pub const ZERO: Self = Self(Digest::ZERO);

    /// From 32 bytes.
    ///
    /// # Errors
    /// A word of eight bytes, little end first, that is not below p.
    pub fn from_bytes(bytes: &[u8; DIGEST_BYTES]) -> Result<Self, DecodeError> {
        parse_digest(bytes).map(Self).map_err(|error| DecodeError { field: "context_nonce", ..error })
    }

    /// From a context of any length, such as a challenge or a contract's name: its hash.
    pub fn of_context(context: &[u8]) -> Self {
        Self(hash_bytes(context))
    }

    /// The 32 bytes.
    pub fn to_bytes(self) -> [u8; DIGEST_BYTES] {
        digest_bytes(self.0)
    }

    /// The four elements.
    pub fn digest(self) -> Digest {
        self.0
    }
}

/// The input of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatementInput {
    /// The input itself: whoever reads the statement recomputes its commitment, whose salt is zero.
    Public(Vec<u8>),
    /// A salted commitment.
    Committed(Digest),
}

/// What a proof states. The version is [`PROTOCOL_VERSION`](crate::recursion::digest::PROTOCOL_VERSION) and there is no predicate: other statements cannot be written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Which parameter set.
    pub parameters_id: Digest,
    /// Digest of the public program.
    pub program_digest: Digest,
    /// Commitment to program and private constants.
    pub model_commitment: Digest,
    /// The input, or its commitment.
    pub input: StatementInput,
    /// The output values, as the program computes them.
    pub outputs: Vec<i64>,
    /// The use that the proof is made for.
    pub context_nonce: ContextNonce,
}

impl Statement {
    /// The input commitment: the stated one, or that of the public input with salt 0.
    ///
    /// # Errors
    /// A public input that no boundary carries.
    pub fn input_commitment(&self) -> Result<Digest, SizeError> {
        match &self.input {
            StatementInput::Public(bytes) => input_commitment(bytes, Digest::ZERO),
            StatementInput::Committed(digest) => Ok(*digest),
        }
    }

    /// The output commitment, with salt 0.
    ///
    /// # Errors
    /// More outputs than any boundary carries, or none.
    pub fn output_commitment(&self) -> Result<Digest, SizeError> {
        let outputs: Vec<F> = self.outputs.iter().map(|&value| from_signed(value)).collect();
        output_commitment(&outputs, Digest::ZERO)
    }

    /// `H(TAG_STATEMENT; version, parameters id, program digest, model commitment, input commitment, output commitment, predicate 0, nonce)`:
    /// the public input of the outer proof.
    ///
    /// # Errors
    /// Input or output that no boundary carries.
    pub fn digest(&self) -> Result<Digest, SizeError> {
        let fields = StatementFields {
            parameters_id: self.parameters_id,
            program: self.program_digest,
            model: self.model_commitment,
            input: self.input_commitment()?,
            output: self.output_commitment()?,
            predicate: Digest::ZERO,
            context_nonce: self.context_nonce.digest(),
        };
        Ok(fields.digest())
    }
}

impl Canonical for Statement {
    const NAME: &'static str = "statement";
    const MAX_BYTES: usize = HEAD_BYTES + 5 * DIGEST_BYTES + 2 + 2 * 8 + MAX_INPUT_BYTES + 8 * MAX_OUTPUTS;

    fn write(&self, writer: &mut Writer) {
        writer.head(MAGIC, FORMAT_VERSION);
        writer.digest(self.parameters_id);
        writer.digest(self.program_digest);
        writer.digest(self.model_commitment);
        match &self.input {
            StatementInput::Public(bytes) => {
                writer.u8(INPUT_PUBLIC);
                writer.blob(bytes);
            }
            StatementInput::Committed(digest) => {
                writer.u8(INPUT_COMMITTED);
                writer.digest(*digest);
            }
        }
        writer.size(self.outputs.len());
        for &output in &self.outputs {
            writer.i64(output);
        }
        writer.u8(PREDICATE_NONE);
        writer.digest(self.context_nonce.digest());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.head(MAGIC, FORMAT_VERSION)?;
        let statement = Self {
            parameters_id: reader.digest("parameters_id")?,
            program_digest: reader.digest("program_digest")?,
            model_commitment: reader.digest("model_commitment")?,
            input: read_input(reader)?,
            outputs: reader.list("outputs", MAX_OUTPUTS, 8, read_output)?,
            context_nonce: {
                read_predicate(reader)?;
                ContextNonce(reader.digest("context_nonce")?)
            },
        };
        Ok(statement)
    }
}

fn read_input(reader: &mut Reader<'_>) -> Result<StatementInput, DecodeError> {
    match reader.u8("input kind")? {
        INPUT_PUBLIC => Ok(StatementInput::Public(reader.blob("input", MAX_INPUT_BYTES)?.to_vec())),
        INPUT_COMMITTED => Ok(StatementInput::Committed(reader.digest("input_commitment")?)),
        got => Err(reader.error("input kind", DecodeProblem::Value { got: got.into(), expected: "0 (public) or 1 (committed)" })),
    }
}

fn read_output(reader: &mut Reader<'_>) -> Result<i64, DecodeError> {
    let value = reader.i64("output")?;
    if value.unsigned_abs() >= OUTPUT_LIMIT.unsigned_abs() {
        let problem = DecodeProblem::Value { got: value as u64, expected: "between -2^62 and 2^62" };
        return Err(reader.error("output", problem));
    }
    Ok(value)
}

fn read_predicate(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    match reader.u8("predicate")? {
        PREDICATE_NONE => Ok(()),
        got => Err(reader.error("predicate", DecodeProblem::Value { got: got.into(), expected: "0 (none)" })),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn sample(input: StatementInput) -> Statement {
        Statement {
            parameters_id: hash_bytes(b"parameters"),
            program_digest: hash_bytes(b"program"),
            model_commitment: hash_bytes(b"model"),
            input,
            outputs: vec![-5, 0, 1 << 40],
            context_nonce: ContextNonce::of_context(b"test"),
        }
    }

    fn samples() -> [Statement; 2] {
        [sample(StatementInput::Public(vec![1, 2, 3])), sample(StatementInput::Committed(hash_bytes(b"input")))]
    }

    #[test]
    fn round_trips() {
        for statement in samples() {
            assert_eq!(Statement::from_bytes(&statement.to_bytes()), Ok(statement));
        }
    }

    #[test]
    fn every_field_changes_the_digest() {
        let statement = sample(StatementInput::Public(vec![1, 2, 3]));
        let changes: [fn(&mut Statement); 9] = [
            |s| s.parameters_id = s.program_digest,
            |s| s.program_digest = s.model_commitment,
            |s| s.model_commitment = s.parameters_id,
            |s| s.input = StatementInput::Public(vec![1, 2, 4]),
            |s| s.input = StatementInput::Committed(Digest::ZERO),
            |s| s.outputs[0] = 5,
            |s| s.outputs.swap(0, 1),
            |s| s.outputs.push(0),
            |s| s.context_nonce = ContextNonce::ZERO,
        ];
        for change in changes {
            let mut other = statement.clone();
            change(&mut other);
            assert_ne!(other.digest(), statement.digest());
        }
    }

    #[test]
    fn a_public_input_has_the_commitment_of_salt_zero() {
        let [public, _] = samples();
        let committed = sample(StatementInput::Committed(public.input_commitment().unwrap()));
        assert_eq!(public.digest(), committed.digest());
    }

    #[test]
    fn refuses_a_nonce_that_is_not_below_the_order() {
        let mut bytes = [0; 32];
        bytes[8..16].copy_from_slice(&crate::field::ORDER.to_le_bytes());
        let error = ContextNonce::from_bytes(&bytes).unwrap_err();
        assert_eq!((error.field, error.offset), ("context_nonce", 8));
        assert_eq!(ContextNonce::from_bytes(&ContextNonce::of_context(b"x").to_bytes()), Ok(ContextNonce::of_context(b"x")));
    }

    #[test]
    fn refuses_outputs_that_could_alias_and_predicates() {
        let mut statement = sample(StatementInput::Committed(Digest::ZERO));
        statement.outputs = vec![OUTPUT_LIMIT];
        assert_eq!(Statement::from_bytes(&statement.to_bytes()).unwrap_err().field, "output");
        statement.outputs = vec![1 - OUTPUT_LIMIT];
        let mut bytes = statement.to_bytes();
        assert_eq!(Statement::from_bytes(&bytes), Ok(statement));
        let at = bytes.len() - 33;
        bytes[at] = 1;
        assert_eq!(Statement::from_bytes(&bytes).unwrap_err().field, "predicate");
    }

    proptest! {
        // A changed byte is refused, or is another statement with another digest.
        #[test]
        fn changed_bytes_never_keep_the_digest(public in any::<bool>(), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let statement = samples()[usize::from(public)].clone();
            let mut bytes = statement.to_bytes();
            let index = at.index(bytes.len());
            bytes[index] ^= flip;
            if let Ok(other) = Statement::from_bytes(&bytes) {
                prop_assert_ne!(other.digest(), statement.digest());
            }
            prop_assert!(Statement::from_bytes(&bytes[..index]).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), with_head in any::<bool>()) {
            if with_head && bytes.len() >= 6 {
                bytes[..6].copy_from_slice(b"ZKST\x01\0");
            }
            if let Ok(statement) = Statement::from_bytes(&bytes) {
                prop_assert_eq!(statement.to_bytes(), bytes);
            }
        }
    }
}
