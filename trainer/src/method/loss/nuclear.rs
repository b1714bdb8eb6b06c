//! The nuclear norm of a matrix whose rows lie on several ranks (Sriramanan et al., NeurIPS 2021: NuAT).

use tch::{Kind, Tensor, no_grad};

/// Products of the iteration. Singular values above a millionth of the largest come out whole: 1.5^32 is 4e5.
const STEPS: usize = 32;
/// Keeps the root of a matrix of zeros finite.
const TINY: f64 = 1e-30;

/// What each of `rows [N, C]` adds to the nuclear norm of the matrix of all rows of the global batch, `[N]`. Over all ranks they
/// sum to the norm, which is the sum of the singular values; their gradient is that of the norm: the rows of U V^T, where the
/// matrix is U S V^T. `sum` adds up over the ranks, who all call it; N may be 0.
pub(super) fn shares(rows: &Tensor, sum: &dyn Fn(&Tensor) -> Tensor) -> Tensor {
    let directions = no_grad(|| {
        let wide = rows.to_kind(Kind::Double);
        let gram = sum(&wide.tr().matmul(&wide));
        wide.matmul(&inverse_root(&gram)).to_kind(rows.kind())
    });
    // Scaled rows have a scaled norm and the same directions, so these are its derivative.
    (rows * directions).sum_dim_intlist(1i64, false, None)
}

/// G^(-1/2) of a positive semidefinite `gram [C, C]`, float64, by a Newton iteration of products alone: a decomposition would
/// wait for the device, and could not be captured. Directions in which G is 0 stay bounded; the rows have nothing in them.
fn inverse_root(gram: &Tensor) -> Tensor {
    let scale = gram.trace().clamp_min(TINY);
    let identity = Tensor::eye(gram.size()[0], (Kind::Double, gram.device()));
    // Eigenvalues of `left`, within 0 to 1, go to 1. `root` takes the same factors.
    let (mut left, mut root) = (gram / &scale, identity.copy());
    for _ in 0..STEPS {
        let factor = &identity * 1.5 - &left * 0.5;
        root = root.matmul(&factor);
        left = factor.matmul(&left).matmul(&factor);
    }
    root / scale.sqrt()
}

#[cfg(test)]
mod tests;
