//! Messages that carry salts and seeds print the name of what they are about, and nothing else.

use std::fmt;

use crate::v1;

impl fmt::Debug for v1::RegisterWork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = self.model.as_ref().map_or("", |model| model.name.as_str());
        formatter.debug_struct("RegisterWork").field("model", &model).finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::ProofWork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let job = self.job.as_ref().map_or("", |job| job.name.as_str());
        formatter.debug_struct("ProofWork").field("job", &job).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salts_and_seeds_are_not_printed() {
        let register = v1::RegisterWork { model: None, salt: vec![201; 32], seed: vec![202; 32] };
        let proof = v1::ProofWork { input_salt: vec![203; 32], seed: vec![204; 32], private_digest: vec![205; 32], ..Default::default() };
        let step = v1::StepWork { proof: Some(proof.clone()), inputs: Vec::new() };
        let lease = v1::LeasedTask { work: Some(v1::leased_task::Work::Step(step)), ..Default::default() };
        let text = format!("{register:?} {proof:?} {lease:?}");
        assert!(!text.contains("20"), "{text}");
    }
}
