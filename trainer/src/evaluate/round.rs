//! A round: one attack, towards one class, and its search on a batch.

use datasets::Draws;
use datasets::random::Purpose;
use tch::Tensor;

use super::{Method, Protocol, Suite};
use crate::attack::{ApgdCe, ApgdT, Attack as _, Ball, CwInf, FabT, Noise, Norm, Pgd, Search, Square, Start, Subject};
use crate::loss::log_probability_of;
use crate::model::{Mode, Model};

/// One method, towards one class by its rank, on all images that it is for.
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    /// The place of its attack in the suite.
    pub attack: usize,
    /// The place of its method in the attack.
    pub component: usize,
    /// The method's name, by which its random numbers are known.
    pub name: String,
    /// The method.
    pub method: Method,
    /// The class it draws towards: the one with the so many-th largest logit on the image itself.
    pub target: Option<usize>,
    /// About how many forward passes it takes for an image.
    pub cost: f64,
}

impl Round {
    /// Its random numbers: a stream of its own for each method and target.
    pub fn draws(&self, seed: u64) -> Draws {
        let number = self.name.bytes().fold(0u32, |number, byte| number.wrapping_mul(31).wrapping_add(byte.into()));
        Draws::new(seed, Purpose::Evaluation(number), self.target.unwrap_or(0) as u64)
    }

    /// Its name in the table of samples and in progress, for instance `apgd_t:3`.
    pub fn label(&self, suite: &Suite) -> String {
        let attack = &suite.attacks[self.attack];
        let name =
            if attack.components.len() > 1 { format!("{}/{}", attack.name, self.name) } else { self.name.clone() };
        self.target.map_or(name.clone(), |target| format!("{name}:{target}"))
    }

    /// What it finds for each of `images [N, C, H, W]`; in the ball, if all goes well.
    pub fn search(
        &self,
        model: &Model,
        protocol: &Protocol,
        images: &Tensor,
        labels: &Tensor,
        noise: &Noise,
    ) -> Tensor {
        let ball = Ball { norm: Norm::Linf, eps: protocol.eps };
        let (eps, step, target) = (protocol.eps, protocol.step, self.target.unwrap_or(2));
        let (iterations, queries) = (protocol.autoattack.iterations as usize, protocol.autoattack.queries as usize);
        let forward = |images: &Tensor| model.logits(images, Mode::Eval);
        let ascend = |pgd: Pgd| {
            let objective = |candidate: &Tensor| -log_probability_of(&forward(candidate), labels).sum(images.kind());
            pgd.perturb(images, noise, &objective)
        };
        let search = |search: &dyn Search| search.search(&Subject::new(&forward), images, labels, noise);
        match self.method {
            Method::Natural => images.shallow_clone(),
            Method::Fgsm(start) => ascend(Pgd { eps, step: eps, steps: 1, start, clamp_start: true }),
            Method::Pgd(steps) => ascend(Pgd { eps, step, steps, start: Start::Uniform, clamp_start: true }),
            Method::CwInf => search(&CwInf { ball, step, steps: 30 }),
            Method::ApgdCe => search(&ApgdCe { ball, iterations }),
            Method::ApgdT => search(&ApgdT { ball, iterations, target }),
            Method::FabT => search(&FabT { ball, iterations, target }),
            Method::Square => search(&Square { ball, queries }),
        }
    }
}
