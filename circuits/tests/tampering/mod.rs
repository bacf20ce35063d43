//! The changes: one for each field, with the error that it must give.

use plonky2::field::types::Field;
use plonky2::fri::proof::FriProof;
use plonky2::hash::merkle_tree::MerkleCap;
use zkinfer_circuits::air::system::SUMS_WIDTH;
use zkinfer_circuits::air::{Cell, Node, Op, OracleId};
use zkinfer_circuits::field::{D, F, H, K};
use zkinfer_circuits::kind::Role;
use zkinfer_circuits::layer::{LayerClaim, LayerProof, LayerShape, LayerVerifyError, theta};

/// A change to a claim or a proof.
pub struct Change {
    pub name: String,
    pub change: Box<dyn Fn(&mut LayerClaim, &mut LayerProof)>,
    pub expected: LayerVerifyError,
}

fn change(name: impl Into<String>, expected: LayerVerifyError, change: impl Fn(&mut LayerClaim, &mut LayerProof) + 'static) -> Change {
    Change { name: name.into(), change: Box::new(change), expected }
}

fn fri(name: impl Into<String>, edit: impl Fn(&mut FriProof<F, H, D>) + 'static) -> Change {
    change(name, LayerVerifyError::Fri(String::new()), move |_, proof| edit(&mut proof.fri))
}

fn shape_error(part: &'static str, got: usize, expected: usize) -> LayerVerifyError {
    LayerVerifyError::Shape { part, got, expected }
}

/// Whether some constraint batched by γ reads a cell; if none does, a sum reads it.
fn is_in_constraints(shape: &LayerShape, cell: Cell) -> bool {
    fn reads(shape: &LayerShape, node: Node, cell: Cell) -> bool {
        match shape.system.arena.ops()[node.0 as usize] {
            Op::Add(a, b) | Op::Sub(a, b) | Op::Mul(a, b) => reads(shape, a, cell) || reads(shape, b, cell),
            Op::Cell(read) => read == cell,
            Op::ExtCell(read) => read == cell || Cell { column: read.column + 1, ..read } == cell,
            _ => false,
        }
    }
    shape.system.constraints.iter().any(|constraint| reads(shape, constraint.zero, cell))
}

/// The identity that a changed opening violates.
fn violated(shape: &LayerShape, cell: Cell) -> LayerVerifyError {
    // Of the sums oracle, q_0 and q_1 enter the constraints' identity, S and q_S the sums'.
    let quotient = cell.oracle == OracleId::Sums && cell.column >= SUMS_WIDTH / 2;
    if quotient || is_in_constraints(shape, cell) { LayerVerifyError::Constraints } else { LayerVerifyError::Sums }
}

fn shorten<T>(list: &mut Vec<T>) {
    list.pop();
}

/// One change for every field.
pub fn field_changes(shape: &LayerShape, claim: &LayerClaim, proof: &LayerProof) -> Vec<Change> {
    let mut changes = claim_changes(shape, claim);
    let caps = [
        LayerVerifyError::Link { oracle: OracleId::Weights },
        LayerVerifyError::Link { oracle: OracleId::Main },
        LayerVerifyError::Constraints,
        LayerVerifyError::Constraints,
    ];
    for (oracle, expected) in caps.into_iter().enumerate() {
        for digest in 0..proof.caps[oracle].0.len() {
            let element = digest % 4;
            changes.push(change(format!("cap {oracle}, digest {digest}"), expected.clone(), move |_, proof| {
                proof.caps[oracle].0[digest].elements[element] += F::ONE;
            }));
        }
    }
    for (batch, cells) in shape.batches().iter().enumerate() {
        for (position, &cell) in cells.iter().enumerate() {
            let expected = match batch {
                3 => LayerVerifyError::Link { oracle: OracleId::Weights },
                4 => LayerVerifyError::Link { oracle: OracleId::Main },
                _ => violated(shape, cell),
            };
            changes.push(change(format!("opening {position} of batch {batch}"), expected, move |_, proof| {
                proof.openings[batch][position] += K::ONE;
            }));
        }
    }
    changes.extend(fri_changes(&proof.fri));
    changes
}

fn claim_changes(shape: &LayerShape, claim: &LayerClaim) -> Vec<Change> {
    // A registration has none of these scalars.
    let scalar = |name, of_inference| match shape.role {
        Role::Inference => of_inference,
        Role::Registration => LayerVerifyError::RegistrationScalar(name),
    };
    let mut changes = vec![
        change("index", LayerVerifyError::Constraints, |claim, _| claim.index += 1),
        change("gamma prime", scalar("gamma_prime", LayerVerifyError::Constraints), |claim, _| claim.gamma_prime += K::ONE),
        change("delta", scalar("delta", LayerVerifyError::Constraints), |claim, _| claim.delta += K::ONE),
        change("balance of the claim", scalar("balance", LayerVerifyError::Balance), |claim, _| claim.balance += K::ONE),
        change("balance of the proof", LayerVerifyError::Balance, |_, proof| proof.balance += K::ONE),
        change("both balances", scalar("balance", LayerVerifyError::Constraints), |claim, proof| {
            claim.balance += K::ONE;
            proof.balance += K::ONE;
        }),
    ];
    for element in 0..4 {
        let link = |oracle| LayerVerifyError::Link { oracle };
        changes.push(change("link of weights", link(OracleId::Weights), move |c, _| c.link_weights.elements[element] += F::ONE));
        changes.push(change("link of main", link(OracleId::Main), move |c, _| c.link_main.elements[element] += F::ONE));
    }
    for index in 0..claim.theta.len() {
        changes.push(change(format!("theta {index}"), LayerVerifyError::Constraints, move |c, _| c.theta[index] += F::ONE));
    }
    changes
}

fn fri_changes(proof: &FriProof<F, H, D>) -> Vec<Change> {
    let mut changes =
        vec![fri("pow witness", |fri| fri.pow_witness += F::ONE), fri("queries swapped", |fri| fri.query_round_proofs.swap(0, 1))];
    for tree in 0..proof.commit_phase_merkle_caps.len() {
        for digest in 0..proof.commit_phase_merkle_caps[tree].0.len() {
            changes.push(fri(format!("fri cap {tree}, digest {digest}"), move |fri| {
                fri.commit_phase_merkle_caps[tree].0[digest].elements[digest % 4] += F::ONE;
            }));
        }
    }
    for k in 0..proof.final_poly.coeffs.len() {
        changes.push(fri(format!("final coefficient {k}"), move |fri| fri.final_poly.coeffs[k] += K::ONE));
    }
    for (query, round) in proof.query_round_proofs.iter().enumerate() {
        for (oracle, (row, path)) in round.initial_trees_proof.evals_proofs.iter().enumerate() {
            for cell in 0..row.len() {
                changes.push(fri(format!("query {query}, oracle {oracle}, cell {cell}"), move |fri| {
                    fri.query_round_proofs[query].initial_trees_proof.evals_proofs[oracle].0[cell] += F::ONE;
                }));
            }
            for node in 0..path.siblings.len() {
                changes.push(fri(format!("query {query}, oracle {oracle}, sibling {node}"), move |fri| {
                    let path = &mut fri.query_round_proofs[query].initial_trees_proof.evals_proofs[oracle].1;
                    path.siblings[node].elements[node % 4] += F::ONE;
                }));
            }
        }
        for (step, values) in round.steps.iter().enumerate() {
            for value in 0..values.evals.len() {
                changes.push(fri(format!("query {query}, step {step}, value {value}"), move |fri| {
                    fri.query_round_proofs[query].steps[step].evals[value] += K::ONE;
                }));
            }
            for node in 0..values.merkle_proof.siblings.len() {
                changes.push(fri(format!("query {query}, step {step}, sibling {node}"), move |fri| {
                    fri.query_round_proofs[query].steps[step].merkle_proof.siblings[node].elements[node % 4] += F::ONE;
                }));
            }
        }
    }
    changes
}

/// Wrong lengths of every list.
pub fn length_changes(shape: &LayerShape, _: &LayerClaim, proof: &LayerProof) -> Vec<Change> {
    let cap = 1usize << shape.fri.config.cap_height;
    let trees = proof.fri.commit_phase_merkle_caps.len();
    let mut changes = vec![
        change("theta shorter", shape_error("theta", theta::LENGTH - 1, theta::LENGTH), |c, _| shorten(&mut c.theta)),
        change("theta longer", shape_error("theta", theta::LENGTH + 1, theta::LENGTH), |c, _| c.theta.push(F::ZERO)),
        change("theta empty", shape_error("theta", 0, theta::LENGTH), |c, _| c.theta.clear()),
        change("fri caps fewer", shape_error("fri caps", trees - 1, trees), |_, p| shorten(&mut p.fri.commit_phase_merkle_caps)),
        change("fri caps more", shape_error("fri caps", trees + 1, trees), |_, p| {
            let first = p.fri.commit_phase_merkle_caps[0].clone();
            p.fri.commit_phase_merkle_caps.push(first);
        }),
        change("fri cap of three", shape_error("cap", 3, cap), |_, p| p.fri.commit_phase_merkle_caps[0].0.truncate(3)),
    ];
    for oracle in 0..4 {
        changes.push(change("cap empty", shape_error("cap", 0, cap), move |_, p| p.caps[oracle] = MerkleCap(vec![])));
        changes.push(change("cap halved", shape_error("cap", cap / 2, cap), move |_, p| p.caps[oracle].0.truncate(cap / 2)));
        changes.push(change("cap doubled", shape_error("cap", 2 * cap, cap), move |_, p| {
            let again = p.caps[oracle].0.clone();
            p.caps[oracle].0.extend(again);
        }));
    }
    for (batch, length) in shape.batch_lengths().into_iter().enumerate() {
        let longer = shape_error("openings", length + 1, length);
        changes.push(change(format!("batch {batch} longer"), longer, move |_, p| p.openings[batch].push(K::ZERO)));
        if length > 0 {
            let shorter = shape_error("openings", length - 1, length);
            changes.push(change(format!("batch {batch} shorter"), shorter, move |_, p| shorten(&mut p.openings[batch])));
            changes.push(change(format!("batch {batch} empty"), shape_error("openings", 0, length), move |_, p| p.openings[batch].clear()));
        }
    }
    changes.extend(fri_length_changes(shape));
    changes
}

fn fri_length_changes(shape: &LayerShape) -> Vec<Change> {
    let fri = &shape.fri;
    let (final_poly, queries, foldings) = (fri.final_poly_len(), fri.config.num_query_rounds, fri.reduction_arity_bits.len());
    let (values, height) = (1usize << fri.reduction_arity_bits[0], fri.lde_bits() - fri.config.cap_height);
    let fold_height = height - fri.reduction_arity_bits[0];
    let row = shape.oracle_widths()[1];
    let of = |part: &'static str, got: usize, expected: usize, edit: fn(&mut FriProof<F, H, D>)| {
        change(format!("{part} of {got}"), shape_error(part, got, expected), move |_, proof| edit(&mut proof.fri))
    };
    vec![
        of("final polynomial", final_poly - 1, final_poly, |fri| shorten(&mut fri.final_poly.coeffs)),
        of("final polynomial", final_poly + 1, final_poly, |fri| fri.final_poly.coeffs.push(K::ZERO)),
        of("final polynomial", 0, final_poly, |fri| fri.final_poly.coeffs.clear()),
        of("queries", 0, queries, |fri| fri.query_round_proofs.clear()),
        of("queries", queries - 1, queries, |fri| shorten(&mut fri.query_round_proofs)),
        of("queries", queries + 1, queries, |fri| {
            let first = fri.query_round_proofs[0].clone();
            fri.query_round_proofs.push(first);
        }),
        of("foldings of a query", foldings - 1, foldings, |fri| shorten(&mut fri.query_round_proofs[0].steps)),
        of("foldings of a query", foldings + 1, foldings, |fri| {
            let first = fri.query_round_proofs[0].steps[0].clone();
            fri.query_round_proofs[0].steps.push(first);
        }),
        of("values of a folding", values - 1, values, |fri| shorten(&mut fri.query_round_proofs[0].steps[0].evals)),
        of("values of a folding", 0, values, |fri| fri.query_round_proofs[0].steps[0].evals.clear()),
        of("path of a folding", fold_height - 1, fold_height, |fri| {
            shorten(&mut fri.query_round_proofs[0].steps[0].merkle_proof.siblings);
        }),
        of("oracles of a query", 3, 4, |fri| shorten(&mut fri.query_round_proofs[0].initial_trees_proof.evals_proofs)),
        of("oracles of a query", 0, 4, |fri| fri.query_round_proofs[0].initial_trees_proof.evals_proofs.clear()),
        of("oracles of a query", 5, 4, |fri| {
            let proofs = &mut fri.query_round_proofs[0].initial_trees_proof.evals_proofs;
            proofs.push(proofs[0].clone());
        }),
        of("row of an oracle", row - 1, row, |fri| shorten(&mut fri.query_round_proofs[0].initial_trees_proof.evals_proofs[1].0)),
        of("row of an oracle", row + 1, row, |fri| fri.query_round_proofs[0].initial_trees_proof.evals_proofs[1].0.push(F::ZERO)),
        of("row of an oracle", 0, row, |fri| fri.query_round_proofs[0].initial_trees_proof.evals_proofs[1].0.clear()),
        of("path of an oracle", height - 1, height, |fri| {
            shorten(&mut fri.query_round_proofs[0].initial_trees_proof.evals_proofs[2].1.siblings);
        }),
        of("path of an oracle", height + 1, height, |fri| {
            let path = &mut fri.query_round_proofs[0].initial_trees_proof.evals_proofs[2].1.siblings;
            path.push(path[0]);
        }),
        of("path of an oracle", 0, height, |fri| {
            fri.query_round_proofs[0].initial_trees_proof.evals_proofs[2].1.siblings.clear();
        }),
    ]
}
