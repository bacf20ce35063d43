//! The parameter sets of the recursion, as a verifier uses them.

use super::{ParameterSet, ProofRefusal};
use crate::field::Digest;
use crate::kind::{LayerKind, Role};
use crate::layer::LayerShape;
use crate::recursion::kinds::LAYER_KINDS;
use crate::recursion::parameters::Parameters;
use crate::recursion::verify::{verify_outer, verify_registration};
use crate::security::{ProfileName, Security};

impl ParameterSet for Parameters {
    fn id(&self) -> Digest {
        Parameters::id(self)
    }

    fn profile(&self) -> ProfileName {
        Parameters::profile(self).name()
    }

    fn security(&self) -> Security {
        Parameters::security(self)
    }

    fn kind_digest(&self, kind: &LayerKind) -> Option<Digest> {
        let config = Parameters::profile(self).layer_fri(kind.log_rows);
        // The digest is the same for both roles.
        LAYER_KINDS.contains(kind).then(|| LayerShape::new(*kind, Role::Inference, &config).kind_digest)
    }

    fn verify_outer(&self, statement: Digest, proof: &[u8]) -> Result<(), ProofRefusal> {
        verify_outer(self, statement, proof)
    }

    fn verify_registration(&self, registration: Digest, proof: &[u8]) -> Result<(), ProofRefusal> {
        verify_registration(self, registration, proof)
    }
}
