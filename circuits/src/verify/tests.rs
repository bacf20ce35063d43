//! Tests of the order and the reasons of refusals. The parameter set here accepts as "proof" the digest itself.

use super::*;
use crate::encoding::digest_bytes;
use crate::hash::hash_bytes;
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct DigestIsProof;

fn other_digest() -> ProofRefusal {
    ProofRefusal::Invalid { reason: "another digest".into() }
}

fn compare(digest: Digest, proof: &[u8]) -> Result<(), ProofRefusal> {
    if proof == digest_bytes(digest) { Ok(()) } else { Err(other_digest()) }
}

impl ParameterSet for DigestIsProof {
    fn id(&self) -> Digest {
        hash_bytes(b"parameters")
    }

    fn profile(&self) -> ProfileName {
        ProfileName::Default
    }

    fn security(&self) -> Security {
        Security { heuristic_bits: 101.5, proven_bits: 60.25, permutation_bits: 89.5 }
    }

    fn kind_digest(&self, kind: &LayerKind) -> Option<Digest> {
        (kind.log_rows != 9).then(|| hash_bytes(format!("{kind:?}").as_bytes()))
    }

    fn verify_outer(&self, statement: Digest, proof: &[u8]) -> Result<(), ProofRefusal> {
        compare(statement, proof)
    }

    fn verify_registration(&self, registration: Digest, proof: &[u8]) -> Result<(), ProofRefusal> {
        compare(registration, proof)
    }
}

struct Case {
    key: VerifierKey,
    statement: Statement,
    acceptable: AcceptableParams<DigestIsProof>,
    proof: Vec<u8>,
}

impl Case {
    fn honest() -> Self {
        let mut key = crate::key::tests::sample();
        let program = program_digest(&key, &DigestIsProof).unwrap();
        key.registration_proof = digest_bytes(key.registration_digest(program)).to_vec();
        let mut statement = crate::statement::tests::sample(StatementInput::Public(vec![3; 30]));
        statement.program_digest = program;
        statement.outputs = vec![-7, 0, 9];
        let proof = digest_bytes(statement.digest().unwrap()).to_vec();
        let acceptable = AcceptableParams {
            parameter_sets: vec![DigestIsProof],
            min_security: SecurityFloor::default(),
            context_nonce: statement.context_nonce,
        };
        Self { key, statement, acceptable, proof }
    }

    fn verify(&self) -> Result<(), VerifyError> {
        verify(&self.key, &self.statement, &self.acceptable, &self.proof)
    }
}

fn refusal(change: impl FnOnce(&mut Case)) -> VerifyError {
    let mut case = Case::honest();
    change(&mut case);
    case.verify().unwrap_err()
}

#[test]
fn accepts_the_honest_case() {
    let case = Case::honest();
    assert_eq!(case.verify(), Ok(()));
    let documents = verify_bytes(&case.key.to_bytes(), &case.statement.to_bytes(), &case.acceptable, &case.proof);
    assert_eq!(documents, Ok((case.key, case.statement)));
}

#[test]
fn refuses_parameters_that_are_not_accepted() {
    let id = DigestIsProof.id();
    assert_eq!(refusal(|case| case.acceptable.parameter_sets.clear()), VerifyError::UnknownParameters { got: id, accepted: vec![] });
    assert_eq!(
        refusal(|case| case.key.parameters_id = Digest::ZERO),
        VerifyError::UnknownParameters { got: Digest::ZERO, accepted: vec![id] }
    );
    assert_eq!(
        refusal(|case| case.statement.parameters_id = Digest::ZERO),
        VerifyError::OtherParameters { expected: id, got: Digest::ZERO }
    );
    let expected = VerifyError::Profile { expected: ProfileName::Default, got: ProfileName::Strict };
    assert_eq!(refusal(|case| case.key.profile = ProfileName::Strict), expected);
}

#[test]
fn refuses_parameters_below_the_callers_demand() {
    let weak = |heuristic_bits, proven_bits| refusal(|case| case.acceptable.min_security = SecurityFloor { heuristic_bits, proven_bits });
    let expected = |figure, bound_by, got, required| VerifyError::WeakParameters(WeakParameters { figure, bound_by, got, required });
    assert_eq!(weak(89.5, 60.26), expected("proven", "FRI", 60.25, 60.26));
    assert_eq!(weak(100.0, 60.25), expected("heuristic", "the permutation argument", 89.5, 100.0));
    assert_eq!(weak(100.0, 60.25).reason(), "WEAK_PARAMETERS");
    let mut case = Case::honest();
    case.acceptable.min_security = SecurityFloor { heuristic_bits: 89.5, proven_bits: 60.25 };
    assert_eq!(case.verify(), Ok(()));
    // A demand comes before everything that is proved, and after the list of parameter sets.
    case.acceptable.min_security.proven_bits = 90.0;
    case.key.registration_proof.clear();
    assert_eq!(case.verify().unwrap_err().reason(), "WEAK_PARAMETERS");
    case.acceptable.parameter_sets.clear();
    assert_eq!(case.verify().unwrap_err().reason(), "UNKNOWN_PARAMETERS");
}

#[test]
fn refuses_invalid_programs_and_unknown_kinds() {
    assert_eq!(refusal(|case| case.key.program.layers.clear()), VerifyError::Program(ProgramError::LayerCount { got: 0 }));
    let error = refusal(|case| {
        case.key.program.layers[1].kind.log_rows = 9;
    });
    let kind = LayerKind { log_rows: 9, ..Case::honest().key.program.layers[1].kind };
    assert_eq!(error, VerifyError::UnknownKind { layer: 1, kind });
}

#[test]
fn refuses_an_unregistered_model() {
    let unregistered = VerifyError::Unregistered(other_digest());
    assert_eq!(refusal(|case| case.key.registration_proof.clear()), unregistered);
    assert_eq!(refusal(|case| case.key.model_commitment = Digest::ZERO), unregistered);
    assert_eq!(refusal(|case| case.key.program.layers[0].mult_bits += 1), unregistered);
}

#[test]
fn names_another_model() {
    let honest = Case::honest();
    let (program, model) = (honest.statement.program_digest, honest.key.model_commitment);
    assert_eq!(
        refusal(|case| case.statement.program_digest = Digest::ZERO),
        VerifyError::OtherProgram { expected: program, got: Digest::ZERO }
    );
    assert_eq!(
        refusal(|case| case.statement.model_commitment = Digest::ZERO),
        VerifyError::OtherModel { expected: model, got: Digest::ZERO }
    );
}

#[test]
fn refuses_inputs_and_outputs_that_the_model_cannot_have() {
    assert_eq!(
        refusal(|case| case.statement.input = StatementInput::Public(vec![3; 29])),
        VerifyError::InputLength { expected: 30, got: 29 }
    );
    assert_eq!(refusal(|case| case.statement.outputs.push(0)), VerifyError::OutputLength { expected: 3, got: 4 });
    let max = 12 * 127 * 128 + (1 << 16);
    assert_eq!(refusal(|case| case.statement.outputs[1] = max + 1), VerifyError::OutputRange { index: 1, got: max + 1, min: -max, max });
}

#[test]
fn refuses_a_proof_for_another_use() {
    let got = Case::honest().statement.context_nonce;
    let expected = ContextNonce::of_context(b"mine");
    assert_eq!(refusal(|case| case.acceptable.context_nonce = expected), VerifyError::Nonce { expected, got });
}

#[test]
fn refuses_changed_outputs_inputs_and_proofs() {
    let refused = VerifyError::Proof(other_digest());
    assert_eq!(refusal(|case| case.statement.outputs[0] += 1), refused);
    assert_eq!(refusal(|case| case.statement.input = StatementInput::Public(vec![4; 30])), refused);
    assert_eq!(refusal(|case| case.statement.input = StatementInput::Committed(Digest::ZERO)), refused);
    assert_eq!(refusal(|case| case.proof.push(0)), refused);
    assert_eq!(refused.reason(), "PROOF_INVALID");
}

proptest! {
    #[test]
    fn changed_documents_are_never_accepted(document in 0usize..3, at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<bool>()) {
        let case = Case::honest();
        let mut documents = [case.key.to_bytes(), case.statement.to_bytes(), case.proof.clone()];
        let changed = &mut documents[document];
        let index = at.index(changed.len());
        if cut { changed.truncate(index) } else { changed[index] ^= flip }
        let [key, statement, proof] = &documents;
        // Display information (two tensors, the last 98 bytes of this key) is bound by nothing.
        let display = document == 0 && !cut && index >= case.key.to_bytes().len() - 98;
        prop_assert!(display || verify_bytes(key, statement, &case.acceptable, proof).is_err());
    }
}
