//! `[grad_align]`: alignment of the loss's gradients near each image.

use serde::{Deserialize, Serialize};

/// `[grad_align]`
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GradAlign {
    /// The weight of the regulariser in the loss.
    pub weight: f64,
}

impl GradAlign {
    /// The name of the regulariser among the terms of the loss.
    pub const NAME: &'static str = "grad_align";
}
