use super::*;
use crate::attack::tests::{BALL, noise};
use crate::fixtures::pattern;

#[test]
fn squares_shrink_as_in_autoattack() {
    for (size, sides) in [(32, [29, 20, 14, 10, 7, 5, 4, 3]), (64, [57, 40, 29, 20, 14, 10, 7, 5])] {
        for (first, last, side_of) in [(0, 10, 0), (11, 50, 1), (51, 200, 2), (201, 500, 3), (501, 1000, 4)]
            .into_iter()
            .chain([(1001, 2000, 5), (2001, 4000, 6), (4001, 6000, 7)])
        {
            assert_eq!([side(first, size, size), side(last, size, size)], [sides[side_of]; 2], "query {first}");
        }
    }
    assert_eq!(side(9999, 4, 4), 1);
    assert_eq!(side(0, 4, 64), 4);
}

/// The label leads by 1 minus the sum of the changes: every query is taken.
fn eager(images: &Tensor) -> impl Fn(&Tensor) -> Tensor {
    let images = images.shallow_clone();
    let passes = std::cell::Cell::new(0.0);
    move |candidate| {
        passes.set(passes.get() + 1.0);
        let lead = candidate.flatten(1, -1).select(1, 0).full_like(1e4 - passes.get());
        let _ = &images;
        Tensor::stack(&[&lead, &lead.zeros_like()], 1)
    }
}

#[test]
fn stripes_first_then_one_square_of_one_colour_per_image() {
    let images = (pattern(3 * 3 * 32 * 32, 3) * 0.5 + 0.25).view([3, 3, 32, 32]);
    let labels = Tensor::zeros([3], (Kind::Int64, tch::Device::Cpu));
    let forward = eager(&images);
    let (subject, noise) = (Subject::new(&forward), noise(&[4, 5, 6]));
    let mut state = State::start(BALL, &subject, &images, &labels, &noise);
    let colours = |state: &State| ((&state.best - &images) / BALL.eps).round();
    let stripes = colours(&state);
    assert!(stripes.abs().equal(&stripes.ones_like()));
    assert!(stripes.equal(&stripes.narrow(2, 0, 1).expand_as(&stripes)));
    let mut corners = vec![];
    for query in 0..60 {
        let before = colours(&state);
        state.advance(query);
        let after = colours(&state);
        let side = side(query, 32, 32);
        for row in 0..3 {
            // Somewhere a square of this side has one colour per channel, and nothing changed outside of it.
            let (before, after) = (before.get(row), after.get(row));
            let square = |top: i64, left: i64, image: &Tensor| image.narrow(1, top, side).narrow(2, left, side).copy();
            let changed = before.ne_tensor(&after).amax([0i64].as_slice(), false);
            let fits = |top: i64, left: i64| {
                let inside = square(top, left, &changed.unsqueeze(0)).sum(Kind::Int64);
                let painted = square(top, left, &after);
                inside == changed.sum(Kind::Int64)
                    && painted.equal(&painted.narrow(1, 0, 1).narrow(2, 0, 1).expand_as(&painted))
            };
            let places = (0..(32 - side).max(1)).flat_map(|top| (0..(32 - side).max(1)).map(move |left| (top, left)));
            let place = places.into_iter().find(|&(top, left)| fits(top, left));
            assert!(place.is_some(), "query {query}, image {row}");
            corners.push(place);
        }
    }
    corners.sort_unstable();
    corners.dedup();
    assert!(corners.len() > 20, "the squares stay in {} places", corners.len());
}
