//! Attacks: images near the given ones that a network finds hard. Knows nothing of losses: the objective is a function.

mod noise;
mod pgd;
mod search;

use tch::Tensor;

pub use self::noise::Noise;
pub use self::pgd::{Pgd, Start};
pub use self::search::{Ball, Norm, Search, Slope, Subject};

/// Searches adversarial images.
pub trait Attack: Send {
    /// Images near `images [N, C, H, W]`, in [0, 1] and cut off from any graph, with a higher `objective` (a scalar, the
    /// sum over the samples). Random numbers come from `noise` alone.
    fn perturb(&self, images: &Tensor, noise: &Noise, objective: &dyn Fn(&Tensor) -> Tensor) -> Tensor;
}
