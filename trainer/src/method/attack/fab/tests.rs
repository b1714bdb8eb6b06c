//! FAB against PyTorch, and against known nearest points.

use super::*;
use crate::config::Norm;
use crate::method::attack::golden::{classes, golden, near, network, tensor_of};
use crate::method::attack::tests::{BALL, Reference, close, noise, plane, three_pixels};

#[test]
fn the_nearest_point_before_a_plane_is_found() {
    // From (0.5, 0.4) the plane 2 a - b = 0.9 is (0.9 - 0.6) / 3 = 0.1 away.
    let (forward, labels) = (plane([2.0, -1.0, 0.0], 0.9), Tensor::from_slice(&[0i64]));
    let subject = Subject::new(&forward);
    let images = three_pixels([0.5, 0.4, 0.3]);
    let search = FabT { ball: BALL, iterations: 100, targets: &[2] };
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
    compare(&Reference::read(Kind::Double));
    compare(&Reference::read_l2(Kind::Double));
}

fn compare(reference: &Reference) {
    let expected = &reference.values["fab_t_2"];
    let forward = |images: &Tensor| reference.logits(images);
    let subject = Subject::new(&forward);
    let search = FabT { ball: reference.ball, iterations: 100, targets: &[2] };
    let mut fab = Fab::start(&search, &subject, &reference.images, &reference.labels);
    (0..100).for_each(|_| fab.advance());
    close(&fab.distance, &expected["distances"], "distances");
    let found = search.search(&subject, &reference.images, &reference.labels, &noise(&reference.samples));
    reference.compare_fooled(&found, &expected["fooled"]);
}

#[test]
fn golden_images_and_distances_in_l2() {
    let (networks, case) = (golden("apgd_l2"), golden("fab_l2_run"));
    let (forward, images, labels) = (network(&networks), tensor_of(&networks["x"]), classes(&case["labels"]));
    // A radius that every adversarial image fits into.
    let search = FabT { ball: Ball { norm: Norm::L2, eps: 10.0 }, iterations: 15, targets: &[2] };
    let subject = Subject::new(&forward);
    let mut fab = Fab::start(&search, &subject, &images, &labels);
    fab.targets = classes(&case["targets"]);
    assert_eq!(case["n_iter"], search.iterations);
    (0..search.iterations).for_each(|_| fab.advance());
    near(&fab.distance, &tensor_of(&case["l2"]), 1e-9, "distances");
    near(&fab.found.images, &tensor_of(&case["adv"]), 1e-9, "images");
}

#[test]
fn the_nearest_point_in_l2_before_a_plane_is_found() {
    // From (0.5, 0.4) the plane 2 a - b = 0.9 is 0.3 / sqrt(5) = 0.1342 away.
    let (forward, labels) = (plane([2.0, -1.0, 0.0], 0.9), Tensor::from_slice(&[0i64]));
    let (subject, images) = (Subject::new(&forward), three_pixels([0.5, 0.4, 0.3]));
    for (eps, falls) in [(0.1361, true), (0.134, false)] {
        let search = FabT { ball: Ball { norm: Norm::L2, eps }, iterations: 100, targets: &[2] };
        let found = search.search(&subject, &images, &labels, &noise(&[0]));
        let length = f64::try_from(search.ball.distance(&images, &found)).unwrap();
        assert!(if falls { (0.13416..0.1361).contains(&length) } else { length == 0.0 }, "{length}");
    }
}
