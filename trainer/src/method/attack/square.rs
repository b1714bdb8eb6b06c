//! Square (Andriushchenko et al. 2020; square.py of AutoAttack): a random search without gradients.

mod bump;

use tch::{Kind, Tensor};

use crate::config::Norm;
use crate::method::attack::objective::margin;
use crate::method::attack::search::per_image;
use crate::method::attack::square::bump::{Bump, first_moves, lines, numbers_of_first_moves, shape};
use crate::method::attack::{Ball, Noise, Search, Subject};

/// Tries changes in ever smaller square windows at the surface of the ball and keeps those that lower the margin. In
/// L-infinity a change is one colour. In L2 it is a bump, and a second window gives up its part of the radius.
///
/// AutoAttack shares windows and draws among the images of a batch. Here each image has its own, so that its outcome
/// does not depend on the batch.
#[derive(Debug, Clone, Copy)]
pub struct Square {
    /// The ball of the search.
    pub ball: Ball,
    /// The number of squares tried after the first image; AutoAttack takes 5,000.
    pub queries: usize,
}

impl Search for Square {
    fn search(&self, subject: &Subject, images: &Tensor, labels: &Tensor, noise: &Noise) -> Tensor {
        let mut state = State::start(self.ball, subject, images, labels, noise);
        for query in 0..self.queries {
            // The check makes the host wait for the device, so it happens rarely. Broken images do not change any more.
            if query % 10 == 0 && !bool::try_from(state.margin.gt(0.0).any()).unwrap_or(true) {
                break;
            }
            state.advance(query);
        }
        state.best
    }
}

/// The state of the search on a batch.
struct State<'a> {
    ball: Ball,
    subject: &'a Subject<'a>,
    images: Tensor,
    labels: &'a Tensor,
    noise: &'a Noise,
    /// The random numbers of a block of queries, in L-infinity, and the number of the block.
    numbers: Option<(i64, Tensor)>,
    /// The images of the lowest margins so far, and these margins.
    best: Tensor,
    margin: Tensor,
    /// The bump of the last query, in L2.
    bump: Option<Bump>,
}

impl<'a> State<'a> {
    /// Starts in L-infinity with vertical stripes: each column of each channel at one of the two ends of the ball.
    /// Starts in L2 with bumps side by side.
    fn start(ball: Ball, subject: &'a Subject<'a>, images: &Tensor, labels: &'a Tensor, noise: &'a Noise) -> Self {
        let images = images.detach();
        let [_, channels, _, width] = shape(&images);
        let first = match ball.norm {
            Norm::Linf => {
                let drawn = noise.uniform_from(0, channels * width, images.kind());
                let stripes = signs(&drawn).view([-1, channels, 1, width]);
                ball.project(&images, &(&images + stripes * ball.eps))
            }
            Norm::L2 => {
                let drawn = noise.uniform_from(0, numbers_of_first_moves(&images), Kind::Double);
                ball.towards(&images, &first_moves(&images, &drawn))
            }
        };
        Self::start_at(first, ball, subject, images, labels, noise)
    }

    /// Starts at `first`.
    fn start_at(
        first: Tensor,
        ball: Ball,
        subject: &'a Subject<'a>,
        images: Tensor,
        labels: &'a Tensor,
        noise: &'a Noise,
    ) -> Self {
        let margin = margin(&subject.logits(&first), labels);
        // Queries change pixels through views of a channel's rows, one after another.
        let best = first.contiguous();
        Self { ball, subject, images, labels, noise, numbers: None, best, margin, bump: None }
    }

    fn advance(&mut self, query: usize) {
        match self.ball.norm {
            Norm::Linf => self.colour(query),
            Norm::L2 => {
                let candidate = self.bumped(query);
                self.take(&candidate);
            }
        }
    }

    /// Keeps `candidate` for the images whose margin it lowers.
    fn take(&mut self, candidate: &Tensor) {
        let better = self.compare(candidate);
        self.best = candidate.where_self(&per_image(&better), &self.best);
    }

    /// The images whose margin `candidate` lowers, `[N]`. Their margins are lowered.
    fn compare(&mut self, candidate: &Tensor) -> Tensor {
        let margin = margin(&self.subject.logits(candidate), self.labels);
        let better = margin.lt_tensor(&self.margin).logical_and(&self.margin.gt(0.0));
        self.margin = margin.where_self(&better, &self.margin);
        better
    }

    /// Changes the best images by a square of one colour each, and changes those back whose margin is not lower then. Late
    /// squares are small: nothing outside of them is read or written.
    fn colour(&mut self, query: usize) {
        let [_, channels, height, width] = shape(&self.images);
        let draws = self.numbers_of(query, 2 + channels);
        let side = side(query, height, width);
        let lines = |column: i64, length: i64| lines(&draws.narrow(1, column, 1), side, length);
        let window = lines(0, height).unsqueeze(2) * width + lines(1, width).unsqueeze(1);
        let window = window.view([-1, 1, side * side]).expand([-1, channels, side * side], false);
        let colour = signs(&draws.narrow(1, 2, channels)).unsqueeze(2).to_kind(self.images.kind());

        let mut pixels = self.best.flatten(2, -1);
        let before = pixels.gather(2, &window, false);
        let natural = self.images.flatten(2, -1).gather(2, &window, false);
        let after = self.ball.project(&natural, &(&before + colour * (2.0 * self.ball.eps)));
        let _ = pixels.scatter_(2, &window, &after);
        let better = self.compare(&self.best.shallow_clone());
        let _ = pixels.scatter_(2, &window, &after.where_self(&better.view([-1, 1, 1]), &before));
    }

    /// The random numbers `[N, count]` of a query. Those of a block of queries are computed at once. In double precision, a
    /// number below 1 times a size stays below the size.
    fn numbers_of(&mut self, query: usize, count: i64) -> Tensor {
        const BLOCK: i64 = 50;
        let [_, channels, _, width] = shape(&self.images);
        let (block, place) = (query as i64 / BLOCK, query as i64 % BLOCK);
        let known = self.numbers.take().filter(|(number, _)| *number == block);
        let first = channels * width + block * BLOCK * count;
        let drawn = || (block, self.noise.uniform_from(first, BLOCK * count, Kind::Double));
        let (_, numbers) = self.numbers.insert(known.unwrap_or_else(drawn));
        numbers.narrow(1, place * count, count)
    }

    /// The best images, each with a bump in one window and no change in another.
    fn bumped(&mut self, query: usize) -> Tensor {
        let [_, channels, height, width] = shape(&self.images);
        let numbers = 5 + channels;
        let first = numbers_of_first_moves(&self.images) + query as i64 * numbers;
        let draws = self.noise.uniform_from(first, numbers, Kind::Double);
        let side = odd_side(query, height, width);
        let known = self.bump.take().filter(|bump| bump.side == side);
        let bump = known.unwrap_or_else(|| Bump::new(side, &self.images));
        let moves = bump.exchange(&(&self.best - &self.images), self.ball.eps, &draws);
        self.bump = Some(bump);
        self.ball.towards(&self.images, &moves)
    }
}

/// The side of the squares: their share of the image halves on a fixed schedule.
fn side(query: usize, height: i64, width: i64) -> i64 {
    const HALVED_AFTER: [usize; 9] = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000];
    let halvings = HALVED_AFTER.iter().filter(|&&after| query > after).count();
    let share = 0.8 / f64::from(1u32 << halvings);
    let side = (share * (height * width) as f64).sqrt().round_ties_even() as i64;
    side.clamp(1, height.min(width))
}

/// The side of the windows in L2: the same, but at least 3 and odd, and at most the image.
fn odd_side(query: usize, height: i64, width: i64) -> i64 {
    (side(query, height, width).max(3) | 1).min(height.min(width))
}

/// 1 for the lower half of [0, 1), -1 for the upper.
fn signs(uniform: &Tensor) -> Tensor {
    uniform.lt(0.5).to_kind(uniform.kind()) * 2.0 - 1.0
}

#[cfg(test)]
mod tests;
