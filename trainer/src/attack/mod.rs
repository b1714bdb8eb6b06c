//! Attacks: images near the given ones that a network finds hard. Knows nothing of the losses of training: there the
//! objective is a function.

mod apgd;
mod cw;
mod fab;
mod noise;
mod objective;
mod pgd;
mod search;
mod square;

use tch::Tensor;

pub use self::apgd::{ApgdCe, ApgdT};
pub use self::cw::CwInf;
pub use self::fab::FabT;
pub use self::noise::Noise;
pub use self::objective::predictions;
pub use self::pgd::{Pgd, Start};
pub use self::search::{Ball, Norm, Search, Slope, Subject};
pub use self::square::Square;

/// Searches adversarial images.
pub trait Attack: Send {
    /// Images near `images [N, C, H, W]`, in [0, 1] and cut off from any graph, with a higher `objective` (a scalar, the
    /// sum over the samples). Random numbers come from `noise` alone.
    fn perturb(&self, images: &Tensor, noise: &Noise, objective: &dyn Fn(&Tensor) -> Tensor) -> Tensor;
}

#[cfg(test)]
mod tests;
