//! Framing of the hash: plonky2's sponge pads nothing, so that lists of different lengths would collide without tag and length in front.

use std::collections::HashMap;

use plonky2::field::types::{Field, PrimeField64};
use plonky2::plonk::config::Hasher;
use zkinfer_circuits::field::{Digest, F, H};
use zkinfer_circuits::hash::{Tag, hash};
use zkinfer_circuits::recursion::digest::{Chains, LayerIdentity, program_digest};

fn elements(values: &[u64]) -> Vec<F> {
    values.iter().map(|&value| F::from_canonical_u64(value)).collect()
}

fn key(digest: Digest) -> [u64; 4] {
    digest.elements.map(|element| element.to_canonical_u64())
}

/// Lists that implementations confuse: extended by zeros, of a block and one more, permuted, truncated, with an item twice.
fn confusing_lists() -> Vec<Vec<F>> {
    let base: Vec<u64> = (1..=9).collect();
    let mut lists: Vec<Vec<u64>> = (0..=9).map(|length| base[..length].to_vec()).collect();
    lists.extend([vec![1, 0], vec![1, 0, 0], vec![0], vec![0; 8], vec![0; 9]]);
    lists.extend([vec![2, 1, 3], vec![3, 2, 1], vec![1, 1, 2, 3], vec![1, 2, 2, 3], vec![1, 2, 3, 3]]);
    lists.iter().map(|list| elements(list)).collect()
}

#[test]
fn sponge_without_framing_confuses_zeros_at_the_end() {
    assert_eq!(H::hash_no_pad(&elements(&[1])), H::hash_no_pad(&elements(&[1, 0])));
}

#[test]
fn framed_lists_have_different_digests_under_every_tag() {
    let tags = [
        Tag::Link,
        Tag::Kind,
        Tag::LayerKey,
        Tag::PublicChain,
        Tag::SecretChain,
        Tag::MainChain,
        Tag::RegistryLeaf,
        Tag::RegistryNode,
        Tag::RegistryEmpty,
        Tag::Program,
        Tag::Model,
        Tag::Input,
        Tag::Output,
        Tag::Global,
        Tag::Statement,
    ];
    let mut seen = HashMap::new();
    for tag in tags {
        for list in confusing_lists() {
            let other = seen.insert(key(hash(tag, &list)), (tag, list.clone()));
            assert_eq!(other, None, "{tag:?} {list:?}");
        }
    }
}

/// Programs over the same layers: in another order, without one, with one twice, with one more.
#[test]
fn programs_of_other_lists_of_layers_have_other_digests() {
    let of = |value: u64| Digest { elements: [0, 1, 2, 3].map(|i| F::from_canonical_u64(10 * value + i)) };
    let program = |layers: &[u64]| {
        let step = |chains: Chains, (index, &layer): (usize, &u64)| {
            let identity = LayerIdentity { key: of(layer), link_weights: of(100 + layer), link_main: of(200 + layer) };
            chains.after(index, &identity)
        };
        let chains = layers.iter().enumerate().fold(Chains::start(), step);
        (program_digest(layers.len(), chains.public, of(7)), chains.secret, chains.main)
    };
    let lists: [&[u64]; 9] = [&[1, 2, 3], &[2, 1, 3], &[1, 3, 2], &[1, 2], &[2, 3], &[], &[1, 1, 2, 3], &[1, 2, 3, 3], &[1, 2, 3, 4]];
    let programs = lists.map(program);
    for (first, a) in programs.iter().enumerate() {
        for b in &programs[..first] {
            assert!(a.0 != b.0 && a.1 != b.1 && a.2 != b.2, "{first}");
        }
    }
    // The count is hashed too.
    assert_ne!(program_digest(2, of(1), of(7)), program_digest(3, of(1), of(7)));
}
