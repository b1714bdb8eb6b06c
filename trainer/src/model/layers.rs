//! The layers of all networks, with PyTorch's initialisation stated, and the list of their tensors.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datasets::Draws;
use datasets::random::{Purpose, uniform};
use tch::{Device, Kind, Tensor, no_grad};
use torch_ext::Sum;

use super::Mode;

/// A tensor and its name in PyTorch's state_dict.
pub struct Named {
    /// The name, for instance `layer1.0.conv1.weight`.
    pub name: String,
    /// The tensor.
    pub tensor: Tensor,
}

/// Makes layers and keeps the list of their tensors, in PyTorch's order of registration.
pub struct Builder {
    draws: Draws,
    kind: Kind,
    device: Device,
    across_ranks: Option<Sum>,
    /// Raised once batch norms are part of the convolutions before them.
    pub folds: Arc<AtomicBool>,
    /// Trainable tensors.
    pub parameters: Vec<Named>,
    /// Running means and variances of batch norm.
    pub statistics: Vec<Named>,
    /// Tensors that never change, such as the normalisation of the input.
    pub constants: Vec<Named>,
}

impl Builder {
    /// Layers of type `kind` on `device`. The first values depend on `seed` and each parameter's name alone. With
    /// `across_ranks`, batch norm in training uses the statistics of the batch over all ranks.
    pub fn new(seed: u64, kind: Kind, device: Device, across_ranks: Option<Sum>) -> Self {
        let draws = Draws::new(seed, Purpose::Initialise, 0);
        let folds = Arc::default();
        Self { draws, kind, device, across_ranks, folds, parameters: vec![], statistics: vec![], constants: vec![] }
    }

    fn parameter(&mut self, name: String, values: &Tensor) -> Tensor {
        let tensor = values.to_kind(self.kind).to_device(self.device).set_requires_grad(true);
        self.parameters.push(Named { name, tensor: tensor.shallow_clone() });
        tensor
    }

    /// Uniform numbers in [0, 1), float64, the same for a name whatever else the network holds.
    fn uniforms(&self, name: &str, shape: &[i64]) -> Tensor {
        let key = self.draws.key(name_number(name));
        let count: i64 = shape.iter().product();
        let values: Vec<f64> = (0..count as u32).map(|element| uniform(key, element)).collect();
        Tensor::from_slice(&values).view(shape)
    }

    /// A convolution without bias. Weights start uniform in ±1/sqrt(fan_in): PyTorch's default (`kaiming_uniform_` with
    /// a = sqrt 5).
    pub fn convolution(&mut self, name: &str, inputs: i64, outputs: i64, kernel: i64, stride: i64) -> Convolution {
        let name = format!("{name}.weight");
        let shape = [outputs, inputs, kernel, kernel];
        let bound = 1.0 / ((inputs * kernel * kernel) as f64).sqrt();
        let values = (self.uniforms(&name, &shape) * 2.0 - 1.0) * bound;
        Convolution { weight: self.parameter(name, &values), stride, padding: kernel / 2, groups: 1 }
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
        // The quantile function of the normal distribution at the middle of each of the 2^24 steps.
        let middles = self.uniforms(&name, &shape) + 0.5 / f64::from(1u32 << 24);
        let values = (middles * 2.0 - 1.0).erfinv() * (2f64.sqrt() * deviation);
        Convolution { weight: self.parameter(name, &values), stride, padding: kernel / 2, groups: 1 }
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
        BatchNorm { weight, bias, running_mean, running_variance, across_ranks, folds, folded: OnceCell::new() }
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
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let weights = (self.uniforms(&weight, &[outputs, inputs]) * 2.0 - 1.0) * bound;
        let biases = (self.uniforms(&bias, &[outputs]) * 2.0 - 1.0) * if zero_bias { 0.0 } else { bound };
        Linear { weight: self.parameter(weight, &weights), bias: self.parameter(bias, &biases) }
    }
}

/// A number for a name (FNV-1a, 64 bits).
fn name_number(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A square convolution without bias, padded to keep the size at stride 1.
pub struct Convolution {
    weight: Tensor,
    stride: i64,
    padding: i64,
    groups: i64,
}

impl Convolution {
    /// `[N, inputs, H, W]` to `[N, outputs, H / stride, W / stride]`.
    pub fn forward(&self, images: &Tensor) -> Tensor {
        let none = None::<Tensor>;
        images.conv2d(&self.weight, none, [self.stride; 2], [self.padding; 2], [1, 1], self.groups)
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
}

impl Linear {
    /// `[N, inputs]` to `[N, outputs]`.
    pub fn forward(&self, features: &Tensor) -> Tensor {
        features.linear(&self.weight, Some(&self.bias))
    }
}

/// Batch normalisation with PyTorch's constants: epsilon 1e-5, momentum 0.1.
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_variance: Tensor,
    across_ranks: Option<Sum>,
    folds: Arc<AtomicBool>,
    /// Weight and bias of the convolution before, with this batch norm in them.
    folded: OnceCell<(Tensor, Tensor)>,
}

impl BatchNorm {
    const EPSILON: f64 = 1e-5;
    pub(super) const MOMENTUM: f64 = 0.1;

    /// Normalises `[N, C, H, W]` by the batch's statistics (training) or the running ones (evaluation).
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Tensor {
        match (&self.across_ranks, mode) {
            (_, Mode::Eval) => self.normalise(images, true, false),
            (Some(sum), _) => self.across_ranks(images, mode, sum),
            // Without samples there is nothing to measure: the running statistics stay as they are.
            (None, _) if images.size()[0] == 0 => self.normalise(images, true, false),
            (None, _) => self.normalise(images, mode == Mode::Train, true),
        }
    }

    /// A convolution and then this batch norm, which must follow it wherever it is used. With frozen weights one convolution
    /// does for both: w' = w g / sqrt(v + epsilon) and b' = b - m g / sqrt(v + epsilon).
    pub fn after(&self, convolution: &Convolution, images: &Tensor, mode: Mode) -> Tensor {
        if mode != Mode::Eval || !self.folds.load(Ordering::Relaxed) {
            return self.forward(&convolution.forward(images), mode);
        }
        let (weight, bias) = self.folded.get_or_init(|| {
            no_grad(|| {
                // In double precision, so that the factor itself adds no error.
                let double = |tensor: &Tensor| tensor.to_kind(Kind::Double);
                let factor = double(&self.weight) / (double(&self.running_variance) + Self::EPSILON).sqrt();
                let weight = double(&convolution.weight) * factor.view([-1, 1, 1, 1]);
                let bias = double(&self.bias) - double(&self.running_mean) * factor;
                let kind = self.weight.kind();
                (weight.to_kind(kind), bias.to_kind(kind))
            })
        });
        let Convolution { stride, padding, groups, .. } = *convolution;
        images.conv2d(weight, Some(bias), [stride; 2], [padding; 2], [1, 1], groups)
    }

    fn normalise(&self, images: &Tensor, with_running: bool, training: bool) -> Tensor {
        let (mean, variance) = (&self.running_mean, &self.running_variance);
        let (mean, variance) = if with_running { (Some(mean), Some(variance)) } else { (None, None) };
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        images.batch_norm(weight, bias, mean, variance, training, Self::MOMENTUM, Self::EPSILON, false)
    }

    fn across_ranks(&self, images: &Tensor, mode: Mode, sum: &Sum) -> Tensor {
        let normalised = torch_ext::batch_norm_across_ranks(images, &self.weight, &self.bias, Self::EPSILON, sum);
        if mode == Mode::Train {
            no_grad(|| {
                let unbiased = &normalised.count / (&normalised.count - 1.0).clamp_min(1.0);
                let variance = &normalised.variance * unbiased.to_kind(normalised.variance.kind());
                let _ = self.running_mean.shallow_clone().lerp_(&normalised.mean, Self::MOMENTUM);
                let _ = self.running_variance.shallow_clone().lerp_(&variance, Self::MOMENTUM);
            });
        }
        normalised.output
    }
}
