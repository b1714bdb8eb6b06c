//! Square in L2 against golden values and PyTorch, and what an exchange of windows keeps.

use super::*;
use crate::method::attack::golden::{classes, golden, near, tensor_of};

#[test]
fn windows_have_odd_sides() {
    for (size, sides) in [(32, [29, 21, 15, 11, 7, 5, 5, 3]), (64, [57, 41, 29, 21, 15, 11, 7, 5])] {
        let found = [0, 11, 51, 201, 501, 1001, 2001, 4001].map(|query| odd_side(query, size, size));
        assert_eq!(found, sides);
    }
    assert_eq!((odd_side(0, 2, 64), odd_side(9999, 4, 4), odd_side(0, 1, 9)), (2, 3, 1));
}

#[test]
fn golden_bumps() {
    let case = golden("square_l2");
    for (side, expected) in case["eta_not_transposed"].as_object().unwrap() {
        let expected = tensor_of(expected);
        let bump = Bump::new(side.parse().unwrap(), &expected);
        let turned = bump.turned(&Tensor::from_slice(&[0.4, 0.6])).view([2, bump.side, bump.side]);
        near(&turned.get(0), &expected, 1e-12, &format!("bump of side {side}"));
        near(&turned.get(1), &expected.tr(), 1e-12, &format!("bump of side {side}, lying"));
    }
}

#[test]
fn golden_queries() {
    let case = golden("square_l2")["run"].clone();
    let (images, labels) = (tensor_of(&case["x"]), classes(&case["labels"]));
    let (w, b, lead) = (tensor_of(&case["W"]), tensor_of(&case["b"]), case["margin"].as_f64().unwrap());
    let forward = |images: &Tensor| images.flatten(1, -1).linear(&w, Some(&b)) + labels.one_hot(3) * lead;
    let ball = Ball { norm: Norm::L2, eps: case["eps"].as_f64().unwrap() };
    // Both images share all numbers but signs, of which there is one for each image and channel.
    let draws: Vec<Vec<f64>> = serde_json::from_value(case["draws"].clone()).unwrap();
    let numbers = |draws: &[Vec<f64>]| {
        let each = |image: usize| -> Vec<f64> {
            let own = |draw: &Vec<f64>| if draw.len() == 1 { draw.clone() } else { draw[2 * image..][..2].to_vec() };
            draws.iter().flat_map(own).collect()
        };
        Tensor::from_slice2(&[each(0), each(1)])
    };
    let (begin, queries) = draws.split_at(50);
    assert_eq!(numbers(begin).size()[1], numbers_of_first_moves(&images));
    let first = ball.towards(&images, &first_moves(&images, &numbers(begin)));
    near(&first, &tensor_of(&case["x_init"]), 1e-12, "start");

    let (subject, noise) = (Subject::new(&forward), noise(&[0, 1]));
    let mut state = State::start_at(first, ball, &subject, images.copy(), &labels, &noise);
    assert_eq!(queries.len(), 4 * 6);
    for (query, draws) in queries.chunks(6).enumerate() {
        let bump = Bump::new(odd_side(query, 10, 10), &images);
        let moves = bump.exchange(&(&state.best - &images), ball.eps, &numbers(draws));
        state.take(&ball.towards(&images, &moves));
    }
    near(&state.best, &tensor_of(&case["x_best"]), 1e-12, "best images");
    near(&state.margin, &tensor_of(&case["margin_best"]), 1e-12, "margins");
}

#[test]
fn margins_equal_pytorch() {
    compare(&Reference::read_l2(Kind::Double));
}

/// Where nothing meets the pixel range, a move keeps the whole radius, and what lies outside both windows.
#[test]
fn an_exchange_keeps_the_radius_and_what_is_around() {
    let grey = Tensor::full([4, 3, 32, 32], 0.5, tch::kind::DOUBLE_CPU);
    let (ball, noise) = (Ball { norm: Norm::L2, eps: 0.25 }, noise(&[0, 1, 2, 3]));
    let first = noise.uniform_from(0, numbers_of_first_moves(&grey), Kind::Double);
    let mut moves = ball.towards(&grey, &first_moves(&grey, &first)) - &grey;
    for query in 0..40 {
        let draws = noise.uniform_from(1000 + query * 8, 8, Kind::Double);
        let bump = Bump::new(7, &grey);
        let next = bump.exchange(&moves, 0.25, &draws);
        let length = ball.distance(&next.zeros_like(), &next);
        near(&length, &length.full_like(0.25), 1e-9, "length");
        let changed = next.ne_tensor(&moves).sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Int64);
        let most = i64::try_from(changed.max()).unwrap();
        assert!((1..=2 * 49 * 3).contains(&most), "{most} values changed");
        moves = next;
    }
}
