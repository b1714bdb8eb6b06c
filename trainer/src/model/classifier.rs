//! A classifier: its layers, its tensors under PyTorch's names, and operations on the whole.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor, no_grad};
use torch_ext::{Kernels, StatisticsRanks};

use super::batch_norm::OverRanks;
use super::builder::Builder;
use super::flat::flatten;
use super::layers::{Counter, Named};
use super::network::Network;
use super::normalization::Normalization;
use super::spec::ModelSpec;
use super::{Mode, batch_norm, convnet, deepmind, mobilenet_v2, preact_resnet, resnet, wide_resnet};
use crate::config::Architecture;

/// A classifier and its tensors.
pub struct Model {
    /// Its architecture, image shape and number of classes.
    pub form: ModelSpec,
    /// Trainable tensors, in PyTorch's order and under its names.
    pub parameters: Vec<Named>,
    /// Batch norm's running means and variances: views of [`flat_statistics`](Self::flat_statistics).
    pub statistics: Vec<Named>,
    /// Tensors that training never changes.
    pub constants: Vec<Named>,
    /// All running statistics in one buffer.
    pub flat_statistics: Tensor,
    /// The number of forward passes that updated the running statistics (int64 scalar).
    pub batches_tracked: Tensor,
    /// Whether batch norm uses the statistics of the batch over all ranks.
    pub across_ranks: bool,
    statistics_ranks: Option<Arc<StatisticsRanks>>,
    folds: Arc<OnceLock<Kind>>,
    fuses: Arc<OnceLock<Arc<Kernels>>>,
    normalization: Option<Normalization>,
    network: Box<dyn Network>,
    counters: Vec<Counter>,
}

impl Model {
    /// The weight of a batch's statistics in the running ones.
    pub const STATISTICS_MOMENTUM: f64 = batch_norm::BatchNorm::MOMENTUM;

    /// A network with its initial values, a function of `seed` and the parameters' names.
    pub fn build(form: ModelSpec, seed: u64, kind: Kind, device: Device, over_ranks: Option<OverRanks>) -> Self {
        let across_ranks = over_ranks.is_some();
        let statistics_ranks = over_ranks.as_ref().and_then(|over| over.fused.clone());
        let mut layers = Builder::new(seed, kind, device, over_ranks);
        let (normalization, network) = build_network(&mut layers, form);
        let Builder { parameters, mut statistics, constants, counters, folds, fuses, .. } = layers;
        let flat_statistics = flatten(&mut statistics, kind, device);
        let batches_tracked = Tensor::zeros([], (Kind::Int64, device));
        Self {
            form,
            parameters,
            statistics,
            constants,
            flat_statistics,
            batches_tracked,
            across_ranks,
            statistics_ranks,
            folds,
            fuses,
            normalization,
            network,
            counters,
        }
    }

    /// Images `[N, C, H, W]` in [0, 1] to logits `[N, classes]`.
    pub fn logits(&self, images: &Tensor, mode: Mode) -> Tensor {
        if mode == Mode::Train {
            let _ = self.batches_tracked.shallow_clone().g_add_scalar_(1);
        }
        match &self.normalization {
            Some(normalization) => self.network.logits(&normalization.forward(images), mode),
            None => self.network.logits(images, mode),
        }
    }

    /// Differentiated training passes of `own` images are, until the next call, those of `all` images over the ranks.
    pub fn expect(&self, own: usize, all: usize) {
        if let Some(ranks) = &self.statistics_ranks {
            ranks.expect(own, all);
        }
    }

    /// The type of its tensors.
    pub fn kind(&self) -> Kind {
        self.flat_statistics.kind()
    }

    /// The device of its tensors.
    pub fn device(&self) -> Device {
        self.flat_statistics.device()
    }

    /// Stops gradients towards the parameters, as a teacher needs.
    pub fn freeze(&self) {
        for parameter in &self.parameters {
            let _ = parameter.tensor.set_requires_grad(false);
        }
    }

    /// Computes batch norm in training, with the addition and the ReLU behind it, by `kernels` where they fit; nothing changes
    /// without any.
    pub fn fuse(&self, kernels: Option<&Arc<Kernels>>) {
        if let Some(kernels) = kernels {
            self.fuses.get_or_init(|| Arc::clone(kernels));
        }
    }

    /// Folds each batch norm into the convolution right before it, for evaluation mode from now on. The folded weights
    /// have type `kind`. In single precision, logits stay equal to about 1e-6. The tensors may not change any more.
    pub fn fold_batch_norm(&self, kind: Kind) {
        self.folds.get_or_init(|| kind);
    }

    /// Casts the weights of convolutions and linear layers that are not folded, in a network that is not trained.
    pub fn cast_weights(&self, kind: Kind) {
        for Named { tensor, .. } in self.parameters.iter().filter(|named| named.tensor.dim() > 1) {
            tensor.shallow_clone().set_data(&tensor.to_kind(kind));
        }
    }

    /// The multiply-adds of convolutions and linear layers in all forward passes so far, over all images.
    pub fn multiply_adds(&self) -> u64 {
        self.counters.iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }

    /// Those of the first layer, whose input is the images.
    pub fn stem_multiply_adds(&self) -> u64 {
        self.counters.first().map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// The number of trainable values.
    pub fn parameter_count(&self) -> usize {
        self.parameters.iter().map(|parameter| parameter.tensor.numel()).sum()
    }

    /// Parameters, running statistics and constants under the names of PyTorch's state_dict, without the pass counters.
    pub fn tensors(&self) -> impl Iterator<Item = &Named> {
        self.parameters.iter().chain(&self.statistics).chain(&self.constants)
    }

    /// Copies values by name from `find` into every tensor.
    ///
    /// # Errors
    /// A name that `find` does not know, or a different shape.
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
fn build_network(layers: &mut Builder, form: ModelSpec) -> (Option<Normalization>, Box<dyn Network>) {
    let normalization = form.normalization().map(|(mean, std)| Normalization::new(layers, &mean, &std));
    let (channels, classes) = (form.image[0] as i64, form.classes as i64);
    let network: Box<dyn Network> = match form.architecture {
        Architecture::ResNet { depth } => Box::new(resnet::ResNet::cifar(layers, channels, classes, depth)),
        Architecture::TorchvisionResNet { depth } => {
            Box::new(resnet::ResNet::torchvision(layers, channels, classes, depth))
        }
        Architecture::PreActResNet18 { raw_shortcut, last_norm } => {
            Box::new(preact_resnet::PreActResNet::eighteen(layers, channels, classes, raw_shortcut, last_norm))
        }
        Architecture::DeepMindWideResNet { depth, width, activation } => {
            let size = (depth.into(), width.into());
            Box::new(deepmind::DeepMind::wide(layers, channels, classes, size, activation))
        }
        Architecture::DeepMindPreActResNet18 { activation } => {
            Box::new(deepmind::DeepMind::preact_eighteen(layers, channels, classes, activation))
        }
        Architecture::MobileNetV2 => Box::new(mobilenet_v2::MobileNetV2::new(layers, channels, classes)),
        Architecture::ResNet8 => Box::new(resnet::ResNet::eight(layers, channels, classes)),
        Architecture::ConvNet => Box::new(convnet::ConvNet::new(layers, channels, classes)),
        Architecture::WideResNet { depth, width } => {
            Box::new(wide_resnet::WideResNet::new(layers, channels, classes, depth.into(), width.into()))
        }
    };
    (normalization, network)
}

/// The names and shapes of a network's tensors in the order of PyTorch's state_dict, without the pass counters. No
/// tensor is allocated.
pub fn outline(form: ModelSpec) -> Vec<(String, Vec<i64>)> {
    let mut layers = Builder::outline();
    build_network(&mut layers, form);
    let named = |named: Named| (named.name, named.tensor.size());
    let mut outline: Vec<_> = layers.constants.into_iter().map(named).collect();
    let mut statistics = layers.statistics.into_iter().map(named).peekable();
    for (name, shape) in layers.parameters.into_iter().map(named) {
        // The running statistics of a batch norm follow its bias.
        let layer = name.strip_suffix("bias").unwrap_or(&name).to_string();
        outline.push((name, shape));
        while let Some(statistic) = statistics.next_if(|(name, _)| name.starts_with(&layer)) {
            outline.push(statistic);
        }
    }
    outline
}

#[cfg(test)]
mod tests;
