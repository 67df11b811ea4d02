//! Writes the exposition and serves it.
pub mod text;
