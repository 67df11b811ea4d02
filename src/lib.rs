//! Statsieve.

pub mod admit;
pub mod aggregate;
pub mod command;
pub mod config;
pub mod expose;
pub mod identity;
pub mod listen;
pub mod map;
pub mod model;
pub mod parse;
pub mod pipeline;
pub mod telemetry;
