//! Committed models: from memory, or from their private bytes and the cache, and then checked against what they were registered as.

use std::sync::Arc;

use zkinfer_circuits::backend::Backend;
use zkinfer_circuits::encoding::Canonical as _;
use zkinfer_circuits::key::VerifierKey;
use zkinfer_circuits::pipeline::{CommittedModel, ModelSecret, Unobserved};
use zkinfer_circuits::recursion::prover::{CircuitStore, NoStore};
use zkinfer_kernels::CpuBackend;

use super::local::{LocalProver, describe, failed, failure};
use super::places::Place;
use super::store::Anew;
use super::{ModelMaterial, ProverError};

impl<B: Backend> LocalProver<B> {
    /// The committed model, from memory if it was used lately.
    ///
    /// A model with another commitment than its verifier key's is of no use: nobody would accept its proofs. If the cache gave it, it is committed again
    /// without the cache. If that gives another still, the CPU tells whether the device or what is stored is at fault.
    pub(super) fn model(&self, place: &Place<B>, material: &dyn ModelMaterial) -> Result<Arc<CommittedModel<B>>, ProverError> {
        let id = material.id();
        if let Some(model) = place.model(id) {
            return Ok(model);
        }
        let private = material.private()?;
        let key = VerifierKey::from_bytes(&material.verifier_key()?).map_err(|error| ProverError::Storage(describe(&error)))?;
        self.check_parameters(&key)?;
        let commit = |store: &dyn CircuitStore| {
            let secret = ModelSecret::from_secret_bytes(&private).map_err(failure)?;
            CommittedModel::commit(&place.backend, secret, store, &Unobserved).map_err(|error| failed(place, error))
        };
        let mut model = commit(&self.store)?;
        if model.commitment != key.model_commitment {
            tracing::warn!("a model does not have the commitment of its verifier key; its weights are committed without the cache");
            model = commit(&Anew(&self.store))?;
        }
        if model.commitment != key.model_commitment {
            self.forget_oracles(&model);
            return Err(whose_fault(&private, &key));
        }
        let model = Arc::new(model);
        place.remember(id, &model);
        Ok(model)
    }

    /// What was made with a model does not verify: the next attempt commits it again, whatever is in memory and in the cache.
    pub(super) fn distrust(&self, place: &Place<B>, model: &CommittedModel<B>) {
        place.forget();
        self.forget_oracles(model);
    }

    fn forget_oracles(&self, model: &CommittedModel<B>) {
        model.oracle_names().for_each(|name| self.store.remove(&name));
    }
}

/// Why a model that was committed anew has not the commitment of its key: what the CPU makes of it tells.
fn whose_fault(private: &[u8], key: &VerifierKey) -> ProverError {
    let on_cpu = ModelSecret::from_secret_bytes(private)
        .and_then(|secret| CommittedModel::commit(&CpuBackend::new(), secret, &NoStore, &Unobserved))
        .map(|model| model.commitment);
    match on_cpu {
        Ok(commitment) if commitment == key.model_commitment => {
            ProverError::ProofInvalid("the device does not give the commitment of the model, which the CPU gives".to_owned())
        }
        Ok(_) => {
            let message = "the model's private bytes do not give the commitment of its verifier key; register the model again";
            ProverError::Storage(message.to_owned())
        }
        Err(error) => failure(error),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use zeroize::Zeroizing;
    use zkinfer_circuits::columns::Columns;
    use zkinfer_circuits::compile::{Compiled, compile};
    use zkinfer_circuits::recursion::parameters::Parameters;
    use zkinfer_circuits::recursion::salt::Salt;
    use zkinfer_circuits::security::ProfileName;
    use zkinfer_kernels::faulty::{Fault, FaultSwitch, FaultyBackend, Spoilers};

    use super::super::local::quantized;
    use super::super::{DigestBytes, Prover as _, Quantization, Rejection};
    use super::*;

    struct Material {
        private: Zeroizing<Vec<u8>>,
        key: VerifierKey,
    }

    impl ModelMaterial for Material {
        fn id(&self) -> DigestBytes {
            *blake3::hash(&self.private).as_bytes()
        }

        fn private(&self) -> Result<Zeroizing<Vec<u8>>, ProverError> {
            Ok(self.private.clone())
        }

        fn verifier_key(&self) -> Result<Vec<u8>, ProverError> {
            Ok(self.key.to_bytes())
        }
    }

    /// A bundled network as it is stored, but for the proof of its registration.
    fn material() -> Material {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mlp-breast-cancer/model_uint8_per_channel_qdq.onnx");
        let options = Quantization { per_channel: true, percentile: None };
        let (graph, _) = quantized(&std::fs::read(file).unwrap(), None, options).unwrap();
        let Compiled { program, constants, input, output } = compile(&graph).unwrap();
        let secret = ModelSecret { profile: ProfileName::Default, program: program.clone(), constants, salt: Salt::NONE };
        let private = secret.to_secret_bytes();
        let key = VerifierKey {
            profile: ProfileName::Default,
            parameters_id: Parameters::embedded(ProfileName::Default).unwrap().id(),
            program,
            model_commitment: CommittedModel::commit(&CpuBackend::new(), secret, &NoStore, &Unobserved).unwrap().commitment,
            registration_proof: Vec::new(),
            input,
            output,
        };
        Material { private, key }
    }

    fn prover(cache: &Path) -> LocalProver<CpuBackend> {
        LocalProver::new(CpuBackend::new(), "a test".to_owned(), cache).unwrap()
    }

    /// The cached oracles' files, and what is in them.
    fn oracles(cache: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
        let files = std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path());
        let mut oracles: Vec<_> = files
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("weights-"))
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect();
        oracles.sort();
        oracles
    }

    /// Another cap over the same values, with the checksum of that.
    fn with_another_cap(oracle: &[u8]) -> Vec<u8> {
        let mut content = oracle[..oracle.len() - blake3::OUT_LEN].to_vec();
        let last = content.len() - 8;
        content[last] ^= 1;
        let mut hasher = blake3::Hasher::new();
        for chunk in content.chunks(1 << 17) {
            hasher.update(blake3::hash(chunk).as_bytes());
        }
        [&content[..], hasher.finalize().as_bytes()].concat()
    }

    #[test]
    fn a_cache_that_gives_another_commitment_is_left_out_and_mended() {
        let (folder, material) = (tempfile::tempdir().unwrap(), material());
        let commitment = |prover: &LocalProver<CpuBackend>| prover.model(&prover.places.take(None), &material).unwrap().commitment;
        assert_eq!(commitment(&prover(folder.path())), material.key.model_commitment);
        let good = oracles(folder.path());
        assert!(!good.is_empty());
        for (path, bytes) in &good {
            std::fs::write(path, with_another_cap(bytes)).unwrap();
        }
        assert_eq!(commitment(&prover(folder.path())), material.key.model_commitment);
        assert!(oracles(folder.path()) == good, "the cache is as it was");
    }

    type Device = FaultyBackend<CpuBackend>;

    /// A device whose commitments are those of zeros, of the right sizes.
    fn wrong_device(switch: &FaultSwitch) -> Device {
        let spoilers = Spoilers::<CpuBackend> {
            oracle: |oracle| {
                let cpu = CpuBackend::new();
                let sizes = cpu.sizes(oracle);
                *oracle = cpu.commit(&Columns::zero(1 << sizes.log_rows, sizes.n_columns), sizes.shape).unwrap();
            },
            combination: |_| {},
            codeword: |_| {},
            fold_tree: |_| {},
        };
        FaultyBackend::with_spoilers(CpuBackend::new(), switch.clone(), spoilers)
    }

    #[test]
    fn a_device_that_commits_wrongly_is_blamed_and_leaves_nothing_in_the_cache() {
        let (folder, material, switch) = (tempfile::tempdir().unwrap(), material(), FaultSwitch::default());
        let prover: LocalProver<Device> = LocalProver::new(wrong_device(&switch), "a test".to_owned(), folder.path()).unwrap();
        switch.spoil_all("commit");
        let refused = prover.model(&prover.places.take(None), &material).map(drop);
        assert!(matches!(&refused, Err(ProverError::ProofInvalid(message)) if message.contains("device")), "{refused:?}");
        assert!(prover.places.cached().is_empty() && oracles(folder.path()).is_empty());
        // A single mistake costs time only.
        let (folder, switch) = (tempfile::tempdir().unwrap(), FaultSwitch::default());
        let prover: LocalProver<Device> = LocalProver::new(wrong_device(&switch), "a test".to_owned(), folder.path()).unwrap();
        switch.fail_at("commit", Fault::Wrong);
        let model = prover.model(&prover.places.take(None), &material).unwrap();
        assert_eq!(model.commitment, material.key.model_commitment);
    }

    #[test]
    fn what_does_not_verify_is_committed_again_wherever_it_came_from() {
        let (folder, material) = (tempfile::tempdir().unwrap(), material());
        let prover = prover(folder.path());
        prover.model(&prover.places.take(None), &material).unwrap();
        assert!(!oracles(folder.path()).is_empty());
        prover.doubt([0; 32]);
        assert_eq!((prover.places.cached(), oracles(folder.path()).is_empty()), (vec![material.id()], false), "another model");
        prover.doubt(material.id());
        assert!(prover.places.cached().is_empty() && oracles(folder.path()).is_empty());
    }

    #[test]
    fn a_model_of_other_parameters_is_refused_before_anything_is_done() {
        let (folder, mut material) = (tempfile::tempdir().unwrap(), material());
        material.key.parameters_id = material.key.model_commitment;
        let prover = prover(folder.path());
        let refused = prover.model(&prover.places.take(None), &material).map(drop);
        assert!(matches!(&refused, Err(ProverError::Rejected { rejection: Rejection::ModelInvalid, .. })), "{refused:?}");
    }

    #[test]
    fn private_bytes_of_another_model_than_the_keys_are_refused() {
        let (folder, mut material) = (tempfile::tempdir().unwrap(), material());
        let mut secret = ModelSecret::from_secret_bytes(&material.private).unwrap();
        secret.salt = Salt::fresh().unwrap();
        material.private = secret.to_secret_bytes();
        let prover = prover(folder.path());
        let refused = prover.model(&prover.places.take(None), &material).map(drop);
        assert!(matches!(&refused, Err(ProverError::Storage(message)) if message.contains("verifier key")), "{refused:?}");
        assert!(prover.places.cached().is_empty(), "it is not kept");
    }
}
