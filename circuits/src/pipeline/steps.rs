//! The steps of one inference, each a function from values to a value. [`super::prove_inference`] runs them one after another in memory,
//! [`super::tasks`] one at a time from bytes to bytes.

use super::PipelineError;
use super::aggregation::LayerAggregator;
use super::inference::{InferenceRequest, ProvedInference};
use super::model::CommittedModel;
use crate::backend::Backend;
use crate::columns::Columns;
use crate::field::{Digest, F, from_signed};
use crate::layer::LayerClaim;
use crate::layer::prover::{LinkedOracle, balance, commit_linked, prove};
use crate::layer::verify;
use crate::ops::trace::main_columns;
use crate::recursion::boundary::BoundaryWitness;
use crate::recursion::digest::{Chains, GlobalChallenges, GlobalInputs, input_commitment, output_commitment};
use crate::recursion::layers::ProvedLayer;
use crate::recursion::outer::StatementWitness;
use crate::recursion::plan::{NodePlan, plan};
use crate::recursion::prover::NodeProof;
use crate::recursion::salt::Salt;
use crate::recursion::verify::verify_outer;
use crate::statement::{Statement, StatementInput};

/// The tensors of an evaluated network: tensor 0 is the centered input, k + 1 the output of layer k.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tensors(pub(super) Vec<Vec<i64>>);

/// What was fixed before γ' and δ, and what they are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bound {
    pub(super) input_commitment: Digest,
    pub(super) output_commitment: Digest,
    /// Of each layer's main oracle.
    pub(super) links: Vec<Digest>,
    pub(super) challenges: GlobalChallenges,
}

/// One inference of a committed model.
pub(super) struct Inference<'a, B: Backend> {
    pub(super) backend: &'a B,
    pub(super) aggregator: &'a LayerAggregator,
    pub(super) model: &'a CommittedModel<B>,
    pub(super) request: InferenceRequest<'a>,
    pub(super) plan: Vec<NodePlan>,
}

impl<'a, B: Backend> Inference<'a, B> {
    /// Plans the leaves.
    pub(super) fn new(
        backend: &'a B,
        aggregator: &'a LayerAggregator,
        model: &'a CommittedModel<B>,
        request: InferenceRequest<'a>,
    ) -> Result<Self, PipelineError> {
        let boundary = model.program.boundary;
        let plan = plan(&model.program.kinds(), boundary.n_inputs, boundary.n_outputs)?;
        Ok(Self { backend, aggregator, model, request, plan })
    }

    /// Evaluates the network: its tensors, and the main columns of every layer.
    pub(super) fn evaluate(&self) -> Result<(Tensors, Vec<Columns>), PipelineError> {
        let boundary = self.model.program.boundary;
        let input = self.request.input;
        if input.len() != boundary.n_inputs {
            return Err(PipelineError::InputLength { expected: boundary.n_inputs, got: input.len() });
        }
        let centered = input.iter().map(|&byte| i64::from(byte) - i64::from(boundary.input_offset)).collect();
        let mut tensors = Tensors(vec![centered]);
        let mut all_columns = Vec::with_capacity(self.model.layers.len());
        for index in 0..self.model.layers.len() {
            let (columns, output) = self.columns(&tensors, index)?;
            all_columns.push(columns);
            tensors.0.push(output);
        }
        Ok((tensors, all_columns))
    }

    /// Main columns of a layer and its output, from the tensors before it.
    pub(super) fn columns(&self, tensors: &Tensors, index: usize) -> Result<(Columns, Vec<i64>), PipelineError> {
        let layer = &self.model.layers[index];
        // Looked-up cells of an inference read the main oracle only.
        let no_weights = Columns::zero(layer.spec.kind.rows(), 0);
        main_columns(&layer.shape.system, &layer.spec, &layer.constants, &no_weights, self.layer_inputs(tensors, index))
            .map_err(|source| PipelineError::Trace { layer: index, source })
    }

    /// Commits the main columns of a layer.
    pub(super) fn commit(&self, columns: &Columns, index: usize) -> Result<LinkedOracle<B>, PipelineError> {
        Ok(commit_linked(self.backend, &self.model.layers[index].shape, columns)?)
    }

    /// γ' and δ, after all commitments.
    pub(super) fn bind(&self, tensors: &Tensors, links: Vec<Digest>) -> Result<Bound, PipelineError> {
        let input_commitment = input_commitment(self.request.input, self.request.input_salt.digest())?;
        let output_commitment = output_commitment(&self.output_elements(tensors), Salt::NONE.digest())?;
        let inputs = GlobalInputs {
            parameters_id: self.aggregator.parameters().id(),
            model: self.model.commitment,
            program: self.model.program_digest,
            input: input_commitment,
            output: output_commitment,
            n_layers: links.len(),
            main_chain: self.chains(&links).main,
        };
        Ok(Bound { input_commitment, output_commitment, links, challenges: inputs.challenges() })
    }

    /// The chains after the first layers, whose main oracles have these links.
    pub(super) fn chains(&self, links: &[Digest]) -> Chains {
        let layers = self.model.layers.iter().zip(links).enumerate();
        layers.fold(Chains::start(), |chains, (index, (layer, &link))| chains.after(index, &layer.identity(link)))
    }

    /// Proves a layer.
    pub(super) fn prove_layer(
        &self,
        tensors: &Tensors,
        bound: &Bound,
        index: usize,
        main: &LinkedOracle<B>,
    ) -> Result<ProvedLayer, PipelineError> {
        let layer = &self.model.layers[index];
        let claim = self.claim(tensors, bound, index);
        let proof = prove(self.backend, &layer.shape, &claim, &layer.weights, main)?;
        Ok(ProvedLayer { theta: claim.theta, proof })
    }

    /// Verifies a layer proof that is about to be handed on.
    pub(super) fn verify_layer(&self, tensors: &Tensors, bound: &Bound, index: usize, proved: &ProvedLayer) -> Result<(), PipelineError> {
        let claim = self.claim(tensors, bound, index);
        verify(&self.model.layers[index].shape, &claim, &proved.proof)
            .map_err(|error| PipelineError::SelfCheck(format!("layer {index}: {error}")))
    }

    /// What the proof of a layer shows.
    fn claim(&self, tensors: &Tensors, bound: &Bound, index: usize) -> LayerClaim {
        let layer = &self.model.layers[index];
        let GlobalChallenges { gamma_prime, delta } = bound.challenges;
        let inputs = self.layer_inputs(tensors, index);
        LayerClaim {
            theta: layer.theta.clone(),
            index,
            link_weights: layer.weights.link,
            link_main: bound.links[index],
            gamma_prime,
            delta,
            balance: balance(&layer.shape, &layer.theta, gamma_prime, delta, inputs, &tensors.0[index + 1]),
        }
    }

    /// What a leaf proves of input and output.
    pub(super) fn boundary(&self, tensors: &Tensors) -> BoundaryWitness {
        BoundaryWitness {
            shape: self.model.program.boundary,
            input: self.request.input.to_vec(),
            input_salt: self.request.input_salt,
            output: self.output_elements(tensors),
            output_salt: Salt::NONE,
        }
    }

    /// The statement of the inference.
    pub(super) fn statement(&self, tensors: &Tensors, bound: &Bound) -> Statement {
        let input = if self.request.input_salt == Salt::NONE {
            StatementInput::Public(self.request.input.to_vec())
        } else {
            StatementInput::Committed(bound.input_commitment)
        };
        Statement {
            parameters_id: self.aggregator.parameters().id(),
            program_digest: self.model.program_digest,
            model_commitment: self.model.commitment,
            input,
            outputs: tensors.0[self.model.wiring.output].clone(),
            context_nonce: self.request.nonce,
        }
    }

    /// The published proof, not yet verified.
    pub(super) fn outer(&self, tensors: &Tensors, bound: &Bound, root: &NodeProof) -> Result<ProvedInference, PipelineError> {
        let statement = self.statement(tensors, bound);
        let witness = StatementWitness {
            parameters_id: statement.parameters_id,
            model_salt: self.model.salt,
            boundary: self.model.boundary_digest,
            input: bound.input_commitment,
            output: bound.output_commitment,
            context_nonce: statement.context_nonce.digest(),
        };
        let proof = self.aggregator.prove_outer(self.backend, root, &witness)?;
        Ok(ProvedInference { statement, proof })
    }

    /// Verifies what is about to be handed out.
    pub(super) fn verify(&self, proved: &ProvedInference) -> Result<(), PipelineError> {
        let digest = proved.statement.digest().map_err(|error| PipelineError::SelfCheck(error.to_string()))?;
        verify_outer(self.aggregator.parameters(), digest, &proved.proof).map_err(|error| PipelineError::SelfCheck(error.to_string()))
    }

    fn layer_inputs<'t>(&self, tensors: &'t Tensors, layer: usize) -> [&'t [i64]; 2] {
        let mut inputs: [&[i64]; 2] = [&[], &[]];
        for (slot, &tensor) in inputs.iter_mut().zip(&self.model.wiring.reads[layer]) {
            *slot = &tensors.0[tensor];
        }
        inputs
    }

    fn output_elements(&self, tensors: &Tensors) -> Vec<F> {
        tensors.0[self.model.wiring.output].iter().map(|&value| from_signed(value)).collect()
    }
}
