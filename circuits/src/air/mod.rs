//! Constraints as data: written once, interpreted by the prover, the verifier and the recursive circuit.

pub mod algebra;
pub mod builder;
pub mod expr;
pub mod system;

pub use algebra::{Algebra, InCircuit, Native};
pub use builder::SystemBuilder;
pub use expr::{Arena, Cell, Field2, Leaves, Node, ORACLES, Op, OracleId, Rotation};
pub use system::{Constraint, ConstraintSystem, Domain, Rule, Summand, Total};
