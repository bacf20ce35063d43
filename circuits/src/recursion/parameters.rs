//! A parameter set: everything that a verifier must know of the circuits, and its id.
//!
//! The sets of the profiles are committed in `circuits/params` and embedded, so that no verifier builds a circuit. The
//! command `zkinfer-params` rebuilds it from source, `zkinfer-params --check` compares.

use plonky2::field::types::Field;
use plonky2::plonk::circuit_data::{CommonCircuitData, VerifierCircuitData};
use thiserror::Error;

use crate::field::{C, D, Digest, F};
use crate::hash::{Tag, hash, hash_bytes};
use crate::recursion::digest::{PROTOCOL_VERSION, verifier_data_digest};
use crate::recursion::proof::{decode_digest, encode_digest};
use crate::recursion::registry::{Registry, RegistryError};
use crate::recursion::serialize::Gates;
use crate::security::{Profile, ProfileName, Security};

/// What a published proof is verified with.
pub type OuterKey = VerifierCircuitData<F, C, D>;

const MAGIC: [u8; 8] = *b"ZKIPARAM";
const FILE_VERSION: u32 = 1;
const CHECKSUM_BYTES: usize = 32;

/// The files of the profiles.
static DEFAULT_FILE: &[u8] = include_bytes!("../../params/default.bin");
static STRICT_FILE: &[u8] = include_bytes!("../../params/strict.bin");

/// A parameters file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParametersError {
    /// Damaged.
    #[error("the parameters file is damaged ({0}); rebuild it with `cargo run --release -p zkinfer-circuits --bin zkinfer-params`")]
    Damaged(&'static str),
    /// A list of leaf circuits that makes no registry.
    #[error("the leaf circuits make no registry")]
    Registry(#[from] RegistryError),
    /// A shape that plonky2 cannot write.
    #[error("plonky2 cannot serialize the common data of the {0} circuit")]
    Serialize(&'static str),
}

/// A parameter set.
#[derive(Clone, Debug)]
pub struct Parameters {
    profile: Profile,
    registry: Registry,
    join_digest: Digest,
    node_common_digest: Digest,
    outer: OuterKey,
    registration: OuterKey,
    id: Digest,
}

/// Digest of a circuit's shape: of the bytes that plonky2 writes for it.
///
/// # Errors
/// A gate outside our serializer.
pub fn common_digest(common: &CommonCircuitData<F, D>, name: &'static str) -> Result<Digest, ParametersError> {
    Ok(hash_bytes(&common_bytes(common, name)?))
}

fn common_bytes(common: &CommonCircuitData<F, D>, name: &'static str) -> Result<Vec<u8>, ParametersError> {
    common.to_bytes(&Gates).map_err(|_| ParametersError::Serialize(name))
}

impl Parameters {
    /// The parameter set of circuits that were built.
    ///
    /// # Errors
    /// A shape outside our serializer.
    pub fn new(
        profile: Profile,
        registry: Registry,
        join_digest: Digest,
        node_common_digest: Digest,
        outer: OuterKey,
        registration: OuterKey,
    ) -> Result<Self, ParametersError> {
        let id = Digest::ZERO;
        let mut parameters = Self { profile, registry, join_digest, node_common_digest, outer, registration, id };
        parameters.id = parameters.compute_id()?;
        Ok(parameters)
    }

    /// `H(TAG_PARAMETERS; version, profile numbers, registry root, J, digests of node common data and of both outer circuits)`.
    fn compute_id(&self) -> Result<Digest, ParametersError> {
        let mut list = vec![F::from_canonical_u64(PROTOCOL_VERSION)];
        list.extend(self.profile.numbers().into_iter().map(F::from_canonical_u64));
        let digests = [
            self.registry.root(),
            self.join_digest,
            self.node_common_digest,
            verifier_data_digest(&self.outer.verifier_only),
            common_digest(&self.outer.common, "outer")?,
            verifier_data_digest(&self.registration.verifier_only),
            common_digest(&self.registration.common, "registration outer")?,
        ];
        list.extend(digests.iter().flat_map(|digest| digest.elements));
        Ok(hash(Tag::Parameters, &list))
    }

    /// The id, named in every proof and statement.
    pub fn id(&self) -> Digest {
        self.id
    }

    /// The profile.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The figures of the profile.
    pub fn security(&self) -> Security {
        self.profile.security()
    }

    /// The registry of leaf circuits.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// J, the verifier-data digest of the join.
    pub fn join_digest(&self) -> Digest {
        self.join_digest
    }

    /// Digest of the common data of all nodes.
    pub fn node_common_digest(&self) -> Digest {
        self.node_common_digest
    }

    /// Key of inference proofs.
    pub fn outer(&self) -> &OuterKey {
        &self.outer
    }

    /// Key of registration proofs.
    pub fn registration(&self) -> &OuterKey {
        &self.registration
    }

    /// The built-in parameter set of a profile.
    ///
    /// # Errors
    /// A damaged file.
    pub fn embedded(name: ProfileName) -> Result<Self, ParametersError> {
        match name {
            ProfileName::Default => Self::from_bytes(DEFAULT_FILE),
            ProfileName::Strict => Self::from_bytes(STRICT_FILE),
        }
    }

    /// The parameters file: magic, version, profile, registry leaves, J, node common digest, both keys, id, checksum.
    ///
    /// # Errors
    /// A shape outside our serializer.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ParametersError> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(FILE_VERSION.to_le_bytes());
        bytes.push(self.profile.name() as u8);
        bytes.extend((self.registry.leaves().len() as u32).to_le_bytes());
        for leaf in self.registry.leaves() {
            bytes.extend(encode_digest(*leaf));
        }
        bytes.extend(encode_digest(self.join_digest));
        bytes.extend(encode_digest(self.node_common_digest));
        for (key, name) in [(&self.outer, "outer"), (&self.registration, "registration outer")] {
            let key = key.to_bytes(&Gates).map_err(|_| ParametersError::Serialize(name))?;
            bytes.extend((key.len() as u32).to_le_bytes());
            bytes.extend(key);
        }
        bytes.extend(encode_digest(self.id));
        let checksum = blake3::hash(&bytes);
        bytes.extend(checksum.as_bytes());
        Ok(bytes)
    }

    /// Reads a parameters file of a trusted source; what it holds is what proofs are checked against.
    ///
    /// # Errors
    /// Damage anywhere in the file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParametersError> {
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(ParametersError::Damaged("too short"))?;
        if blake3::hash(body) != *checksum {
            return Err(ParametersError::Damaged("wrong checksum"));
        }
        let mut reader = FileReader { rest: body };
        if reader.take::<8>()? != MAGIC || u32::from_le_bytes(reader.take()?) != FILE_VERSION {
            return Err(ParametersError::Damaged("another format"));
        }
        let profile = Profile::new(reader.profile()?);
        let n_leaves = u32::from_le_bytes(reader.take()?);
        let leaves: Result<Vec<Digest>, ParametersError> = (0..n_leaves).map(|_| reader.digest()).collect();
        let registry = Registry::new(leaves?)?;
        let (join_digest, node_common_digest) = (reader.digest()?, reader.digest()?);
        let (outer, registration) = (reader.key()?, reader.key()?);
        let id = reader.digest()?;
        let parameters = Self::new(profile, registry, join_digest, node_common_digest, outer, registration)?;
        if parameters.id != id || !reader.rest.is_empty() {
            return Err(ParametersError::Damaged("its id does not match its content"));
        }
        Ok(parameters)
    }
}

struct FileReader<'a> {
    rest: &'a [u8],
}

impl FileReader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], ParametersError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(ParametersError::Damaged("truncated"))?;
        self.rest = rest;
        Ok(*head)
    }

    fn digest(&mut self) -> Result<Digest, ParametersError> {
        decode_digest(self.take()?).ok_or(ParametersError::Damaged("a digest is not canonical"))
    }

    fn profile(&mut self) -> Result<ProfileName, ParametersError> {
        let [code] = self.take()?;
        [ProfileName::Default, ProfileName::Strict]
            .into_iter()
            .find(|&name| name as u8 == code)
            .ok_or(ParametersError::Damaged("unknown profile"))
    }

    fn key(&mut self) -> Result<OuterKey, ParametersError> {
        let length = u32::from_le_bytes(self.take()?) as usize;
        let (key, rest) = self.rest.split_at_checked(length).ok_or(ParametersError::Damaged("truncated"))?;
        self.rest = rest;
        OuterKey::from_bytes(key.to_vec(), &Gates).map_err(|_| ParametersError::Damaged("a verifier key is unreadable"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recursion::kinds::leaf_kinds;

    #[test]
    fn embedded_file_round_trips_and_names_every_leaf() {
        let parameters = Parameters::embedded(ProfileName::Default).unwrap();
        assert_eq!(parameters.to_bytes().unwrap(), DEFAULT_FILE);
        assert_eq!(parameters.registry().leaves().len(), leaf_kinds().len());
        assert_eq!(parameters.outer().common.num_public_inputs, 4);
        assert_eq!(Parameters::embedded(ProfileName::Strict).unwrap().profile().name(), ProfileName::Strict);
    }

    /// The figures that a verifier demands are computed from the profile: the keys must be what they are computed for.
    #[test]
    fn embedded_keys_have_the_parameters_of_their_profile() {
        for name in [ProfileName::Default, ProfileName::Strict] {
            let parameters = Parameters::embedded(name).unwrap();
            let config = parameters.profile().outer_config();
            for key in [parameters.outer(), parameters.registration()] {
                assert_eq!(key.common.config, config);
                assert_eq!(key.common.fri_params, config.fri_config.fri_params(key.common.degree_bits(), true));
            }
        }
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let truncated = &DEFAULT_FILE[..DEFAULT_FILE.len() - 1];
        assert_eq!(Parameters::from_bytes(truncated).unwrap_err(), ParametersError::Damaged("wrong checksum"));
        assert_eq!(Parameters::from_bytes(&[]).unwrap_err(), ParametersError::Damaged("too short"));
        let mut changed = DEFAULT_FILE.to_vec();
        changed[100] ^= 1;
        assert_eq!(Parameters::from_bytes(&changed).unwrap_err(), ParametersError::Damaged("wrong checksum"));
    }
}
