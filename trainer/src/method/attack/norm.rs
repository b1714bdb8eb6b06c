//! The one place where attacks differ by norm: distance, projection, steepest direction and random starts.

use tch::{Kind, Tensor};

use crate::config::Norm;
use crate::method::attack::Noise;

/// Keeps the direction of a zero vector at 0, as in AutoAttack.
const TINY: f64 = 1e-12;

/// The images within `eps` of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ball {
    /// The norm.
    pub norm: Norm,
    /// The radius, in units of the pixel range [0, 1].
    pub eps: f64,
}

/// The points of a ball around `images [N, C, H, W]` that lie in [0, 1].
pub struct Surroundings {
    ball: Ball,
    images: Tensor,
    /// The lower and upper bound of each pixel; `None` if the norm bounds no single pixel.
    bounds: Option<(Tensor, Tensor)>,
}

impl Ball {
    /// The ball around `images [N, C, H, W]`.
    pub fn around(self, images: &Tensor) -> Surroundings {
        let bounds = match self.norm {
            Norm::Linf => Some(((images - self.eps).clamp_min(0.0), (images + self.eps).clamp_max(1.0))),
            Norm::L2 => None,
        };
        Surroundings { ball: self, images: images.shallow_clone(), bounds }
    }

    /// A point of the ball around `images` and of [0, 1] near `candidate`; see `Surroundings::project`.
    pub fn project(self, images: &Tensor, candidate: &Tensor) -> Tensor {
        self.around(images).project(candidate)
    }

    /// The steepest direction of unit length; 0 where the gradient is 0.
    pub fn direction(self, gradient: &Tensor) -> Tensor {
        match self.norm {
            Norm::Linf => gradient.sign(),
            Norm::L2 => unit(gradient),
        }
    }

    /// The distance of each of `candidate` from its image, `[N]`.
    pub fn distance(self, images: &Tensor, candidate: &Tensor) -> Tensor {
        let moved = candidate - images;
        match self.norm {
            Norm::Linf => moved.abs().flatten(1, -1).amax([1i64].as_slice(), false),
            Norm::L2 => length(&moved).flatten(0, -1),
        }
    }

    /// The tolerance for rounding in float32.
    pub fn tolerance(self) -> f64 {
        1e-6 * self.eps.max(1.0)
    }

    /// A random point of the ball, not clamped to [0, 1]. In L-infinity it is uniform. In L2 the direction and the
    /// radius are uniform (Rice, Wong and Kolter 2020), so points are denser near the centre. The radius uses the
    /// random number after those of the pixels.
    pub fn inner_point(self, images: &Tensor, noise: &Noise) -> Tensor {
        match self.norm {
            Norm::Linf => images + (noise.uniform(images) * 2.0 - 1.0) * self.eps,
            Norm::L2 => {
                let pixels = images.size()[1..].iter().product();
                let radius = noise.uniform_from(pixels, 1, images.kind()).view([-1, 1, 1, 1]) * self.eps;
                images + unit(&noise.normal(images)) * radius
            }
        }
    }

    /// A random point of the ball's surface, clamped to [0, 1].
    pub fn surface_point(self, images: &Tensor, noise: &Noise) -> Tensor {
        match self.norm {
            Norm::Linf => {
                let direction = noise.uniform(images) * 2.0 - 1.0;
                let longest = self.distance(&direction.zeros_like(), &direction).view([-1, 1, 1, 1]) + TINY;
                self.project(images, &(images + direction / longest * self.eps))
            }
            Norm::L2 => self.towards(images, &noise.normal(images)),
        }
    }

    /// The point of the ball's surface in the direction of each of `moves`, clamped to [0, 1] (L2).
    pub fn towards(self, images: &Tensor, moves: &Tensor) -> Tensor {
        (images + unit(moves) * self.eps).clamp(0.0, 1.0)
    }
}

impl Surroundings {
    /// A point of the ball and of [0, 1] near `candidate [N, C, H, W]`. In L-infinity it is the nearest one. In L2 it
    /// is the nearest point of the ball, clamped to [0, 1]: still in the ball, but not the nearest such point.
    pub fn project(&self, candidate: &Tensor) -> Tensor {
        match &self.bounds {
            // Both intervals contain the image, so one clamp to their intersection is enough.
            Some((lowest, highest)) => candidate.clamp_tensor(Some(lowest), Some(highest)),
            None => {
                let moved = candidate - &self.images;
                let length = length(&moved);
                (&self.images + moved * (length.clamp_max(self.ball.eps) / (length + TINY))).clamp(0.0, 1.0)
            }
        }
    }

    /// Like `project`, but clamps to [0, 1] first, as TRADES does. In L-infinity the order does not matter.
    pub fn project_clamped(&self, candidate: &Tensor) -> Tensor {
        match self.ball.norm {
            Norm::Linf => self.project(candidate),
            Norm::L2 => self.project(&candidate.clamp(0.0, 1.0)),
        }
    }
}

/// The Euclidean length of each of `vectors [N, C, H, W]`, `[N, 1, 1, 1]`, summed up in double precision.
pub(super) fn length(vectors: &Tensor) -> Tensor {
    let squares = vectors.square().sum_dim_intlist([1i64, 2, 3].as_slice(), true, Kind::Double);
    squares.sqrt().to_kind(vectors.kind())
}

/// Scales each of `vectors` to length 1; a zero vector stays 0.
fn unit(vectors: &Tensor) -> Tensor {
    vectors / (length(vectors) + TINY)
}

#[cfg(test)]
mod tests;
