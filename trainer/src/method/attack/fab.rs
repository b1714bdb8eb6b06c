//! FAB-T (Croce and Hein 2020, "Minimally distorted adversarial examples"; fab_base.py of AutoAttack): searches the
//! nearest image of another class by moves onto the plane on which the label and one target have equal logits.

mod projection;

use tch::{Kind, Tensor};

use crate::method::attack::fab::projection::onto_plane;
use crate::method::attack::objective::{difference, ranked};
use crate::method::attack::search::{Found, per_image};
use crate::method::attack::{Ball, Noise, Search, Subject, predictions};

/// The largest weight of the original image in a step.
const LARGEST_SHARE: f64 = 0.1;
/// Each step overshoots the plane by this factor.
const OVERSHOOT: f64 = 1.05;
/// The share of the distance to the original image that is kept when an adversarial point is moved back.
const BACK: f64 = 0.9;

/// The fast adaptive boundary attack towards one class per image. Draws no random numbers.
#[derive(Debug, Clone, Copy)]
pub struct FabT<'a> {
    /// The ball in which an adversarial image counts.
    pub ball: Ball,
    /// The number of steps; AutoAttack takes 100.
    pub iterations: usize,
    /// The target class of each image, by the rank of its logit on the image itself: 2 is the second largest. One number is
    /// for all images.
    pub targets: &'a [usize],
}

impl Search for FabT<'_> {
    fn search(&self, subject: &Subject, images: &Tensor, labels: &Tensor, _: &Noise) -> Tensor {
        let mut fab = Fab::start(self, subject, images, labels);
        for iteration in 0..self.iterations {
            if fab.found.all(iteration) {
                break;
            }
            fab.advance();
        }
        fab.found.images
    }
}

/// The state of the search on a batch, image by image.
struct Fab<'a> {
    ball: Ball,
    subject: &'a Subject<'a>,
    images: Tensor,
    labels: &'a Tensor,
    targets: Tensor,
    point: Tensor,
    /// The distance of the nearest adversarial point so far, inside or outside the ball.
    distance: Tensor,
    /// The nearest adversarial points inside the ball.
    found: Found,
}

impl<'a> Fab<'a> {
    fn start(search: &FabT<'_>, subject: &'a Subject<'a>, images: &Tensor, labels: &'a Tensor) -> Self {
        let images = images.detach();
        Self {
            ball: search.ball,
            subject,
            labels,
            targets: ranked(&subject.logits(&images), search.targets),
            point: images.shallow_clone(),
            distance: Tensor::full([images.size()[0]], 1e10, (images.kind(), images.device())),
            found: Found::none(&images),
            images,
        }
    }

    fn advance(&mut self) {
        let slope = self.subject.slope(&self.point, &|logits| difference(logits, self.labels, &self.targets));
        let lead = slope.values.to_kind(self.images.kind());
        let way = (&slope.gradient * (&self.images - &self.point)).flatten(1, -1);
        let lead_at_images = &lead + way.sum_dim_intlist(1i64, false, None::<Kind>);
        let from_point = onto_plane(self.ball.norm, &self.point, &slope.gradient, &lead);
        let from_images = onto_plane(self.ball.norm, &self.images, &slope.gradient, &lead_at_images);
        let share = {
            let length = |movement: &Tensor| self.ball.distance(&movement.zeros_like(), movement).clamp_min(1e-8);
            let (near, far) = (length(&from_point), length(&from_images));
            per_image(&(&near / (&near + far)).clamp_max(LARGEST_SHARE))
        };
        let point: Tensor = (&self.point + from_point * OVERSHOOT) * (1.0 - &share);
        let point = (point + (&self.images + from_images * OVERSHOOT) * &share).clamp(0.0, 1.0);

        let wrong = predictions(&self.subject.logits(&point)).ne_tensor(self.labels);
        let distance = self.ball.distance(&self.images, &point);
        let nearer = wrong.logical_and(&distance.lt_tensor(&self.distance));
        self.found.keep(&point, &nearer.logical_and(&distance.le(self.ball.eps)));
        self.distance = distance.where_self(&nearer, &self.distance);
        let back = &self.images + (&point - &self.images) * BACK;
        self.point = back.where_self(&per_image(&wrong), &point);
    }
}

#[cfg(test)]
mod tests;
