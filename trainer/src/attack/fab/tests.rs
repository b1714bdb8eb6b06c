//! FAB against PyTorch, and where the nearest point is known.

use super::*;
use crate::attack::tests::{BALL, Reference, close, noise, plane, three_pixels};

#[test]
fn the_nearest_point_before_a_plane_is_found() {
    // From (0.5, 0.4) the plane 2 a - b = 0.9 is (0.9 - 0.6) / 3 = 0.1 away.
    let (forward, labels) = (plane([2.0, -1.0, 0.0], 0.9), Tensor::from_slice(&[0i64]));
    let subject = Subject::new(&forward);
    let images = three_pixels([0.5, 0.4, 0.3]);
    let search = FabT { ball: BALL, iterations: 100, target: 2 };
    let mut fab = Fab::start(&search, &subject, &images, &labels);
    (0..100).for_each(|_| fab.advance());
    let distance = f64::try_from(&fab.distance).unwrap();
    assert!((0.1..0.1015).contains(&distance), "{distance}");
    // Outside the ball it does not count.
    assert!(search.search(&subject, &images, &labels, &noise(&[0])).equal(&images));
    let wide = FabT { ball: Ball { eps: 0.11, ..BALL }, ..search };
    let found = wide.search(&subject, &images, &labels, &noise(&[0]));
    let length = f64::try_from(BALL.distance(&images, &found)).unwrap();
    assert!((0.1..0.1015).contains(&length), "{length}");
}

#[test]
fn distances_equal_pytorch() {
    let reference = Reference::read(Kind::Double);
    let expected = &reference.values["fab_t_2"];
    let forward = |images: &Tensor| reference.logits(images);
    let subject = Subject::new(&forward);
    let search = FabT { ball: reference.ball, iterations: 100, target: 2 };
    let mut fab = Fab::start(&search, &subject, &reference.images, &reference.labels);
    (0..100).for_each(|_| fab.advance());
    close(&fab.distance, &expected["distances"], "distances");
    let found = search.search(&subject, &reference.images, &reference.labels, &noise(&reference.samples));
    reference.compare_fooled(&found, &expected["fooled"]);
}
