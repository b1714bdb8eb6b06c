use super::*;
use crate::attack::tests::{BALL, noise, plane, two_pixels};

#[test]
fn the_nearest_point_before_a_plane_is_found() {
    // From (0.5, 0.4) the plane 2 a - b = 0.9 is (0.9 - 0.6) / 3 = 0.1 away.
    let (forward, labels) = (plane([2.0, -1.0], 0.9), Tensor::from_slice(&[0i64]));
    let subject = Subject::new(&forward);
    let images = two_pixels([0.5, 0.4]);
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
