//! Names and order of the nodes.

use std::collections::{HashMap, HashSet};

use super::error::ImportError;
use super::messages::{GraphProto, NodeProto};

/// Which node makes each name, and an order of evaluation of the nodes that the output needs.
pub(super) struct Order<'a> {
    /// Indices of needed nodes, each after those it reads.
    pub(super) nodes: Vec<usize>,
    /// How often needed nodes, and the graph's output, read each name.
    pub(super) reads: HashMap<&'a str, usize>,
}

/// The name of a node for messages: its own, that of its first output, or else its position.
pub(super) fn node_name(node: &NodeProto, node_idx: usize) -> String {
    let names = [Some(&node.name), node.output.first()];
    names.into_iter().flatten().find(|name| !name.is_empty()).cloned().unwrap_or_else(|| format!("#{node_idx}"))
}

/// Resolves the names and sorts the nodes. An empty name means an optional input or output that is absent.
///
/// # Errors
/// A name defined twice or not at all, or a cycle anywhere in the graph.
pub(super) fn resolve<'a>(graph: &'a GraphProto, input: &'a str, output: &'a str) -> Result<Order<'a>, ImportError> {
    let constants: HashSet<&str> = unique(graph.initializer.iter().map(|tensor| tensor.name.as_str()).chain([input]))?;
    let mut makers: HashMap<&str, usize> = HashMap::new();
    for (node_idx, node) in graph.node.iter().enumerate() {
        for name in node.output.iter().map(String::as_str).filter(|name| !name.is_empty()) {
            if constants.contains(name) || makers.insert(name, node_idx).is_some() {
                return Err(ImportError::DuplicateName { name: name.to_owned() });
            }
        }
    }
    check_known(graph, output, &constants, &makers)?;
    let sorted = sort(graph, &makers)?;
    Ok(needed(graph, output, &makers, sorted))
}

fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Result<HashSet<&'a str>, ImportError> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(ImportError::DuplicateName { name: name.to_owned() });
        }
    }
    Ok(seen)
}

/// Names that a node reads.
fn reads(node: &NodeProto) -> impl Iterator<Item = &str> {
    node.input.iter().map(String::as_str).filter(|name| !name.is_empty())
}

fn check_known(graph: &GraphProto, output: &str, constants: &HashSet<&str>, makers: &HashMap<&str, usize>) -> Result<(), ImportError> {
    let is_known = |name: &str| constants.contains(name) || makers.contains_key(name);
    for (node_idx, node) in graph.node.iter().enumerate() {
        if let Some(name) = reads(node).find(|&name| !is_known(name)) {
            return Err(ImportError::UnknownName { node: node_name(node, node_idx), name: name.to_owned() });
        }
    }
    if !is_known(output) {
        return Err(ImportError::UnknownName { node: "graph output".to_owned(), name: output.to_owned() });
    }
    Ok(())
}

/// Kahn's algorithm; among nodes that are ready, the file's order.
fn sort(graph: &GraphProto, makers: &HashMap<&str, usize>) -> Result<Vec<usize>, ImportError> {
    let n_nodes = graph.node.len();
    let mut waits_for = vec![0usize; n_nodes];
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); n_nodes];
    for (node_idx, node) in graph.node.iter().enumerate() {
        for maker in reads(node).filter_map(|name| makers.get(name)) {
            waits_for[node_idx] += 1;
            readers[*maker].push(node_idx);
        }
    }
    let mut sorted: Vec<usize> = (0..n_nodes).filter(|&node_idx| waits_for[node_idx] == 0).collect();
    let mut next = 0;
    while let Some(&node_idx) = sorted.get(next) {
        next += 1;
        for &reader in &readers[node_idx] {
            waits_for[reader] -= 1;
            if waits_for[reader] == 0 {
                sorted.push(reader);
            }
        }
    }
    match waits_for.iter().position(|&count| count > 0) {
        Some(node_idx) => Err(ImportError::Cycle { node: node_name(&graph.node[node_idx], node_idx) }),
        None => Ok(sorted),
    }
}

/// Keeps what the output needs, and counts the reads.
fn needed<'a>(graph: &'a GraphProto, output: &'a str, makers: &HashMap<&str, usize>, sorted: Vec<usize>) -> Order<'a> {
    let mut is_needed = vec![false; graph.node.len()];
    let mut counts: HashMap<&str, usize> = HashMap::from([(output, 1)]);
    if let Some(&maker) = makers.get(output) {
        is_needed[maker] = true;
    }
    for &node_idx in sorted.iter().rev() {
        if !is_needed[node_idx] {
            continue;
        }
        for name in reads(&graph.node[node_idx]) {
            *counts.entry(name).or_default() += 1;
            if let Some(&maker) = makers.get(name) {
                is_needed[maker] = true;
            }
        }
    }
    Order { nodes: sorted.into_iter().filter(|&node_idx| is_needed[node_idx]).collect(), reads: counts }
}
