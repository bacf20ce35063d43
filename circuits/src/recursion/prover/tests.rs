//! The recursion around layers that verify nothing: what the nodes themselves enforce; and around real layers: what it is for.

mod accept;
mod dishonest;
mod fixture;
mod lattice;
mod other_keys;
mod other_models;
mod real;
mod refuse;
mod sizes;
mod stored;
