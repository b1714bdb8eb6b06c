//! The norm of the gradient and its limit.

use tch::{Kind, Tensor};

/// The values of a row of the norm.
const ROW: i64 = 1 << 14;

/// Scales `gradients` in place to a 2-norm of at most `limit`, as PyTorch's `clip_grad_norm_`: by
/// min(1, limit / (norm + 1e-6)). The gradients are those of all ranks, so every rank scales by the same number.
pub(super) fn to_norm(gradients: &mut Tensor, limit: f64) {
    let factor = ((norm(gradients) + 1e-6).reciprocal() * limit).clamp_max(1.0).to_kind(gradients.kind());
    let _ = gradients.g_mul_(&factor);
}

/// The 2-norm in float64. A row is summed by one thread, so the bits do not depend on the number of threads: ranks with
/// different ones must agree.
pub(crate) fn norm(values: &Tensor) -> Tensor {
    let (rows, count) = (values.numel() as i64 / ROW, values.numel() as i64);
    let of = |from: i64, shape: [i64; 2]| {
        let rows = values.narrow(0, from, shape[0] * shape[1]).view(shape);
        rows.norm_scalaropt_dim_dtype(2.0, [1i64], false, Kind::Double)
    };
    let norms = Tensor::cat(&[of(0, [rows, ROW]), of(rows * ROW, [1, count - rows * ROW])], 0);
    norms.square().sum(Kind::Double).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pattern;

    /// What `torch.nn.utils.clip_grad_norm_` computes, with the norm in float64.
    #[test]
    fn long_gradients_are_scaled_to_the_limit_and_short_ones_are_kept() {
        for count in [1, 5, ROW as usize, 3 * ROW as usize + 7] {
            for kind in [Kind::Float, Kind::Double] {
                let before = (pattern(count, 3) - 0.5).to_kind(kind);
                let values: Vec<f64> = Vec::try_from(before.to_kind(Kind::Double)).unwrap();
                let expected = values.iter().map(|value| value * value).sum::<f64>().sqrt();
                let length = f64::try_from(norm(&before)).unwrap();
                assert!((length - expected).abs() <= 1e-12 * expected, "{count}: {length}, expected {expected}");
                let mut short = before.copy();
                to_norm(&mut short, expected * 1.01);
                assert!(short.equal(&before));
                let mut long = before.copy();
                to_norm(&mut long, expected / 4.0);
                let apart = (long - &before * (expected / 4.0 / (expected + 1e-6))).abs().max();
                assert!(f64::try_from(apart).unwrap() < 1e-7);
            }
        }
    }

    #[test]
    fn the_bits_of_the_norm_do_not_depend_on_the_number_of_threads() {
        let values = pattern(200 * ROW as usize + 7, 3) - 0.5;
        let threads = tch::get_num_threads();
        let norms = [1, 2, 3].map(|count| {
            tch::set_num_threads(count);
            f64::try_from(norm(&values)).unwrap().to_bits()
        });
        tch::set_num_threads(threads);
        assert!(norms[0] == norms[1] && norms[1] == norms[2], "{norms:?}");
    }
}
