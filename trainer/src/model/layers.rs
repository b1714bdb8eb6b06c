//! The layers of all networks, with PyTorch's initialisation stated, and the list of their tensors.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use datasets::Draws;
use datasets::random::{Purpose, uniform};
use tch::{Device, Kind, Tensor};
use torch_ext::Sum;

use super::Mode;
use super::batch_norm::BatchNorm;

/// A tensor and its name in PyTorch's state_dict.
pub struct Named {
    /// The name, for instance `layer1.0.conv1.weight`.
    pub name: String,
    /// The tensor.
    pub tensor: Tensor,
}

/// Makes layers and keeps the list of their tensors, in PyTorch's order of registration.
pub struct Builder {
    /// Where first values come from; without it tensors are placeholders that have a shape and no memory.
    draws: Option<Draws>,
    kind: Kind,
    device: Device,
    across_ranks: Option<Sum>,
    /// The type of common weights, once batch norms are part of the convolutions before them.
    pub folds: Arc<OnceLock<Kind>>,
    /// Trainable tensors.
    pub parameters: Vec<Named>,
    /// Running means and variances of batch norm.
    pub statistics: Vec<Named>,
    /// Tensors that never change, such as the normalisation of the input.
    pub constants: Vec<Named>,
    /// The counters of the convolutions and linear layers, in the order in which they were made.
    pub counters: Vec<Counter>,
}

/// The multiply-adds of a layer's forward passes so far.
pub type Counter = Arc<AtomicU64>;

impl Builder {
    /// Layers of type `kind` on `device`. The first values depend on `seed` and each parameter's name alone. With
    /// `across_ranks`, batch norm in training uses the statistics of the batch over all ranks.
    pub fn new(seed: u64, kind: Kind, device: Device, across_ranks: Option<Sum>) -> Self {
        let draws = Some(Draws::new(seed, Purpose::Initialise, 0));
        let (parameters, statistics, constants, counters) = (vec![], vec![], vec![], vec![]);
        let folds = Arc::default();
        Self { draws, kind, device, across_ranks, folds, parameters, statistics, constants, counters }
    }

    /// Layers whose tensors have shapes only: all their values share one place.
    pub fn outline() -> Self {
        Self { draws: None, ..Self::new(0, Kind::Float, Device::Cpu, None) }
    }

    /// A trainable tensor with the first values that `law` makes of uniform numbers in [0, 1), float64, the same for a name
    /// whatever else the network holds.
    fn drawn(&mut self, name: String, shape: &[i64], law: impl Fn(Tensor) -> Tensor) -> Tensor {
        let values = match &self.draws {
            Some(draws) => law(uniforms(draws, &name, shape)),
            None => Tensor::zeros([1], (self.kind, self.device)).expand(shape, false),
        };
        self.parameter(name, &values)
    }

    fn parameter(&mut self, name: String, values: &Tensor) -> Tensor {
        let tensor = values.to_kind(self.kind).to_device(self.device).set_requires_grad(true);
        self.parameters.push(Named { name, tensor: tensor.shallow_clone() });
        tensor
    }

    fn counter(&mut self) -> Counter {
        let counter = Counter::default();
        self.counters.push(Arc::clone(&counter));
        counter
    }

    /// A convolution without bias. Weights start uniform in ±1/sqrt(fan_in): PyTorch's default (`kaiming_uniform_` with
    /// a = sqrt 5).
    pub fn convolution(&mut self, name: &str, inputs: i64, outputs: i64, kernel: i64, stride: i64) -> Convolution {
        let name = format!("{name}.weight");
        let shape = [outputs, inputs, kernel, kernel];
        let bound = 1.0 / ((inputs * kernel * kernel) as f64).sqrt();
        let weight = self.drawn(name, &shape, |uniforms| (uniforms * 2.0 - 1.0) * bound);
        Convolution { weight, stride, padding: kernel / 2, groups: 1, counter: self.counter() }
    }

    /// A convolution without bias that filters each channel by itself; weights start by PyTorch's default.
    pub fn depthwise_convolution(&mut self, name: &str, channels: i64, kernel: i64, stride: i64) -> Convolution {
        let single = self.convolution(name, 1, channels, kernel, stride);
        Convolution { groups: channels, ..single }
    }

    /// A convolution without bias whose weights start normal with deviation sqrt(2 / (kernel^2 outputs)): WideResNet's own
    /// initialisation (TRADES models/wideresnet.py).
    pub fn normal_convolution(
        &mut self,
        name: &str,
        inputs: i64,
        outputs: i64,
        kernel: i64,
        stride: i64,
    ) -> Convolution {
        let name = format!("{name}.weight");
        let shape = [outputs, inputs, kernel, kernel];
        let deviation = (2.0 / (kernel * kernel * outputs) as f64).sqrt();
        let weight = self.drawn(name, &shape, |uniforms| {
            // The quantile function of the normal distribution at the middle of each of the 2^24 steps.
            let middles = uniforms + 0.5 / f64::from(1u32 << 24);
            (middles * 2.0 - 1.0).erfinv() * (2f64.sqrt() * deviation)
        });
        Convolution { weight, stride, padding: kernel / 2, groups: 1, counter: self.counter() }
    }

    /// Batch norm over `channels`: weight 1, bias 0, running mean 0 and variance 1, as in PyTorch.
    pub fn batch_norm(&mut self, name: &str, channels: i64) -> BatchNorm {
        let options = (self.kind, self.device);
        let weight = self.parameter(format!("{name}.weight"), &Tensor::ones([channels], options));
        let bias = self.parameter(format!("{name}.bias"), &Tensor::zeros([channels], options));
        let mut statistic = |name: String, tensor: Tensor| {
            self.statistics.push(Named { name, tensor: tensor.shallow_clone() });
            tensor
        };
        let running_mean = statistic(format!("{name}.running_mean"), Tensor::zeros([channels], options));
        let running_variance = statistic(format!("{name}.running_var"), Tensor::ones([channels], options));
        let (across_ranks, folds) = (self.across_ranks.clone(), Arc::clone(&self.folds));
        BatchNorm { weight, bias, running_mean, running_variance, across_ranks, folds, folded: Default::default() }
    }

    /// Values per channel that training leaves alone, stored with the network.
    pub fn constant(&mut self, name: &str, values: &[f64]) -> Tensor {
        let tensor = Tensor::from_slice(values).to_kind(self.kind).to_device(self.device);
        self.constants.push(Named { name: name.to_string(), tensor: tensor.shallow_clone() });
        tensor
    }

    /// A linear layer. Weight and bias start uniform in ±1/sqrt(inputs): PyTorch's default.
    pub fn linear(&mut self, name: &str, inputs: i64, outputs: i64) -> Linear {
        self.linear_with_bias(name, inputs, outputs, false)
    }

    /// A linear layer whose bias starts at 0 (WideResNet).
    pub fn linear_zero_bias(&mut self, name: &str, inputs: i64, outputs: i64) -> Linear {
        self.linear_with_bias(name, inputs, outputs, true)
    }

    fn linear_with_bias(&mut self, name: &str, inputs: i64, outputs: i64, zero_bias: bool) -> Linear {
        let bound = 1.0 / (inputs as f64).sqrt();
        let bias_bound = if zero_bias { 0.0 } else { bound };
        let weight =
            self.drawn(format!("{name}.weight"), &[outputs, inputs], |uniforms| (uniforms * 2.0 - 1.0) * bound);
        let bias = self.drawn(format!("{name}.bias"), &[outputs], |uniforms| (uniforms * 2.0 - 1.0) * bias_bound);
        Linear { weight, bias, counter: self.counter() }
    }
}

fn uniforms(draws: &Draws, name: &str, shape: &[i64]) -> Tensor {
    let key = draws.key(name_number(name));
    let count: i64 = shape.iter().product();
    let values: Vec<f64> = (0..count as u32).map(|element| uniform(key, element)).collect();
    Tensor::from_slice(&values).view(shape)
}

/// A number for a name (FNV-1a, 64 bits).
fn name_number(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Each value of `output` is a sum of as many products as an output of `weight` has inputs.
fn count(counter: &Counter, weight: &Tensor, output: &Tensor) {
    let products = weight.numel() as u64 / weight.size()[0] as u64;
    counter.fetch_add(products * output.numel() as u64, Ordering::Relaxed);
}

/// A square convolution without bias, padded to keep the size at stride 1.
pub struct Convolution {
    pub(super) weight: Tensor,
    stride: i64,
    padding: i64,
    groups: i64,
    counter: Counter,
}

impl Convolution {
    /// `[N, inputs, H, W]` to `[N, outputs, H / stride, W / stride]`.
    pub fn forward(&self, images: &Tensor) -> Tensor {
        self.with(images, &self.weight, None)
    }

    /// The same with another weight, and with a bias.
    pub(super) fn with(&self, images: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let output = images.conv2d(weight, bias, [self.stride; 2], [self.padding; 2], [1, 1], self.groups);
        count(&self.counter, weight, &output);
        output
    }
}

/// A residual block that normalises and activates before each of its two convolutions (He et al. 2016, identity mappings).
pub struct PreActivationBlock {
    /// Before the first convolution.
    pub bn1: BatchNorm,
    /// The first convolution, with the block's stride.
    pub conv1: Convolution,
    /// Before the second convolution.
    pub bn2: BatchNorm,
    /// The second convolution.
    pub conv2: Convolution,
    /// Where the shape changes.
    pub shortcut: Option<Convolution>,
}

impl PreActivationBlock {
    /// `[N, inputs, H, W]` to `[N, outputs, H / stride, W / stride]`.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Tensor {
        let activated = self.bn1.forward(images, mode).relu();
        let inner = self.bn2.after(&self.conv1, &activated, mode).relu();
        let inner = self.conv2.forward(&inner);
        match &self.shortcut {
            // Where the shape changes, the activated images feed the shortcut too; else the raw ones are added.
            Some(shortcut) => inner + shortcut.forward(&activated),
            None => inner + images,
        }
    }
}

/// `x W^T + b`.
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
    counter: Counter,
}

impl Linear {
    /// `[N, inputs]` to `[N, outputs]`.
    pub fn forward(&self, features: &Tensor) -> Tensor {
        let output = features.linear(&self.weight, Some(&self.bias));
        count(&self.counter, &self.weight, &output);
        output
    }
}
