//! Attacks: they search images near the given ones that a network misclassifies. The losses of training are unknown
//! here: the objective is a function.

mod apgd;
mod cw;
mod fab;
mod n_fgsm;
mod noise;
mod norm;
mod objective;
mod pgd;
mod search;
mod square;

use tch::Tensor;

pub use self::apgd::{ApgdCe, ApgdMargin, ApgdT};
pub use self::cw::CwInf;
pub use self::fab::FabT;
pub use self::n_fgsm::NFgsm;
pub use self::noise::Noise;
pub use self::norm::Ball;
pub use self::objective::predictions;
pub use self::pgd::Pgd;
pub use self::search::{Search, Slope, Subject};
pub use self::square::Square;

/// Searches adversarial images.
pub trait Attack: Send {
    /// Searches images near `images [N, C, H, W]` that raise `objective` (a scalar, the sum over the samples). The
    /// result lies in [0, 1] and is detached. Random numbers come from `noise` alone.
    fn perturb(&self, images: &Tensor, noise: &Noise, objective: &dyn Fn(&Tensor) -> Tensor) -> Tensor;
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
