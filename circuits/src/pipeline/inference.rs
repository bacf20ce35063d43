//! One inference, from input bytes to a verified statement.

use super::PipelineError;
use super::aggregation::{IdentifiedLayer, LayerAggregator, aggregate, stages};
use super::model::CommittedModel;
use super::stage::{Observer, Stage, step};
use crate::backend::Backend;
use crate::columns::Columns;
use crate::field::{Digest, F, from_signed};
use crate::layer::LayerClaim;
use crate::layer::prover::{LinkedOracle, balance, commit_linked, prove};
use crate::ops::trace::main_columns;
use crate::recursion::boundary::BoundaryWitness;
use crate::recursion::digest::{Chains, GlobalChallenges, GlobalInputs, input_commitment, output_commitment};
use crate::recursion::layers::ProvedLayer;
use crate::recursion::outer::StatementWitness;
use crate::recursion::plan::plan;
use crate::recursion::salt::Salt;
use crate::recursion::verify::verify_outer;
use crate::statement::{ContextNonce, Statement, StatementInput};

/// What to prove.
#[derive(Clone, Copy, Debug)]
pub struct InferenceRequest<'a> {
    /// One byte an element.
    pub input: &'a [u8],
    /// Salt of the input commitment; [`Salt::NONE`] publishes the input.
    pub input_salt: Salt,
    /// The verifier's nonce.
    pub nonce: ContextNonce,
}

/// What an inference gives.
#[derive(Clone, Debug)]
pub struct ProvedInference {
    /// The readable statement.
    pub statement: Statement,
    /// The published proof.
    pub proof: Vec<u8>,
}

/// The evaluated network: tensors and main columns of every layer.
struct Evaluated {
    input: Vec<i64>,
    outputs: Vec<Vec<i64>>,
    columns: Vec<Columns>,
}

impl Evaluated {
    /// Tensor 0 is the input, k + 1 the output of layer k.
    fn tensor(&self, tensor: usize) -> &[i64] {
        match tensor.checked_sub(1) {
            None => &self.input,
            Some(layer) => &self.outputs[layer],
        }
    }
}

/// What was fixed before γ' and δ, and what they are.
struct Bound {
    input_commitment: Digest,
    output_commitment: Digest,
    challenges: GlobalChallenges,
}

/// Proves one inference and verifies the result.
///
/// # Errors
/// An input of another length or out of range, a failing backend, cancellation, or a proof that does not verify.
pub fn prove_inference<B: Backend>(
    backend: &B,
    aggregator: &LayerAggregator,
    model: &CommittedModel<B>,
    request: &InferenceRequest<'_>,
    observer: &dyn Observer,
) -> Result<ProvedInference, PipelineError> {
    let n_layers = model.layers.len();
    let kinds: Vec<_> = model.layers.iter().map(|layer| layer.spec.kind).collect();
    let boundary = model.program.boundary;
    let plan = plan(&kinds, boundary.n_inputs, boundary.n_outputs)?;
    let [leaves, joins] = stages(&plan);
    observer.plan(&[
        (Stage::Witness, 1),
        (Stage::Commit, n_layers),
        (Stage::Bind, 1),
        (Stage::Layer, n_layers),
        leaves,
        joins,
        (Stage::Outer, 1),
        (Stage::Verify, 1),
    ]);
    let evaluated = step(observer, Stage::Witness, 0, || evaluate(model, request.input))?;
    let mains = evaluated
        .columns
        .iter()
        .enumerate()
        .map(|(index, columns)| step(observer, Stage::Commit, index, || Ok(commit_linked(backend, &model.layers[index].shape, columns)?)))
        .collect::<Result<Vec<LinkedOracle<B>>, PipelineError>>()?;
    let bound = step(observer, Stage::Bind, 0, || bind(aggregator, model, request, &evaluated, &mains))?;
    let mut proved = Vec::with_capacity(n_layers);
    for (index, main) in mains.into_iter().enumerate() {
        proved.push(step(observer, Stage::Layer, index, || prove_layer(backend, model, &evaluated, &bound, index, &main))?);
    }
    let witness = BoundaryWitness {
        shape: boundary,
        input: request.input.to_vec(),
        input_salt: request.input_salt,
        output: output_elements(model, &evaluated),
        output_salt: Salt::NONE,
    };
    let root = aggregate(backend, aggregator, &plan, &proved, Some(&witness), bound.challenges, observer)?;
    let statement = statement(aggregator, model, request, &evaluated, &bound);
    let outer_witness = StatementWitness {
        parameters_id: aggregator.parameters().id(),
        model_salt: model.salt,
        boundary: model.boundary_digest,
        input: bound.input_commitment,
        output: bound.output_commitment,
        context_nonce: statement.context_nonce.digest(),
    };
    let proof = step(observer, Stage::Outer, 0, || Ok::<_, PipelineError>(aggregator.prove_outer(backend, &root, &outer_witness)?))?;
    step(observer, Stage::Verify, 0, || {
        let digest = statement.digest().map_err(|error| PipelineError::SelfCheck(error.to_string()))?;
        verify_outer(aggregator.parameters(), digest, &proof).map_err(|error| PipelineError::SelfCheck(error.to_string()))
    })?;
    Ok(ProvedInference { statement, proof })
}

fn evaluate<B: Backend>(model: &CommittedModel<B>, input: &[u8]) -> Result<Evaluated, PipelineError> {
    let boundary = model.program.boundary;
    if input.len() != boundary.n_inputs {
        return Err(PipelineError::InputLength { expected: boundary.n_inputs, got: input.len() });
    }
    let centered = input.iter().map(|&byte| i64::from(byte) - i64::from(boundary.input_offset)).collect();
    let mut evaluated = Evaluated { input: centered, outputs: Vec::new(), columns: Vec::new() };
    for (index, layer) in model.layers.iter().enumerate() {
        let inputs = layer_inputs(model, &evaluated, index);
        // Looked-up cells of an inference read the main oracle only.
        let no_weights = Columns::zero(layer.spec.kind.rows(), 0);
        let (columns, output) = main_columns(&layer.shape.system, &layer.spec, &layer.constants, &no_weights, inputs)
            .map_err(|source| PipelineError::Trace { layer: index, source })?;
        evaluated.columns.push(columns);
        evaluated.outputs.push(output);
    }
    Ok(evaluated)
}

fn layer_inputs<'a, B: Backend>(model: &CommittedModel<B>, evaluated: &'a Evaluated, layer: usize) -> [&'a [i64]; 2] {
    let mut inputs: [&[i64]; 2] = [&[], &[]];
    for (slot, &tensor) in inputs.iter_mut().zip(&model.wiring.reads[layer]) {
        *slot = evaluated.tensor(tensor);
    }
    inputs
}

fn output_values<'a, B: Backend>(model: &CommittedModel<B>, evaluated: &'a Evaluated) -> &'a [i64] {
    evaluated.tensor(model.wiring.output)
}

fn output_elements<B: Backend>(model: &CommittedModel<B>, evaluated: &Evaluated) -> Vec<F> {
    output_values(model, evaluated).iter().map(|&value| from_signed(value)).collect()
}

fn bind<B: Backend>(
    aggregator: &LayerAggregator,
    model: &CommittedModel<B>,
    request: &InferenceRequest<'_>,
    evaluated: &Evaluated,
    mains: &[LinkedOracle<B>],
) -> Result<Bound, PipelineError> {
    let mut chains = Chains::start();
    for (index, (layer, main)) in model.layers.iter().zip(mains).enumerate() {
        chains = chains.after(index, &layer.identity(main.link));
    }
    let input_commitment = input_commitment(request.input, request.input_salt.digest())?;
    let output_commitment = output_commitment(&output_elements(model, evaluated), Salt::NONE.digest())?;
    let inputs = GlobalInputs {
        parameters_id: aggregator.parameters().id(),
        model: model.commitment,
        program: model.program_digest,
        input: input_commitment,
        output: output_commitment,
        n_layers: mains.len(),
        main_chain: chains.main,
    };
    Ok(Bound { input_commitment, output_commitment, challenges: inputs.challenges() })
}

fn prove_layer<B: Backend>(
    backend: &B,
    model: &CommittedModel<B>,
    evaluated: &Evaluated,
    bound: &Bound,
    index: usize,
    main: &LinkedOracle<B>,
) -> Result<IdentifiedLayer, PipelineError> {
    let layer = &model.layers[index];
    let GlobalChallenges { gamma_prime, delta } = bound.challenges;
    let inputs = layer_inputs(model, evaluated, index);
    let claim = LayerClaim {
        theta: layer.theta.clone(),
        index,
        link_weights: layer.weights.link,
        link_main: main.link,
        gamma_prime,
        delta,
        balance: balance(&layer.shape, &layer.theta, gamma_prime, delta, inputs, &evaluated.outputs[index]),
    };
    let proof = prove(backend, &layer.shape, &claim, &layer.weights, main)?;
    Ok(IdentifiedLayer { identity: layer.identity(main.link), proved: ProvedLayer { theta: claim.theta, proof } })
}

fn statement<B: Backend>(
    aggregator: &LayerAggregator,
    model: &CommittedModel<B>,
    request: &InferenceRequest<'_>,
    evaluated: &Evaluated,
    bound: &Bound,
) -> Statement {
    let input = if request.input_salt == Salt::NONE {
        StatementInput::Public(request.input.to_vec())
    } else {
        StatementInput::Committed(bound.input_commitment)
    };
    Statement {
        parameters_id: aggregator.parameters().id(),
        program_digest: model.program_digest,
        model_commitment: model.commitment,
        input,
        outputs: output_values(model, evaluated).to_vec(),
        context_nonce: request.nonce,
    }
}
