//! The rank of a task: `rank(t) = cost(t) + max over the tasks s that need t of rank(s)`, the longest path to the end of its job.
//!
//! Doing the greatest rank first keeps the longest chain moving (upward rank: Topcuoglu, Hariri, Wu, IEEE TPDS 13(3), 2002). One pass backwards.

use thiserror::Error;

/// Not a graph whose tasks come after what they need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RankError {
    /// A list is missing entries.
    #[error("there are {costs} costs for {tasks} tasks; give one for each task")]
    Lengths {
        /// Costs given.
        costs: usize,
        /// Tasks given.
        tasks: usize,
    },
    /// A task needs itself or one behind it.
    #[error("task {task} needs task {need}, which is not before it; list tasks after what they need")]
    NotBefore {
        /// The task.
        task: usize,
        /// What it needs.
        need: usize,
    },
}

/// The ranks of a job's tasks, in the unit of the costs. `needs[t]` are the tasks whose results t reads, each less than t.
///
/// # Errors
/// Lists of different lengths, or a task that does not come after what it needs.
pub fn ranks(costs: &[u64], needs: &[Vec<usize>]) -> Result<Vec<u64>, RankError> {
    if costs.len() != needs.len() {
        return Err(RankError::Lengths { costs: costs.len(), tasks: needs.len() });
    }
    let mut ranks = costs.to_vec();
    for (task, needs) in needs.iter().enumerate().rev() {
        let rank = ranks[task];
        for &need in needs {
            if need >= task {
                return Err(RankError::NotBefore { task, need });
            }
            ranks[need] = ranks[need].max(costs[need].saturating_add(rank));
        }
    }
    Ok(ranks)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::config;
    use super::*;

    /// The definition, by trying all paths.
    fn longest_path(task: usize, costs: &[u64], needs: &[Vec<usize>]) -> u64 {
        let behind = (task + 1..costs.len()).filter(|&other| needs[other].contains(&task));
        costs[task] + behind.map(|other| longest_path(other, costs, needs)).max().unwrap_or(0)
    }

    proptest! {
        #![proptest_config(config(500))]

        #[test]
        fn ranks_are_the_longest_paths(costs in prop::collection::vec(0_u64..100, 1..9), edges in any::<u64>()) {
            let needs: Vec<Vec<usize>> =
                (0..costs.len()).map(|task| (0..task).filter(|need| edges >> (task * (task - 1) / 2 + need) & 1 == 1).collect()).collect();
            let expected: Vec<u64> = (0..costs.len()).map(|task| longest_path(task, &costs, &needs)).collect();
            prop_assert_eq!(ranks(&costs, &needs), Ok(expected));
        }
    }

    #[test]
    fn refuses_what_is_no_graph_in_order() {
        assert_eq!(ranks(&[1], &[]), Err(RankError::Lengths { costs: 1, tasks: 0 }));
        assert_eq!(ranks(&[1, 1], &[vec![], vec![1]]), Err(RankError::NotBefore { task: 1, need: 1 }));
        assert_eq!(ranks(&[1, 1], &[vec![1], vec![]]), Err(RankError::NotBefore { task: 0, need: 1 }));
        assert_eq!(ranks(&[], &[]), Ok(vec![]));
    }
}
