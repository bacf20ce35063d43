//! Ways to get the protocol wrong, each with the attack that would then succeed: refused here, or shown to be harmless.
#![cfg(feature = "prover")]
#![allow(missing_docs, unreachable_pub)]

mod pitfalls;
mod support;
