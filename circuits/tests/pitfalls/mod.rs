//! One module for each pitfall.

mod clamp_edges;
mod degree_n;
mod equivocation;
mod framing;
mod input_copies;
mod late_totals;
mod lookups;
mod multipliers;
mod no_wrap;
mod shared_tensors;
mod transcript_order;
