//! Square (Andriushchenko et al. 2020; square.py of AutoAttack): a random search that needs no gradients.

use tch::{Kind, Tensor};

use super::Noise;
use super::objective::margin;
use super::search::{Ball, Search, Subject, per_image};

/// Tries squares of one colour at the surface of the ball, smaller and smaller, and keeps those that lower the margin.
///
/// AutoAttack shares the square and its colour among the images of a batch. Here each image has its own, so that its outcome
/// does not depend on the batch.
#[derive(Debug, Clone, Copy)]
pub struct Square {
    /// Where it searches.
    pub ball: Ball,
    /// The number of squares tried after the first image; AutoAttack takes 5,000.
    pub queries: usize,
}

impl Search for Square {
    fn search(&self, subject: &Subject, images: &Tensor, labels: &Tensor, noise: &Noise) -> Tensor {
        let mut state = State::start(self.ball, subject, images, labels, noise);
        for query in 0..self.queries {
            // The host waits for the device now and then; images that have fallen stay as they are in any case.
            if query % 10 == 0 && !bool::try_from(state.margin.gt(0.0).any()).unwrap_or(true) {
                break;
            }
            state.advance(query);
        }
        state.best
    }
}

/// A run of the search on a batch.
struct State<'a> {
    ball: Ball,
    subject: &'a Subject<'a>,
    images: Tensor,
    labels: &'a Tensor,
    noise: &'a Noise,
    /// The images of the lowest margins so far, and these.
    best: Tensor,
    margin: Tensor,
}

impl<'a> State<'a> {
    /// Begins with vertical stripes: each column of each channel at one of the two ends of the ball.
    fn start(ball: Ball, subject: &'a Subject<'a>, images: &Tensor, labels: &'a Tensor, noise: &'a Noise) -> Self {
        let images = images.detach();
        let [_, channels, _, width] = shape(&images);
        let stripes = signs(&noise.uniform_from(0, channels * width, images.kind())).view([-1, channels, 1, width]);
        let best = ball.project(&images, &(&images + stripes * ball.eps));
        let margin = margin(&subject.logits(&best), labels);
        Self { ball, subject, images, labels, noise, best, margin }
    }

    fn advance(&mut self, query: usize) {
        let [_, channels, height, width] = shape(&self.images);
        let first = channels * width + query as i64 * (2 + channels);
        // In double precision a number below 1, times a size, stays below the size.
        let draws = self.noise.uniform_from(first, 2 + channels, Kind::Double);
        let side = side(query, height, width);
        let within = |column: i64, length: i64| {
            let corner = (draws.narrow(1, column, 1) * (length - side) as f64).floor();
            let place = Tensor::arange(length, (Kind::Double, draws.device())).unsqueeze(0);
            place.ge_tensor(&corner).logical_and(&place.lt_tensor(&(corner + side as f64)))
        };
        let window = within(0, height).unsqueeze(2).logical_and(&within(1, width).unsqueeze(1)).unsqueeze(1);
        let colour = signs(&draws.narrow(1, 2, channels)).view([-1, channels, 1, 1]).to_kind(self.images.kind());
        let change = window.to_kind(self.images.kind()) * (colour * (2.0 * self.ball.eps));
        let candidate = self.ball.project(&self.images, &(&self.best + change));

        let margin = margin(&self.subject.logits(&candidate), self.labels);
        let better = margin.lt_tensor(&self.margin).logical_and(&self.margin.gt(0.0));
        self.best = candidate.where_self(&per_image(&better), &self.best);
        self.margin = margin.where_self(&better, &self.margin);
    }
}

/// The sides of the squares: the share of the image that they cover halves on a fixed schedule.
fn side(query: usize, height: i64, width: i64) -> i64 {
    const HALVED_AFTER: [usize; 9] = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000];
    let halvings = HALVED_AFTER.iter().filter(|&&after| query > after).count();
    let share = 0.8 / f64::from(1u32 << halvings);
    let side = (share * (height * width) as f64).sqrt().round_ties_even() as i64;
    side.clamp(1, height.min(width))
}

/// 1 for the lower half of [0, 1), -1 for the upper.
fn signs(uniform: &Tensor) -> Tensor {
    uniform.lt(0.5).to_kind(uniform.kind()) * 2.0 - 1.0
}

fn shape(images: &Tensor) -> [i64; 4] {
    images.size4().map(|(count, channels, height, width)| [count, channels, height, width]).unwrap_or_default()
}

#[cfg(test)]
mod tests;
