//! The method: the student and its teachers in memory, their predictions, the arithmetic of a loss term, number formats,
//! attacks.
//!
//! Uses `system`, `config` and `model`. Read [`networks`], [`pass_plan`], [`views`] and [`loss`] in this order, and [`memory`] for
//! methods that remember something; [`attack`] depends on none of them.

pub mod attack;
pub mod loss;
pub mod memory;
pub mod networks;
pub mod pass_plan;
mod precision;
pub mod views;
