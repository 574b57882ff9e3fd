//! One process per loaded model: the agent's own executable, started again as `worker`.
//!
//! [`protocol`] is what the two say to each other over the child's standard streams; [`parent`]
//! is the agent's end, behind a [`queue`] of requests; [`child`] the model's, which closes its [`sandbox`]
//! before it reads the first byte of a model, checks [`golden`] vectors, and runs requests [`together`].

pub mod child;
pub mod golden;
pub mod parent;
pub mod protocol;
pub mod queue;
pub mod sandbox;
pub mod together;
