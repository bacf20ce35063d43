//! The tasks of an inference and what each of them waits for: a pure function of the model's program.

use std::fmt;
use std::str::FromStr;

use crate::pipeline::Stage;
use crate::recursion::plan::NodePlan;

/// One task. Its text is a stable name: `witness`, `commit-0007`, `bind`, `layer-0007`, `leaf-0003`, `join-1-0000`, `outer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskId {
    /// Evaluates the network.
    Witness,
    /// Commits the tensors of a layer (round 1).
    Commit(usize),
    /// Derives γ' and δ from all commitments: the one barrier.
    Bind,
    /// Proves a layer.
    Layer(usize),
    /// Verifies layer proofs in a leaf circuit.
    Leaf(usize),
    /// Joins two nodes of the level below; leaves are level 0.
    Join {
        /// From 1.
        level: usize,
        /// From the left.
        index: usize,
    },
    /// Makes the published proof.
    Outer,
}

impl TaskId {
    /// The stage that the task belongs to, and its number there.
    pub const fn stage(self) -> (Stage, usize) {
        match self {
            Self::Witness => (Stage::Witness, 0),
            Self::Commit(index) => (Stage::Commit, index),
            Self::Bind => (Stage::Bind, 0),
            Self::Layer(index) => (Stage::Layer, index),
            Self::Leaf(index) => (Stage::Leaf, index),
            Self::Join { index, .. } => (Stage::Join, index),
            Self::Outer => (Stage::Outer, 0),
        }
    }
}

/// Not the name of a task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a task, such as `layer-0007` or `join-1-0000`")]
pub struct NotATask(pub String);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Witness => f.write_str("witness"),
            Self::Commit(index) => write!(f, "commit-{index:04}"),
            Self::Bind => f.write_str("bind"),
            Self::Layer(index) => write!(f, "layer-{index:04}"),
            Self::Leaf(index) => write!(f, "leaf-{index:04}"),
            Self::Join { level, index } => write!(f, "join-{level}-{index:04}"),
            Self::Outer => f.write_str("outer"),
        }
    }
}

impl FromStr for TaskId {
    type Err = NotATask;

    fn from_str(text: &str) -> Result<Self, NotATask> {
        let refused = || NotATask(text.to_owned());
        let number = |digits: &str| digits.parse::<usize>().map_err(|_| refused());
        let mut parts = text.splitn(3, '-');
        let id = match (parts.next(), parts.next(), parts.next()) {
            (Some("witness"), None, None) => Self::Witness,
            (Some("bind"), None, None) => Self::Bind,
            (Some("outer"), None, None) => Self::Outer,
            (Some("commit"), Some(index), None) => Self::Commit(number(index)?),
            (Some("layer"), Some(index), None) => Self::Layer(number(index)?),
            (Some("leaf"), Some(index), None) => Self::Leaf(number(index)?),
            (Some("join"), Some(level), Some(index)) => Self::Join { level: number(level)?, index: number(index)? },
            _ => return Err(refused()),
        };
        // One name each: no other number of leading zeros, no sign.
        if id.to_string() == text { Ok(id) } else { Err(refused()) }
    }
}

/// A task with what it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskNode {
    /// The task.
    pub id: TaskId,
    /// The tasks whose results it reads, each before it in the graph.
    pub needs: Vec<TaskId>,
}

/// The tasks of an inference of `n_layers` layers with these leaves, each after those that it needs; the last is [`TaskId::Outer`].
///
/// A layer is proved from the tensors and the shared challenges, not from its commitment's result: whoever still holds the oracle uses it, anybody
/// else commits again.
pub fn inference_tasks(plan: &[NodePlan], n_layers: usize) -> Vec<TaskNode> {
    let node = |id, needs: Vec<TaskId>| TaskNode { id, needs };
    let mut tasks = vec![node(TaskId::Witness, Vec::new())];
    tasks.extend((0..n_layers).map(|index| node(TaskId::Commit(index), vec![TaskId::Witness])));
    tasks.push(node(TaskId::Bind, std::iter::once(TaskId::Witness).chain((0..n_layers).map(TaskId::Commit)).collect()));
    tasks.extend((0..n_layers).map(|index| node(TaskId::Layer(index), vec![TaskId::Witness, TaskId::Bind])));
    let mut below = Vec::with_capacity(plan.len());
    for (index, leaf) in plan.iter().enumerate() {
        let mut needs = vec![TaskId::Witness, TaskId::Bind];
        needs.extend(leaf.layers.clone().map(TaskId::Layer));
        tasks.push(node(TaskId::Leaf(index), needs));
        below.push(TaskId::Leaf(index));
    }
    let mut level = 1;
    while below.len() > 1 {
        let mut above = Vec::with_capacity(below.len().div_ceil(2));
        for (index, pair) in below.chunks(2).enumerate() {
            match *pair {
                [left, right] => {
                    let id = TaskId::Join { level, index };
                    tasks.push(node(id, vec![left, right]));
                    above.push(id);
                }
                // An odd one passes to the next level as it is.
                _ => above.extend_from_slice(pair),
            }
        }
        (below, level) = (above, level + 1);
    }
    let needs = [TaskId::Witness, TaskId::Bind].into_iter().chain(below).collect();
    tasks.push(node(TaskId::Outer, needs));
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recursion::kinds::LeafIndex;

    fn plan(n_leaves: usize) -> Vec<NodePlan> {
        (0..n_leaves).map(|index| NodePlan { leaf: LeafIndex(0), layers: index..index + 1, boundary: None }).collect()
    }

    #[test]
    fn each_task_follows_what_it_needs_and_all_lead_to_the_last() {
        for n in [1, 2, 3, 5, 8, 13] {
            let tasks = inference_tasks(&plan(n), n);
            assert_eq!(tasks.last().unwrap().id, TaskId::Outer);
            let mut is_needed = vec![false; tasks.len()];
            for (position, task) in tasks.iter().enumerate() {
                for need in &task.needs {
                    let of_need = tasks.iter().position(|other| other.id == *need).unwrap();
                    assert!(of_need < position, "{} needs {need}", task.id);
                    is_needed[of_need] = true;
                }
            }
            assert_eq!(is_needed.iter().filter(|&&is_needed| !is_needed).count(), 1, "only the last is needed by none");
            assert_eq!(tasks.iter().filter(|task| matches!(task.id, TaskId::Join { .. })).count(), n - 1);
        }
    }

    #[test]
    fn an_odd_node_is_joined_a_level_above() {
        let tasks = inference_tasks(&plan(3), 3);
        let joins: Vec<&TaskNode> = tasks.iter().filter(|task| matches!(task.id, TaskId::Join { .. })).collect();
        assert_eq!(joins[0].needs, [TaskId::Leaf(0), TaskId::Leaf(1)]);
        assert_eq!(joins[1].id, TaskId::Join { level: 2, index: 0 });
        assert_eq!(joins[1].needs, [TaskId::Join { level: 1, index: 0 }, TaskId::Leaf(2)]);
    }

    #[test]
    fn names_are_read_back_and_others_refused() {
        for task in inference_tasks(&plan(5), 5) {
            assert_eq!(task.id.to_string().parse(), Ok(task.id));
        }
        assert_eq!("commit-12345".parse(), Ok(TaskId::Commit(12_345)));
        for other in ["", "layer", "layer-7", "layer-00007", "layer-+007", "join-1", "join-01-0000", "witness-0000", "prove"] {
            assert!(other.parse::<TaskId>().is_err(), "{other}");
        }
    }
}
