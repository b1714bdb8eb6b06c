//! Tensors as views of one flat buffer.

use tch::{Device, Kind, Tensor, no_grad};

use super::layers::Named;

/// The values of a flat buffer from `offset` on, in the shape and memory layout of `like`, which has no gaps.
pub fn piece(flat: &Tensor, offset: i64, like: &Tensor) -> Tensor {
    flat.narrow(0, offset, like.numel() as i64).as_strided(like.size(), like.stride(), None)
}

/// Moves tensors into one new flat buffer and returns the buffer. The tensors become views of it.
pub fn flatten(tensors: &mut [Named], kind: Kind, device: Device) -> Tensor {
    let count: i64 = tensors.iter().map(|named| named.tensor.numel() as i64).sum();
    let flat = Tensor::zeros([count], (kind, device));
    let mut offset = 0;
    no_grad(|| {
        for Named { tensor, .. } in tensors {
            let view = piece(&flat, offset, tensor);
            view.shallow_clone().copy_(tensor);
            // Every handle of the tensor sees the new memory, so the layers keep theirs.
            tensor.set_data(&view);
            offset += tensor.numel() as i64;
        }
    });
    flat
}

/// Cuts a flat buffer into tensors with the names, shapes and layouts of `like`, whose values it holds in their order.
pub fn cut(flat: &Tensor, like: &[Named]) -> Vec<Named> {
    let mut offset = 0;
    let named = |Named { name, tensor }: &Named| {
        let count = tensor.numel() as i64;
        offset += count;
        Named { name: name.clone(), tensor: piece(flat, offset - count, tensor) }
    };
    like.iter().map(named).collect()
}
