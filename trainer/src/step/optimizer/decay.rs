//! Weight decay that leaves out some parameters.

use tch::{Tensor, no_grad};

use crate::config::Undecayed;
use crate::model::Model;

/// The weight decay of each value of the flat buffer: `decay`, or 0 where the parameter is of a sort in `without`.
pub(super) fn of_each_value(model: &Model, values: &Tensor, decay: f64, without: &[Undecayed]) -> Tensor {
    let decays = values.full_like(decay);
    let mut offset = 0;
    for (name, count) in model.parameters.iter().map(|named| (&named.name, named.tensor.numel() as i64)) {
        if sort_of(model, name).is_some_and(|sort| without.contains(&sort)) {
            let _ = decays.narrow(0, offset, count).zero_();
        }
        offset += count;
    }
    decays
}

/// The sort of a parameter, if it is not a weight. A layer whose weight has one axis is a batch norm.
fn sort_of(model: &Model, name: &str) -> Option<Undecayed> {
    let (layer, last) = name.rsplit_once('.').unwrap_or(("", name));
    let weight = format!("{layer}{}weight", if layer.is_empty() { "" } else { "." });
    let flat = model.parameters.iter().any(|named| named.name == weight && named.tensor.dim() == 1);
    if flat { Some(Undecayed::BatchNorm) } else { (last == "bias").then_some(Undecayed::Bias) }
}

/// Adds the decay to the gradients: g += decay * w.
pub(super) fn add(gradients: &mut Tensor, values: &Tensor, decays: &Tensor) {
    no_grad(|| {
        let _ = gradients.addcmul_(values, decays);
    });
}

/// Shrinks the values by the rate times their decay, unless the gradient is not `finite`.
pub(super) fn shrink(values: &mut Tensor, decays: &Tensor, rate: f64, on_device: Option<&Tensor>, finite: &Tensor) {
    no_grad(|| {
        let shares = match on_device {
            Some(rate) => decays * rate,
            None => decays * rate,
        };
        let shrunk = &*values - shares * &*values;
        values.copy_(&shrunk.where_self(finite, values));
    });
}
