//! Free adversarial training (Shafahi et al., NeurIPS 2019): each batch is replayed, and the backward pass of each replay gives
//! the gradient of the weights and that of the images, which moves the perturbation for the next replay.

use std::cell::RefCell;

use tch::{Tensor, no_grad};

use crate::config::{AttackConfig, AttackKind};
use crate::method::attack::{Noise, Pgd};

/// The perturbation of a batch over its replays. It begins at the start of the configuration with each batch.
pub struct Free {
    search: Pgd,
    replays: usize,
    images: RefCell<Option<Tensor>>,
}

impl Free {
    /// The attack of this configuration, if it is of the kind `free`.
    pub fn new(config: &AttackConfig) -> Option<Self> {
        let free = config.kind == AttackKind::Free;
        free.then(|| Self { search: config.pgd(), replays: config.replays, images: RefCell::default() })
    }

    /// Begins a new batch. Returns how often it is replayed.
    pub fn begin(&self) -> usize {
        self.images.replace(None);
        self.replays
    }

    /// The images of this replay, near `natural [N, C, H, W]`. A backward pass leaves its gradient with them.
    pub fn images(&self, natural: &Tensor, noise: &Noise) -> Tensor {
        let now = self.images.take().unwrap_or_else(|| self.search.start(natural, noise));
        now.detach().set_requires_grad(true)
    }

    /// Moves the `images` of this replay up the loss whose gradient lies with them, for the next replay.
    pub fn climb(&self, natural: &Tensor, images: &Tensor) {
        let Self { search, .. } = self;
        let gradient = images.grad();
        // A rank without images has none.
        let gradient = if gradient.defined() { gradient } else { images.zeros_like() };
        let moved = no_grad(|| images.detach() + search.ball.direction(&gradient) * search.step);
        self.images.replace(Some(no_grad(|| search.ball.around(natural).project(&moved))));
    }
}

#[cfg(test)]
mod tests {
    use datasets::Draws;
    use datasets::random::Purpose;
    use tch::{Device, Kind};

    use super::*;
    use crate::fixtures::{parse, pattern};

    /// Replays climb like the steps of a search by the same gradients, from the same start, and a new batch begins anew.
    #[test]
    fn replays_of_fixed_weights_are_the_steps_of_a_search() {
        let changes = ["kind=free", "batch_norm=train_update", "replays=3", "eps=0.1", "step=0.04"];
        let changes = changes.map(|change| format!("attack.{change}"));
        let config = parse(&changes.each_ref().map(String::as_str)).unwrap();
        let free = Free::new(&config.attack).unwrap();
        let natural = pattern(2 * 3 * 16 * 16, 5).view([2, 3, 16, 16]);
        let weights = pattern(2 * 3 * 16 * 16, 6).view([2, 3, 16, 16]) - 0.5;
        let objective = |images: &Tensor| ((images - 0.5).square() * &weights).sum(Kind::Double);
        let noise = Noise::new(&Draws::new(3, Purpose::AttackStart, 1), &[4, 9], Device::Cpu);
        for _ in 0..2 {
            for steps in 0..free.begin() {
                let found = free.images(&natural, &noise);
                let start = free.search.start(&natural, &noise);
                let expected = Pgd { steps, ..free.search.clone() }.ascend(&natural, start, &objective);
                assert!(found.requires_grad() && found.detach().equal(&expected.detach()), "after {steps} replays");
                objective(&found).backward();
                free.climb(&natural, &found);
            }
        }
        assert!(Free::new(&parse(&[]).unwrap().attack).is_none());
    }
}
