//! Networks: classifiers of images in [0, 1]. Knows nothing of attacks, losses or ranks.

mod architecture;
mod batch_norm;
mod convnet;
mod layers;
mod mobilenet_v2;
mod preact_resnet;
mod resnet;
mod wide_resnet;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};
use torch_ext::Sum;

pub use self::architecture::Architecture;
pub use self::layers::Named;
use self::layers::{Builder, Counter};

/// What batch norm does in a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Normalises by the batch and moves the running statistics.
    Train,
    /// Normalises by the batch and leaves the running statistics alone.
    TrainFrozen,
    /// Normalises by the running statistics.
    Eval,
}

/// What a network takes and gives; stored with its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Form {
    /// The kind of network.
    pub architecture: Architecture,
    /// Channels, height and width of its images.
    pub image: [usize; 3],
    /// The number of classes.
    pub classes: usize,
}

impl fmt::Display for Form {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [channels, height, width] = self.image;
        write!(out, "{} for {channels}x{height}x{width} images and {} classes", self.architecture, self.classes)
    }
}

/// The computation of a network over its layers.
trait Network: Send {
    /// Images `[N, C, H, W]` to logits `[N, classes]`.
    fn logits(&self, images: &Tensor, mode: Mode) -> Tensor;
}

/// A classifier and its tensors.
pub struct Model {
    /// What it takes and gives.
    pub form: Form,
    /// Trainable tensors, in PyTorch's order and under its names.
    pub parameters: Vec<Named>,
    /// Batch norm's running means and variances: views of [`flat_statistics`](Self::flat_statistics).
    pub statistics: Vec<Named>,
    /// Tensors that never change.
    pub constants: Vec<Named>,
    /// All running statistics in one buffer.
    pub flat_statistics: Tensor,
    /// The number of forward passes that moved the running statistics (int64 scalar).
    pub batches_tracked: Tensor,
    /// Whether batch norm measures the batch over all ranks.
    pub across_ranks: bool,
    folds: Arc<OnceLock<Kind>>,
    network: Box<dyn Network>,
    counters: Vec<Counter>,
}

impl Model {
    /// What a training pass takes of the batch's statistics into the running ones.
    pub const STATISTICS_MOMENTUM: f64 = batch_norm::BatchNorm::MOMENTUM;

    /// A network with its first values, a function of `seed` and the parameters' names.
    pub fn build(form: Form, seed: u64, kind: Kind, device: Device, across_ranks: Option<Sum>) -> Self {
        let sums_ranks = across_ranks.is_some();
        let mut layers = Builder::new(seed, kind, device, across_ranks);
        let network = lay(&mut layers, form);
        let Builder { parameters, mut statistics, constants, counters, folds, .. } = layers;
        let flat_statistics = flatten(&mut statistics, kind, device);
        let batches_tracked = Tensor::zeros([], (Kind::Int64, device));
        Self {
            form,
            parameters,
            statistics,
            constants,
            flat_statistics,
            batches_tracked,
            across_ranks: sums_ranks,
            folds,
            network,
            counters,
        }
    }

    /// Images `[N, C, H, W]` in [0, 1] to logits `[N, classes]`.
    pub fn logits(&self, images: &Tensor, mode: Mode) -> Tensor {
        if mode == Mode::Train {
            let _ = self.batches_tracked.shallow_clone().g_add_scalar_(1);
        }
        self.network.logits(images, mode)
    }

    /// The type of its tensors.
    pub fn kind(&self) -> Kind {
        self.flat_statistics.kind()
    }

    /// Where its tensors are.
    pub fn device(&self) -> Device {
        self.flat_statistics.device()
    }

    /// Stops all gradients towards the parameters, as a teacher's must be.
    pub fn freeze(&self) {
        for parameter in &self.parameters {
            let _ = parameter.tensor.set_requires_grad(false);
        }
    }

    /// Makes each batch norm part of the convolution right before it, in evaluation mode from now on; their common weights are
    /// of type `kind`. In single precision logits stay equal to about 1e-6. The tensors may not change any more.
    pub fn fold_batch_norm(&self, kind: Kind) {
        self.folds.get_or_init(|| kind);
    }

    /// Casts the weights of convolutions and linear layers that are not part of a fold, of a network that is not trained.
    pub fn cast_weights(&self, kind: Kind) {
        for Named { tensor, .. } in self.parameters.iter().filter(|named| named.tensor.dim() > 1) {
            tensor.shallow_clone().set_data(&tensor.to_kind(kind));
        }
    }

    /// The multiply-adds of convolutions and linear layers in all forward passes so far, of all images.
    pub fn multiply_adds(&self) -> u64 {
        self.counters.iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }

    /// Those of the first layer, which takes the images.
    pub fn stem_multiply_adds(&self) -> u64 {
        self.counters.first().map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// The number of trainable values.
    pub fn parameter_count(&self) -> usize {
        self.parameters.iter().map(|parameter| parameter.tensor.numel()).sum()
    }

    /// Parameters, running statistics and constants, as they are named in PyTorch's state_dict, without the pass counters.
    pub fn tensors(&self) -> impl Iterator<Item = &Named> {
        self.parameters.iter().chain(&self.statistics).chain(&self.constants)
    }

    /// Copies values by name from `find` into every tensor.
    ///
    /// # Errors
    /// A name that `find` does not know, or another shape there.
    pub fn load<'a>(&self, find: impl Fn(&str) -> Option<&'a Tensor>) -> Result<()> {
        for Named { name, tensor } in self.tensors() {
            let value = find(name).ok_or_else(|| anyhow::anyhow!("{name} is missing"))?;
            ensure!(
                value.size() == tensor.size(),
                "{name} has shape {:?}, the network needs {:?}",
                value.size(),
                tensor.size()
            );
            no_grad(|| tensor.shallow_clone().copy_(value));
        }
        Ok(())
    }
}

/// Makes the layers of a network.
fn lay(layers: &mut Builder, form: Form) -> Box<dyn Network> {
    let (channels, classes) = (form.image[0] as i64, form.classes as i64);
    match form.architecture {
        Architecture::ResNet18 => Box::new(resnet::ResNet::eighteen(layers, channels, classes)),
        Architecture::PreActResNet18 => Box::new(preact_resnet::PreActResNet::eighteen(layers, channels, classes)),
        Architecture::MobileNetV2 => Box::new(mobilenet_v2::MobileNetV2::new(layers, channels, classes)),
        Architecture::ResNet8 => Box::new(resnet::ResNet::eight(layers, channels, classes)),
        Architecture::ConvNet => Box::new(convnet::ConvNet::new(layers, channels, classes)),
        Architecture::WideResNet { depth, width } => {
            Box::new(wide_resnet::WideResNet::new(layers, channels, classes, depth.into(), width.into()))
        }
    }
}

/// The names and shapes of a network's tensors in the order of PyTorch's state_dict, without the pass counters. Makes none
/// of them.
pub fn outline(form: Form) -> Vec<(String, Vec<i64>)> {
    let mut layers = Builder::outline();
    lay(&mut layers, form);
    let named = |named: Named| (named.name, named.tensor.size());
    let mut outline: Vec<_> = layers.constants.into_iter().map(named).collect();
    let mut statistics = layers.statistics.into_iter().map(named).peekable();
    for (name, shape) in layers.parameters.into_iter().map(named) {
        // A batch norm's running statistics follow its bias.
        let layer = name.strip_suffix("bias").unwrap_or(&name).to_string();
        outline.push((name, shape));
        while let Some(statistic) = statistics.next_if(|(name, _)| name.starts_with(&layer)) {
            outline.push(statistic);
        }
    }
    outline
}

/// The values of a flat buffer from `offset` on, in the shape and the order in memory of `like`, which leaves no gaps.
pub fn piece(flat: &Tensor, offset: i64, like: &Tensor) -> Tensor {
    flat.narrow(0, offset, like.numel() as i64).as_strided(like.size(), like.stride(), None)
}

/// Moves tensors into one new flat buffer, of which they become views, and returns the buffer.
pub fn flatten(tensors: &mut [Named], kind: Kind, device: Device) -> Tensor {
    let count: i64 = tensors.iter().map(|named| named.tensor.numel() as i64).sum();
    let flat = Tensor::zeros([count], (kind, device));
    let mut offset = 0;
    no_grad(|| {
        for Named { tensor, .. } in tensors {
            let view = piece(&flat, offset, tensor);
            view.shallow_clone().copy_(tensor);
            // Every handle to the tensor sees the new place: the layers keep theirs.
            tensor.set_data(&view);
            offset += tensor.numel() as i64;
        }
    });
    flat
}

/// Cuts a flat buffer into tensors named, shaped and laid out as those of `like`, whose values it holds in their order.
pub fn cut(flat: &Tensor, like: &[Named]) -> Vec<Named> {
    let mut offset = 0;
    let named = |Named { name, tensor }: &Named| {
        let count = tensor.numel() as i64;
        offset += count;
        Named { name: name.clone(), tensor: piece(flat, offset - count, tensor) }
    };
    like.iter().map(named).collect()
}

#[cfg(test)]
mod tests;
