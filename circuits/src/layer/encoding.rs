//! A layer proof in bytes: what one worker hands to another. As internal as the proof itself.
//!
//! Counts come with their lists, so that the bytes can be read without the layer's shape; a proof of another shape is refused where it is used.

use plonky2::field::polynomial::PolynomialCoeffs;
use plonky2::fri::proof::{FriInitialTreeProof, FriProof, FriQueryRound, FriQueryStep};
use plonky2::hash::merkle_proofs::MerkleProof;
use plonky2::hash::merkle_tree::MerkleCap;

use super::LayerProof;
use crate::encoding::{Canonical, DIGEST_BYTES, DecodeError, Reader, Writer};
use crate::field::{D, Digest, F, H, K, ext, limbs};

const MAGIC: &str = "ZKLP";
const FORMAT_VERSION: u16 = 1;
/// Most entries of any list: columns of a table, queries, digests of a cap.
const MAX_ENTRIES: usize = 1 << 16;
const ELEMENT_BYTES: usize = 8;
const EXTENSION_BYTES: usize = D * ELEMENT_BYTES;

/// Appends an element of K.
pub(crate) fn write_extension(writer: &mut Writer, value: K) {
    limbs(value).into_iter().for_each(|limb| writer.element(limb));
}

/// Reads [`write_extension`].
pub(crate) fn read_extension(reader: &mut Reader<'_>, field: &'static str) -> Result<K, DecodeError> {
    Ok(ext(reader.element(field)?, reader.element(field)?))
}

fn write_list<T>(writer: &mut Writer, items: &[T], write: impl Fn(&mut Writer, &T)) {
    writer.size(items.len());
    items.iter().for_each(|item| write(writer, item));
}

fn write_digests(writer: &mut Writer, digests: &[Digest]) {
    write_list(writer, digests, |writer, &digest| writer.digest(digest));
}

fn write_extensions(writer: &mut Writer, values: &[K]) {
    write_list(writer, values, |writer, &value| write_extension(writer, value));
}

fn read_digests(reader: &mut Reader<'_>, field: &'static str) -> Result<Vec<Digest>, DecodeError> {
    reader.list(field, MAX_ENTRIES, DIGEST_BYTES, |reader| reader.digest(field))
}

fn read_extensions(reader: &mut Reader<'_>, field: &'static str) -> Result<Vec<K>, DecodeError> {
    reader.list(field, MAX_ENTRIES, EXTENSION_BYTES, |reader| read_extension(reader, field))
}

fn read_cap(reader: &mut Reader<'_>, field: &'static str) -> Result<MerkleCap<F, H>, DecodeError> {
    read_digests(reader, field).map(MerkleCap)
}

fn read_path(reader: &mut Reader<'_>) -> Result<MerkleProof<F, H>, DecodeError> {
    read_digests(reader, "path").map(|siblings| MerkleProof { siblings })
}

fn write_query(writer: &mut Writer, query: &FriQueryRound<F, H, D>) {
    write_list(writer, &query.initial_trees_proof.evals_proofs, |writer, (leaf, path)| {
        write_list(writer, leaf, |writer, &element| writer.element(element));
        write_digests(writer, &path.siblings);
    });
    write_list(writer, &query.steps, |writer, step| {
        write_extensions(writer, &step.evals);
        write_digests(writer, &step.merkle_proof.siblings);
    });
}

fn read_query(reader: &mut Reader<'_>) -> Result<FriQueryRound<F, H, D>, DecodeError> {
    let evals_proofs = reader.list("leaves", MAX_ENTRIES, ELEMENT_BYTES, |reader| {
        let leaf = reader.list("leaf", MAX_ENTRIES, ELEMENT_BYTES, |reader| reader.element("leaf"))?;
        Ok((leaf, read_path(reader)?))
    })?;
    let steps = reader.list("folds", MAX_ENTRIES, ELEMENT_BYTES, |reader| {
        Ok(FriQueryStep { evals: read_extensions(reader, "fold")?, merkle_proof: read_path(reader)? })
    })?;
    Ok(FriQueryRound { initial_trees_proof: FriInitialTreeProof { evals_proofs }, steps })
}

impl Canonical for LayerProof {
    const NAME: &'static str = "layer proof";
    const MAX_BYTES: usize = 1 << 24;

    fn write(&self, writer: &mut Writer) {
        writer.head(MAGIC, FORMAT_VERSION);
        self.caps.iter().for_each(|cap| write_digests(writer, &cap.0));
        write_extension(writer, self.balance);
        self.openings.iter().for_each(|batch| write_extensions(writer, batch));
        write_list(writer, &self.fri.commit_phase_merkle_caps, |writer, cap| write_digests(writer, &cap.0));
        write_list(writer, &self.fri.query_round_proofs, write_query);
        write_extensions(writer, &self.fri.final_poly.coeffs);
        writer.element(self.fri.pow_witness);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.head(MAGIC, FORMAT_VERSION)?;
        let mut cap = || read_cap(reader, "cap");
        let caps = [cap()?, cap()?, cap()?, cap()?];
        let balance = read_extension(reader, "balance")?;
        let mut batch = || read_extensions(reader, "openings");
        let openings = [batch()?, batch()?, batch()?, batch()?, batch()?];
        let commit_phase_merkle_caps = reader.list("fold caps", MAX_ENTRIES, ELEMENT_BYTES, |reader| read_cap(reader, "fold cap"))?;
        let query_round_proofs = reader.list("queries", MAX_ENTRIES, ELEMENT_BYTES, read_query)?;
        let final_poly = PolynomialCoeffs::new(read_extensions(reader, "final polynomial")?);
        let fri = FriProof { commit_phase_merkle_caps, query_round_proofs, final_poly, pow_witness: reader.element("nonce")? };
        Ok(Self { caps, balance, openings, fri })
    }
}

#[cfg(test)]
mod tests {
    use plonky2::field::types::Field;

    use super::*;
    use crate::encoding::DecodeProblem;

    fn element(value: u64) -> F {
        F::from_canonical_u64(value)
    }

    fn digest(value: u64) -> Digest {
        Digest { elements: [element(value), element(value + 1), element(0), element(3)] }
    }

    fn extension(value: u64) -> K {
        ext(element(value), element(value + 7))
    }

    fn sample() -> LayerProof {
        let path = |length| MerkleProof { siblings: (0..length).map(digest).collect() };
        let query = |seed: u64| FriQueryRound {
            initial_trees_proof: FriInitialTreeProof { evals_proofs: vec![(vec![element(seed); 3], path(2)), (vec![], path(1))] },
            steps: vec![FriQueryStep { evals: vec![extension(seed); 4], merkle_proof: path(1) }],
        };
        LayerProof {
            caps: std::array::from_fn(|index| MerkleCap(vec![digest(index as u64); 2])),
            balance: extension(11),
            openings: std::array::from_fn(|index| vec![extension(index as u64); index]),
            fri: FriProof {
                commit_phase_merkle_caps: vec![MerkleCap(vec![digest(5)])],
                query_round_proofs: vec![query(1), query(2)],
                final_poly: PolynomialCoeffs::new(vec![extension(9); 2]),
                pow_witness: element(77),
            },
        }
    }

    #[test]
    fn proofs_come_back_and_their_bytes_are_the_only_ones() {
        let proof = sample();
        let bytes = proof.to_bytes();
        assert_eq!(LayerProof::from_bytes(&bytes).unwrap(), proof);
        for length in 0..bytes.len() {
            assert!(LayerProof::from_bytes(&bytes[..length]).is_err(), "cut to {length} bytes");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(LayerProof::from_bytes(&longer).unwrap_err().problem, DecodeProblem::Trailing { extra: 1 }));
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 0x80;
            assert!(LayerProof::from_bytes(&changed).ok().is_none_or(|other| other != proof), "byte {position}");
        }
    }
}
