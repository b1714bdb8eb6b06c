//! Makes layers with PyTorch's initial values and lists their tensors.

use std::sync::{Arc, OnceLock};

use datasets::Draws;
use datasets::random::{Purpose, uniform};
use tch::{Device, Kind, Tensor};
use torch_ext::Kernels;

use super::batch_norm::{BatchNorm, OverRanks};
use super::layers::{Convolution, Counter, Linear, Named};

/// Makes layers and lists their tensors in PyTorch's order of registration.
pub struct Builder {
    /// The seed of initial values. Without a seed, tensors are placeholders with a shape and no memory.
    draws: Option<Draws>,
    kind: Kind,
    device: Device,
    over_ranks: Option<OverRanks>,
    /// The type of folded weights, once batch norms are folded into their convolutions.
    pub folds: Arc<OnceLock<Kind>>,
    /// Fused kernels, once batch norms are to use them.
    pub fuses: Arc<OnceLock<Arc<Kernels>>>,
    /// Trainable tensors.
    pub parameters: Vec<Named>,
    /// Running means and variances of batch norm.
    pub statistics: Vec<Named>,
    /// Tensors that training never changes, such as the normalisation of the input.
    pub constants: Vec<Named>,
    /// The multiply-add counters of convolutions and linear layers, in the order of creation.
    pub counters: Vec<Counter>,
}

impl Builder {
    /// Layers of type `kind` on `device`. Initial values depend only on `seed` and the parameter's name. With
    /// `over_ranks`, batch norm in training uses the statistics of the batch over all ranks.
    pub fn new(seed: u64, kind: Kind, device: Device, over_ranks: Option<OverRanks>) -> Self {
        let draws = Some(Draws::new(seed, Purpose::Initialise, 0));
        let (parameters, statistics, constants, counters) = (vec![], vec![], vec![], vec![]);
        let (folds, fuses) = Default::default();
        Self { draws, kind, device, over_ranks, folds, fuses, parameters, statistics, constants, counters }
    }

    /// Layers whose tensors have shapes only; all values share one memory cell.
    pub fn outline() -> Self {
        Self { draws: None, ..Self::new(0, Kind::Float, Device::Cpu, None) }
    }

    /// A trainable tensor. `law` makes its initial values of uniform numbers in [0, 1), float64, which depend on the
    /// name and not on the rest of the network.
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

    /// A convolution without bias. Initial weights are uniform in ±1/sqrt(fan_in): PyTorch's default
    /// (`kaiming_uniform_` with a = sqrt 5).
    pub fn convolution(&mut self, name: &str, inputs: i64, outputs: i64, kernel: i64, stride: i64) -> Convolution {
        let name = format!("{name}.weight");
        let shape = [outputs, inputs, kernel, kernel];
        let bound = 1.0 / ((inputs * kernel * kernel) as f64).sqrt();
        let weight = self.drawn(name, &shape, |uniforms| (uniforms * 2.0 - 1.0) * bound);
        Convolution { weight, stride, padding: kernel / 2, one_sided: false, groups: 1, counter: self.counter() }
    }

    /// A depthwise convolution without bias; initial weights follow PyTorch's default.
    pub fn depthwise_convolution(&mut self, name: &str, channels: i64, kernel: i64, stride: i64) -> Convolution {
        let single = self.convolution(name, 1, channels, kernel, stride);
        Convolution { groups: channels, ..single }
    }

    /// A convolution without bias. Initial weights are normal with deviation sqrt(2 / (kernel^2 outputs)), as in
    /// WideResNet (TRADES models/wideresnet.py).
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
        Convolution { weight, stride, padding: kernel / 2, one_sided: false, groups: 1, counter: self.counter() }
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
        BatchNorm {
            weight,
            bias,
            running_mean,
            running_variance,
            over_ranks: self.over_ranks.clone(),
            folds: Arc::clone(&self.folds),
            fuses: Arc::clone(&self.fuses),
            folded: Default::default(),
        }
    }

    /// Values per channel that training does not change, stored with the network.
    pub fn constant(&mut self, name: &str, values: &[f64]) -> Tensor {
        let tensor = Tensor::from_slice(values).to_kind(self.kind).to_device(self.device);
        self.constants.push(Named { name: name.to_string(), tensor: tensor.shallow_clone() });
        tensor
    }

    /// A linear layer. Initial weight and bias are uniform in ±1/sqrt(inputs): PyTorch's default.
    pub fn linear(&mut self, name: &str, inputs: i64, outputs: i64) -> Linear {
        self.linear_with_bias(name, inputs, outputs, false)
    }

    /// A linear layer with an initial bias of 0 (WideResNet).
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

/// A hash of a name (FNV-1a, 64 bits).
fn name_number(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
