//! Parts of constraint systems that several operators share.

pub mod lookup;
pub mod powers;
pub mod requantize;
pub mod table;
