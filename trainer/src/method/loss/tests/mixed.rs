//! Labels of mixed images.

use super::*;

/// A mixture of two classes costs the mean of both cross-entropies, in value and gradient; a pure one is its class.
#[test]
fn a_mixed_label_is_the_mean_of_its_classes() {
    let logits = || fixtures_logits().set_requires_grad(true);
    let [first, second] = [[0i64, 1, 2, 1], [2, 0, 2, 1]].map(|labels| Tensor::from_slice(&labels));
    let shares = Tensor::from_slice(&[0.25f64, 0.5, 0.125, 0.0]);
    let one_hot = |labels: &Tensor| labels.one_hot(3).to_kind(Kind::Double);
    let own: Tensor = 1.0 - &shares;
    let mixture = one_hot(&first) * own.unsqueeze(1) + one_hot(&second) * shares.unsqueeze(1);
    for smoothing in [0.0, 0.1] {
        let (mixed, parts) = (logits(), logits());
        let found = cross_entropy(&mixed, &mixture, smoothing);
        let expected =
            cross_entropy(&parts, &first, smoothing) * &own + cross_entropy(&parts, &second, smoothing) * &shares;
        found.sum(Kind::Double).backward();
        expected.sum(Kind::Double).backward();
        assert!(f64::try_from((&found - &expected).abs().max()).unwrap() < 1e-12);
        assert!(f64::try_from((mixed.grad() - parts.grad()).abs().max()).unwrap() < 1e-12);
    }
    let pure = one_hot(&first);
    assert!(log_probability_of(&logits(), &pure).equal(&log_probability_of(&logits(), &first)));
}

fn fixtures_logits() -> Tensor {
    Tensor::from_slice(&[0.3f64, -1.2, 0.9, 2.0, 0.1, -0.4, 0.0, 0.5, 1.5, -2.0, 0.7, 0.2]).view([4, 3])
}
