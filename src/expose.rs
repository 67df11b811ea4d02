//! Writes the exposition and serves it.
pub mod negotiate;
pub mod own;
