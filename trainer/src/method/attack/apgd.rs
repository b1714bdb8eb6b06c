//! Auto-PGD (Croce and Hein 2020; autopgd_base.py of AutoAttack): gradient ascent with momentum
//! whose steps shrink, image by image, when the objective stops rising.

use std::mem::replace;

use tch::{Kind, Tensor};

use crate::method::attack::norm::Surroundings;
use crate::method::attack::objective::{cross_entropy, difference_ratio, margin, ranked};
use crate::method::attack::search::{Found, per_image};
use crate::method::attack::{Ball, Noise, Search, Slope, Subject, predictions};

/// Auto-PGD on the cross-entropy.
#[derive(Debug, Clone, Copy)]
pub struct ApgdCe {
    /// The ball of the search.
    pub ball: Ball,
    /// The number of steps; AutoAttack takes 100.
    pub iterations: usize,
}

impl Search for ApgdCe {
    fn search(&self, subject: &Subject, images: &Tensor, labels: &Tensor, noise: &Noise) -> Tensor {
        let objective = |logits: &Tensor| cross_entropy(logits, labels);
        Apgd::start(self.ball, subject, images, labels, noise, &objective).run(self.iterations)
    }
}

/// Auto-PGD on the margin between the label and the largest other logit. Unlike the cross-entropy it has a gradient however
/// large the logits are.
#[derive(Debug, Clone, Copy)]
pub struct ApgdMargin {
    /// The ball of the search.
    pub ball: Ball,
    /// The number of steps.
    pub iterations: usize,
}

impl Search for ApgdMargin {
    fn search(&self, subject: &Subject, images: &Tensor, labels: &Tensor, noise: &Noise) -> Tensor {
        let objective = |logits: &Tensor| -margin(logits, labels);
        Apgd::start(self.ball, subject, images, labels, noise, &objective).run(self.iterations)
    }
}

/// Auto-PGD on the targeted difference-of-logits ratio: towards one class per image.
#[derive(Debug, Clone, Copy)]
pub struct ApgdT<'a> {
    /// The ball of the search.
    pub ball: Ball,
    /// The number of steps; AutoAttack takes 100.
    pub iterations: usize,
    /// The target class of each image, by the rank of its logit on the image itself: 2 is the second largest. One number is
    /// for all images. Each target starts at a new random point, so each needs its own noise.
    pub targets: &'a [usize],
}

impl Search for ApgdT<'_> {
    fn search(&self, subject: &Subject, images: &Tensor, labels: &Tensor, noise: &Noise) -> Tensor {
        let targets = ranked(&subject.logits(images), self.targets);
        let objective = |logits: &Tensor| difference_ratio(logits, labels, &targets);
        Apgd::start(self.ball, subject, images, labels, noise, &objective).run(self.iterations)
    }
}

/// The state of the search on a batch, image by image.
struct Apgd<'a> {
    ball: Ball,
    surroundings: Surroundings,
    subject: &'a Subject<'a>,
    labels: &'a Tensor,
    objective: &'a dyn Fn(&Tensor) -> Tensor,
    /// The current point, and the point of the iteration before.
    point: Tensor,
    previous: Tensor,
    /// The gradient at `point`.
    gradient: Tensor,
    /// The objective after the last step, 0 before the first.
    last: Tensor,
    /// The best point, with its objective and gradient.
    best_point: Tensor,
    best_value: Tensor,
    best_gradient: Tensor,
    step: Tensor,
    /// The number of rises of the objective since the last check.
    rises: Tensor,
    /// Whether the last check shortened the step.
    shortened: Tensor,
    /// The highest objective at the last check.
    best_at_check: Tensor,
    found: Found,
}

impl<'a> Apgd<'a> {
    /// Starts at a random point of the ball's surface, clamped to [0, 1].
    fn start(
        ball: Ball,
        subject: &'a Subject<'a>,
        images: &Tensor,
        labels: &'a Tensor,
        noise: &Noise,
        objective: &'a dyn Fn(&Tensor) -> Tensor,
    ) -> Self {
        let images = images.detach();
        let point = ball.surface_point(&images, noise);
        Self::start_at(point, ball, subject, &images, labels, objective)
    }

    /// Starts at `point`.
    fn start_at(
        point: Tensor,
        ball: Ball,
        subject: &'a Subject<'a>,
        images: &Tensor,
        labels: &'a Tensor,
        objective: &'a dyn Fn(&Tensor) -> Tensor,
    ) -> Self {
        let Slope { logits, values, gradient } = subject.slope(&point, objective);
        let mut found = Found::none(images);
        found.keep(&point, &predictions(&logits).ne_tensor(labels));
        Self {
            previous: point.shallow_clone(),
            // AutoAttack compares the first step with the last row of its table, which is still empty: with 0, not with
            // the start.
            last: values.zeros_like(),
            best_point: point.shallow_clone(),
            best_value: values.shallow_clone(),
            best_gradient: gradient.shallow_clone(),
            step: values.full_like(2.0 * ball.eps),
            rises: values.zeros_like(),
            shortened: values.ones_like().to_kind(Kind::Bool),
            best_at_check: values,
            ball,
            surroundings: ball.around(images),
            subject,
            labels,
            objective,
            point,
            gradient,
            found,
        }
    }

    fn run(mut self, iterations: usize) -> Tensor {
        let mut checks = checks(iterations).into_iter().peekable();
        for iteration in 0..iterations {
            if self.found.all(iteration) {
                break;
            }
            self.advance(if iteration == 0 { 1.0 } else { 0.75 });
            if let Some((_, window)) = checks.next_if(|&(after, _)| after == iteration + 1) {
                self.check(window);
            }
        }
        self.found.images
    }

    /// One step: `share` of it along the gradient, the rest along the last move.
    fn advance(&mut self, share: f64) {
        let moved = self.moved(share);
        self.previous = replace(&mut self.point, moved);

        let Slope { logits, values, gradient } = self.subject.slope(&self.point, self.objective);
        self.found.keep(&self.point, &predictions(&logits).ne_tensor(self.labels));
        let higher = values.gt_tensor(&self.best_value);
        self.best_point = self.point.where_self(&per_image(&higher), &self.best_point);
        self.best_value = values.where_self(&higher, &self.best_value);
        self.best_gradient = gradient.where_self(&per_image(&higher), &self.best_gradient);
        self.rises += values.gt_tensor(&self.last).to_kind(values.kind());
        self.last = values;
        self.gradient = gradient;
    }

    /// The projection of x + share (P(x + step * direction) - x) + (1 - share) (x - x'), where x is the point, x' the one
    /// before and P the projection. Each sum is taken in place: images are many values.
    fn moved(&self, share: f64) -> Tensor {
        let mut ahead = self.ball.direction(&self.gradient);
        ahead *= per_image(&self.step).to_kind(self.point.kind());
        ahead += &self.point;
        let mut moved = self.surroundings.project(&ahead);
        moved -= &self.point;
        moved *= share;
        moved += &self.point;
        let mut inertia = &self.point - &self.previous;
        inertia *= 1.0 - share;
        moved += inertia;
        self.surroundings.project(&moved)
    }

    /// Halves the step of an image if its objective rose in at most 3 of 4 of the last `window` iterations, or if its
    /// best value has not risen since a check that kept the step. Such an image continues from its best point.
    fn check(&mut self, window: usize) {
        let rarely = self.rises.le(0.75 * window as f64);
        let stuck = self.best_at_check.ge_tensor(&self.best_value).logical_and(&self.shortened.logical_not());
        let shorten = rarely.logical_or(&stuck);
        self.step = (&self.step / 2.0).where_self(&shorten, &self.step);
        self.point = self.best_point.where_self(&per_image(&shorten), &self.point);
        self.gradient = self.best_gradient.where_self(&per_image(&shorten), &self.gradient);
        self.shortened = shorten;
        self.best_at_check = self.best_value.shallow_clone();
        self.rises = self.rises.zeros_like();
    }
}

/// The iterations after which the steps are checked, each with the length of its window. The first window is 22 % of
/// all iterations; each later one is 3 % shorter, down to 6 %.
fn checks(iterations: usize) -> Vec<(usize, usize)> {
    let share = |percent: usize| (iterations * percent / 100).max(1);
    let (mut window, mut after) = (share(22), share(22));
    let mut checks = vec![];
    while after <= iterations {
        checks.push((after, window));
        window = window.saturating_sub(share(3)).max(share(6));
        after += window;
    }
    checks
}

#[cfg(test)]
mod tests;
