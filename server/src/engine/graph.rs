//! The tasks of a job as a graph: checks and the longest way to the end. Pure functions.

use zkinfer_proto::v1;

use crate::placement::rank::{RankError, ranks};

/// The single task of a registration.
pub const REGISTER: &str = "register";
/// The single task of a job whose steps are not worth to be given to different workers.
pub const PROVE: &str = "prove";
/// Most tasks of a job.
pub const MAX_TASKS: usize = 1 << 16;

/// Not a graph that can be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Nothing to do, or too much.
    #[error("the graph has {0} tasks; 1 to {MAX_TASKS} can be run")]
    Size(usize),
    /// A name twice, or none.
    #[error("task {0} has no printable name of its own")]
    Name(usize),
    /// A task needs one that does not come before it.
    #[error("task {task} needs task {needs}, which does not come before it")]
    Order {
        /// The task.
        task: usize,
        /// What it needs.
        needs: usize,
    },
    /// A task that is not the last and that no other needs.
    #[error("the result of task {0} is not used")]
    Unused(usize),
}

/// The task is all that its subject has.
pub fn is_whole(name: &str) -> bool {
    name == REGISTER || name == PROVE
}

/// A graph of one task, which is expected to take so long and so much device memory.
pub fn single(name: &str, estimated_ms: i64, device_bytes: i64) -> v1::TaskGraph {
    let (name, step) = (name.to_owned(), name.to_owned());
    let node = v1::TaskNode { name, step, needs: Vec::new(), estimated_ms, rank_ms: estimated_ms, device_bytes, load_ms: 0 };
    v1::TaskGraph { nodes: vec![node] }
}

/// Checks a graph: each task comes after those that it needs, and all lead to the last.
///
/// # Errors
/// What is wrong first.
pub fn check(graph: &v1::TaskGraph) -> Result<(), GraphError> {
    let n = graph.nodes.len();
    if n == 0 || n > MAX_TASKS {
        return Err(GraphError::Size(n));
    }
    let mut names = std::collections::HashSet::new();
    let mut is_needed = vec![false; n];
    for (task, node) in graph.nodes.iter().enumerate() {
        let is_told = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
        if !is_told(&node.name) || node.step.chars().any(char::is_control) || !names.insert(node.name.as_str()) {
            return Err(GraphError::Name(task));
        }
        for &needs in &node.needs {
            let needs = needs as usize;
            if needs >= task {
                return Err(GraphError::Order { task, needs });
            }
            is_needed[needs] = true;
        }
    }
    match is_needed[..n - 1].iter().position(|is_needed| !is_needed) {
        Some(task) => Err(GraphError::Unused(task)),
        None => Ok(()),
    }
}

/// Sets each task's rank, in milliseconds: the time from its start to the end of the job if nothing waits.
///
/// # Errors
/// A task that does not come after what it needs; nothing is set.
pub fn set_ranks(graph: &mut v1::TaskGraph) -> Result<(), RankError> {
    let costs: Vec<u64> = graph.nodes.iter().map(|node| node.estimated_ms.try_into().unwrap_or(0)).collect();
    let needs: Vec<Vec<usize>> = graph.nodes.iter().map(|node| node.needs.iter().map(|&need| need as usize).collect()).collect();
    for (node, rank) in graph.nodes.iter_mut().zip(ranks(&costs, &needs)?) {
        node.rank_ms = rank.try_into().unwrap_or(i64::MAX);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(tasks: &[(&str, &[u32], i64)]) -> v1::TaskGraph {
        let node = |&(name, needs, estimated_ms): &(&str, &[u32], i64)| v1::TaskNode {
            name: name.into(),
            needs: needs.to_vec(),
            estimated_ms,
            ..Default::default()
        };
        v1::TaskGraph { nodes: tasks.iter().map(node).collect() }
    }

    #[test]
    fn graphs_that_cannot_be_run_are_refused() {
        assert_eq!(check(&single(PROVE, 5, 0)), Ok(()));
        assert_eq!(check(&graph(&[])), Err(GraphError::Size(0)));
        assert_eq!(check(&graph(&[("a", &[], 1), ("a", &[0], 1)])), Err(GraphError::Name(1)));
        assert_eq!(check(&graph(&[("a\0", &[], 1)])), Err(GraphError::Name(0)));
        assert_eq!(check(&graph(&[("a", &[0], 1)])), Err(GraphError::Order { task: 0, needs: 0 }));
        assert_eq!(check(&graph(&[("a", &[], 1), ("b", &[], 1)])), Err(GraphError::Unused(0)));
    }

    #[test]
    fn a_rank_is_the_longest_way_to_the_end() {
        let mut graph = graph(&[("a", &[], 1), ("b", &[0], 10), ("c", &[0], 2), ("d", &[1, 2], 5)]);
        assert_eq!(check(&graph), Ok(()));
        set_ranks(&mut graph).unwrap();
        assert_eq!(graph.nodes.iter().map(|node| node.rank_ms).collect::<Vec<_>>(), [16, 15, 7, 5]);
    }
}
