//! The recursion around layers that verify nothing: what the nodes themselves enforce.

mod accept;
mod dishonest;
mod fixture;
mod refuse;
mod sizes;
mod stored;
