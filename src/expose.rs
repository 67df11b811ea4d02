//! Writes the exposition and serves it.
