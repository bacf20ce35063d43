//! An inference as tasks: in any order, by any workers, the same bytes; damaged or foreign results are refused.

use std::collections::BTreeMap;

use zkinfer_circuits::model::execute;
use zkinfer_circuits::pipeline::tasks::{InferenceTasks, KeptOracles, ResultError, Results, TaskId, TaskNode, TaskOutput};
use zkinfer_circuits::pipeline::{CommittedModel, InferenceRequest, PipelineError, ProvedInference};
use zkinfer_circuits::recursion::salt::Salt;
use zkinfer_circuits::statement::ContextNonce;
use zkinfer_kernels::CpuBackend;

use super::{Prover, residual_network, varied_input};

/// Results in memory.
#[derive(Clone, Default)]
struct Stored(BTreeMap<TaskId, Vec<u8>>);

impl Results for Stored {
    fn result(&self, task: TaskId) -> Option<&[u8]> {
        self.0.get(&task).map(Vec::as_slice)
    }
}

/// An inference of a committed model.
struct Case<'a> {
    prover: &'a Prover,
    model: &'a CommittedModel<CpuBackend>,
    input: &'a [u8],
    input_salt: Salt,
}

impl Case<'_> {
    fn tasks<'a>(&'a self, kept: &'a KeptOracles<CpuBackend>) -> InferenceTasks<'a, CpuBackend> {
        let request = InferenceRequest { input: self.input, input_salt: self.input_salt, nonce: ContextNonce::of_context(b"tasks") };
        InferenceTasks::new(&self.prover.backend, &self.prover.aggregator, self.model, request, kept).unwrap()
    }

    /// One task by a worker that knows nothing but the results.
    fn run(&self, task: TaskId, results: &Stored) -> Result<TaskOutput, PipelineError> {
        self.tasks(&KeptOracles::default()).run(task, results)
    }

    fn internal(&self, task: TaskId, results: &Stored) -> Vec<u8> {
        match self.run(task, results).unwrap() {
            TaskOutput::Internal(bytes) => bytes,
            TaskOutput::Published(_) => panic!("{task} is published"),
        }
    }

    /// What must be done again before the task can be.
    fn to_do_again(&self, task: TaskId, results: &Stored) -> Vec<TaskId> {
        match self.run(task, results) {
            Err(PipelineError::Result(error)) => error.to_do_again(),
            Err(other) => panic!("{task}: {other}"),
            Ok(_) => panic!("{task} was done"),
        }
    }

    fn refusal(&self, task: TaskId, results: &Stored) -> String {
        match self.run(task, results) {
            Err(error @ PipelineError::Result(_)) => error.to_string(),
            Err(other) => panic!("{task}: {other}"),
            Ok(_) => panic!("{task} was done"),
        }
    }
}

/// One worker does all tasks in order.
fn run_in_order(case: &Case<'_>) -> (Stored, ProvedInference) {
    let kept = KeptOracles::default();
    let tasks = case.tasks(&kept);
    let mut results = Stored::default();
    for TaskNode { id, .. } in tasks.graph() {
        match tasks.run(id, &results).unwrap() {
            TaskOutput::Internal(bytes) => drop(results.0.insert(id, bytes)),
            TaskOutput::Published(proved) => return (results, *proved),
        }
    }
    panic!("nothing was published")
}

#[test]
fn tasks_give_the_same_bytes_in_any_order_and_refuse_what_is_not_theirs() {
    let prover = Prover::new();
    let graph = residual_network();
    let (model, input) = (prover.commit(&graph), varied_input(&graph));
    let case = Case { prover: &prover, model: &model, input: &input, input_salt: Salt::NONE };
    let (results, proved) = run_in_order(&case);
    assert_eq!(proved.statement.outputs, execute(&graph, &input).unwrap().tensor(graph.output.tensor));
    assert!(results.0.keys().any(|task| matches!(task, TaskId::Join { .. })), "the network has joins");

    // The last of the tasks that are ready comes first, each by a worker of its own.
    let nodes = case.tasks(&KeptOracles::default()).graph();
    let mut other_order = Stored::default();
    while let Some(node) = nodes
        .iter()
        .rev()
        .filter(|node| node.id != TaskId::Outer && !other_order.0.contains_key(&node.id))
        .find(|node| node.needs.iter().all(|need| other_order.0.contains_key(need)))
    {
        let bytes = case.internal(node.id, &other_order);
        assert!(bytes == results.0[&node.id], "{} differs", node.id);
        other_order.0.insert(node.id, bytes);
    }
    assert_eq!(other_order.0.len(), results.0.len());

    refuses_missing_and_damaged_results(&case, &nodes, &results);
    refuses_foreign_results(&case, &results);
    hands_on_no_layer_that_does_not_verify(&case, &results);
    tells_which_results_are_to_be_made_again(&case, &nodes, &results);
}

fn refuses_missing_and_damaged_results(case: &Case<'_>, nodes: &[TaskNode], results: &Stored) {
    for node in nodes {
        for need in &node.needs {
            // Each layer and leaf takes the same way as the first.
            if matches!(node.id, TaskId::Commit(1..) | TaskId::Layer(1..) | TaskId::Leaf(1..)) {
                continue;
            }
            let mut without = results.clone();
            without.0.remove(need);
            assert_eq!(case.refusal(node.id, &without), ResultError::Missing(*need).to_string());
            let mut damaged = results.clone();
            damaged.0.entry(*need).and_modify(|bytes| bytes[0] ^= 1);
            let refusal = case.refusal(node.id, &damaged);
            assert!(refusal.starts_with(&format!("the result of {need} ")), "{}: {refusal}", node.id);
        }
    }
    for absent in [TaskId::Commit(99), TaskId::Layer(99), TaskId::Leaf(99), TaskId::Join { level: 9, index: 0 }] {
        assert_eq!(case.refusal(absent, results), ResultError::NoSuchTask(absent).to_string());
    }
}

/// A device that committed other values than those of the witness: everything fits together, but the layer's proof is false.
fn hands_on_no_layer_that_does_not_verify(case: &Case<'_>, results: &Stored) {
    let input: Vec<u8> = case.input.iter().map(|byte| byte ^ 0x55).collect();
    let other = Case { input: &input, ..*case };
    let mut of_other = Stored::default();
    of_other.0.insert(TaskId::Witness, other.internal(TaskId::Witness, &of_other));
    let kept = KeptOracles::default();
    let TaskOutput::Internal(link) = other.tasks(&kept).run(TaskId::Commit(0), &of_other).unwrap() else { panic!("a link is internal") };
    let mut wrong = results.clone();
    wrong.0.insert(TaskId::Commit(0), link);
    wrong.0.insert(TaskId::Bind, case.internal(TaskId::Bind, &wrong));
    match case.tasks(&kept).run(TaskId::Layer(0), &wrong) {
        Err(PipelineError::SelfCheck(message)) => assert!(message.starts_with("layer 0: "), "{message}"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was handed on"),
    }
}

/// What was made from something else than it is read with is named, and nothing else is.
fn tells_which_results_are_to_be_made_again(case: &Case<'_>, nodes: &[TaskNode], results: &Stored) {
    let input: Vec<u8> = case.input.iter().map(|byte| byte ^ 0x55).collect();
    let other = Case { input: &input, ..*case };
    let (of_other, _) = run_in_order(&other);
    let with = |changed: &[TaskId]| {
        let mut mixed = results.clone();
        changed.iter().for_each(|task| drop(mixed.0.insert(*task, of_other.0[task].clone())));
        mixed
    };

    // A device committed other tensors; whoever proves the layer elsewhere finds out.
    let mut wrong = with(&[TaskId::Commit(1)]);
    wrong.0.insert(TaskId::Bind, case.internal(TaskId::Bind, &wrong));
    assert_eq!(case.to_do_again(TaskId::Layer(1), &wrong), [TaskId::Commit(1), TaskId::Bind]);
    // Layers proved before that are proofs under other challenges.
    let leaf = nodes.iter().find(|node| node.needs.contains(&TaskId::Layer(1))).unwrap();
    let layers = leaf.needs.iter().copied().filter(|need| matches!(need, TaskId::Layer(_)));
    assert_eq!(case.to_do_again(leaf.id, &wrong), layers.collect::<Vec<_>>());
    assert_eq!(case.to_do_again(leaf.id, &with(&[TaskId::Layer(1)])), [TaskId::Layer(1)]);

    let join = nodes.iter().find(|node| matches!(node.id, TaskId::Join { .. })).unwrap();
    assert_eq!(case.to_do_again(join.id, &with(&join.needs[..1])), join.needs);
    let mut swapped = results.clone();
    swapped.0.insert(join.needs[0], results.0[&join.needs[1]].clone());
    assert_eq!(case.to_do_again(join.id, &swapped), join.needs);
}

/// Results of another input of the same model: some of them, and all.
fn refuses_foreign_results(case: &Case<'_>, results: &Stored) {
    let input: Vec<u8> = case.input.iter().map(|byte| byte ^ 0x55).collect();
    let other = Case { input: &input, ..*case };
    let foreign = ResultError::Foreign(TaskId::Bind).to_string();
    let mut mixed = results.clone();
    mixed.0.insert(TaskId::Witness, other.internal(TaskId::Witness, &Stored::default()));
    for task in [TaskId::Layer(0), TaskId::Leaf(0), TaskId::Outer] {
        assert_eq!(case.refusal(task, &mixed), foreign);
        assert_eq!(other.refusal(task, results), foreign);
    }
    // A committed input is not in the statement: its proof would verify, but tell of another input.
    let committed = Case { input_salt: Salt::fresh().unwrap(), ..*case };
    let other = Case { input: &input, ..committed };
    let (results, _) = run_in_order(&committed);
    assert_eq!(other.refusal(TaskId::Outer, &results), foreign);
}
