//! Square against PyTorch, and the shapes that it paints.

use std::cell::Cell;

use super::*;
use crate::fixtures::pattern;
use crate::method::attack::tests::{BALL, Reference, close, noise};

mod l2;

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

#[test]
fn stripes_first_then_one_square_of_one_colour_per_image() {
    let images = (pattern(3 * 3 * 32 * 32, 3) * 0.5 + 0.25).view([3, 3, 32, 32]);
    let labels = Tensor::zeros([3], (Kind::Int64, tch::Device::Cpu));
    // The label leads by less at every look: all squares are taken.
    let looks = Cell::new(1e4);
    let forward = |images: &Tensor| {
        looks.set(looks.get() - 1.0);
        let lead = Tensor::full([images.size()[0]], looks.get(), tch::kind::DOUBLE_CPU);
        Tensor::stack(&[&lead, &lead.zeros_like()], 1)
    };
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

/// A query by its definition, over whole images.
fn coloured_by_definition(state: &State, query: usize) -> Tensor {
    let [_, channels, height, width] = shape(&state.images);
    let first = channels * width + query as i64 * (2 + channels);
    let draws = state.noise.uniform_from(first, 2 + channels, Kind::Double);
    let side = side(query, height, width);
    let within = |column: i64, length: i64| {
        let corner = (draws.narrow(1, column, 1) * (length - side) as f64).floor();
        let place = Tensor::arange(length, (Kind::Double, draws.device())).unsqueeze(0);
        place.ge_tensor(&corner).logical_and(&place.lt_tensor(&(corner + side as f64)))
    };
    let window = within(0, height).unsqueeze(2).logical_and(&within(1, width).unsqueeze(1)).unsqueeze(1);
    let colour = signs(&draws.narrow(1, 2, channels)).view([-1, channels, 1, 1]).to_kind(state.images.kind());
    let change = window.to_kind(state.images.kind()) * (colour * (2.0 * state.ball.eps));
    state.ball.project(&state.images, &(&state.best + change))
}

#[test]
fn queries_within_their_windows_give_the_bits_of_whole_images() {
    for kind in [Kind::Float, Kind::Double] {
        let reference = Reference::read(kind);
        let forward = |images: &Tensor| reference.logits(images);
        let (subject, noise) = (Subject::new(&forward), noise(&reference.samples));
        // Such a ball meets the pixel range in many images.
        for eps in [reference.ball.eps, 0.3] {
            let ball = Ball { eps, ..reference.ball };
            let start = || State::start(ball, &subject, &reference.images, &reference.labels, &noise);
            let (mut found, mut expected) = (start(), start());
            let mut taken = 0;
            for query in (0..60).chain([49, 120, 320, 700, 1500, 3000, 5000, 9000]) {
                let before = expected.best.copy();
                let candidate = coloured_by_definition(&expected, query);
                expected.take(&candidate);
                found.advance(query);
                assert!(found.best.equal(&expected.best), "{kind:?}, eps {eps}, query {query}");
                assert!(found.margin.equal(&expected.margin), "{kind:?}, eps {eps}, query {query}");
                taken += usize::from(!before.equal(&expected.best));
            }
            assert!(taken > 1, "{kind:?}, eps {eps}: no square was taken");
        }
    }
}

#[test]
fn margins_equal_pytorch() {
    compare(&Reference::read(Kind::Double));
}

fn compare(reference: &Reference) {
    let expected = &reference.values["square"];
    let forward = |images: &Tensor| reference.logits(images);
    let (subject, noise) = (Subject::new(&forward), noise(&reference.samples));
    let mut state = State::start(reference.ball, &subject, &reference.images, &reference.labels, &noise);
    let mut taken = 0;
    for (place, queries) in [1, 2, 5, 10, 50, 200].into_iter().enumerate() {
        (taken..queries).for_each(|query| state.advance(query));
        taken = queries;
        close(&state.margin, &expected["losses"][place], &format!("margins after {queries} queries"));
    }
    let search = Square { ball: reference.ball, queries: 500 };
    let found = search.search(&subject, &reference.images, &reference.labels, &noise);
    reference.compare_fooled(&found, &expected["fooled"]);
}
