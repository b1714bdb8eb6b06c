//! Networks: classifiers of images in [0, 1]. Knows nothing of attacks, losses or ranks.

mod convnet;
mod layers;
mod mobilenet_v2;
mod preact_resnet;
mod resnet;
mod wide_resnet;

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};
use torch_ext::Sum;

use self::layers::Builder;
pub use self::layers::Named;

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

/// The networks there are, by their names in a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Architecture {
    /// `resnet18`: ResNet-18 with the CIFAR stem.
    ResNet18,
    /// `preact-resnet18`: ResNet-18 with pre-activation blocks, its input normalised inside.
    PreActResNet18,
    /// `mobilenet-v2`: MobileNetV2 with strides for CIFAR.
    MobileNetV2,
    /// `resnet8`: three residual blocks of 16, 32 and 64 channels behind a stem of stride 2; for runs on CPUs.
    ResNet8,
    /// `convnet`: four convolutions without batch norm; for trials and tests.
    ConvNet,
    /// `wrn-DEPTH-WIDTH`, for instance `wrn-34-10`: WideResNet.
    WideResNet {
        /// Number of layers, 6 n + 4.
        depth: u32,
        /// Multiple of 16 channels.
        width: u32,
    },
}

impl Architecture {
    /// The spellings, for messages.
    pub const NAMES: &'static str =
        "resnet18, preact-resnet18, mobilenet-v2, resnet8, convnet or wrn-DEPTH-WIDTH (as in wrn-34-10)";

    /// The smallest height and width of images that leave something to pool.
    pub fn smallest_image(self) -> usize {
        match self {
            Architecture::WideResNet { .. } => 4,
            _ => 8,
        }
    }
}

impl FromStr for Architecture {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let unknown = || format!("unknown network {name:?}; expected {}", Self::NAMES);
        match name {
            "resnet18" => Ok(Architecture::ResNet18),
            "preact-resnet18" => Ok(Architecture::PreActResNet18),
            "mobilenet-v2" => Ok(Architecture::MobileNetV2),
            "resnet8" => Ok(Architecture::ResNet8),
            "convnet" => Ok(Architecture::ConvNet),
            _ => {
                let (depth, width) =
                    name.strip_prefix("wrn-").and_then(|rest| rest.split_once('-')).ok_or_else(unknown)?;
                let (depth, width): (u32, u32) = depth.parse().ok().zip(width.parse().ok()).ok_or_else(unknown)?;
                if depth < 10 || (depth - 4) % 6 != 0 || depth > 1000 || !(1..=64).contains(&width) {
                    return Err(format!(
                        "{name:?}: a WideResNet has 6 n + 4 layers (10, 16, .. 34, ..) and width 1 to 64"
                    ));
                }
                Ok(Architecture::WideResNet { depth, width })
            }
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Architecture::ResNet18 => write!(out, "resnet18"),
            Architecture::PreActResNet18 => write!(out, "preact-resnet18"),
            Architecture::MobileNetV2 => write!(out, "mobilenet-v2"),
            Architecture::ResNet8 => write!(out, "resnet8"),
            Architecture::ConvNet => write!(out, "convnet"),
            Architecture::WideResNet { depth, width } => write!(out, "wrn-{depth}-{width}"),
        }
    }
}

impl TryFrom<String> for Architecture {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl From<Architecture> for String {
    fn from(architecture: Architecture) -> String {
        architecture.to_string()
    }
}

/// What a network takes and gives; stored with its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    network: Box<dyn Network>,
}

impl Model {
    /// A network with its first values, a function of `seed` and the parameters' names.
    pub fn build(form: Form, seed: u64, kind: Kind, device: Device, across_ranks: Option<Sum>) -> Self {
        let sums_ranks = across_ranks.is_some();
        let mut layers = Builder::new(seed, kind, device, across_ranks);
        let (channels, classes) = (form.image[0] as i64, form.classes as i64);
        let network: Box<dyn Network> = match form.architecture {
            Architecture::ResNet18 => Box::new(resnet::ResNet::eighteen(&mut layers, channels, classes)),
            Architecture::PreActResNet18 => {
                Box::new(preact_resnet::PreActResNet::eighteen(&mut layers, channels, classes))
            }
            Architecture::MobileNetV2 => Box::new(mobilenet_v2::MobileNetV2::new(&mut layers, channels, classes)),
            Architecture::ResNet8 => Box::new(resnet::ResNet::eight(&mut layers, channels, classes)),
            Architecture::ConvNet => Box::new(convnet::ConvNet::new(&mut layers, channels, classes)),
            Architecture::WideResNet { depth, width } => {
                Box::new(wide_resnet::WideResNet::new(&mut layers, channels, classes, depth.into(), width.into()))
            }
        };
        let Builder { parameters, mut statistics, constants, .. } = layers;
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
            network,
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

/// Moves tensors into one new flat buffer, of which they become views, and returns the buffer.
pub fn flatten(tensors: &mut [Named], kind: Kind, device: Device) -> Tensor {
    let count: i64 = tensors.iter().map(|named| named.tensor.numel() as i64).sum();
    let flat = Tensor::zeros([count], (kind, device));
    let mut offset = 0;
    no_grad(|| {
        for Named { tensor, .. } in tensors {
            let view = flat.narrow(0, offset, tensor.numel() as i64).view_as(tensor);
            view.shallow_clone().copy_(tensor);
            // Every handle to the tensor sees the new place: the layers keep theirs.
            tensor.set_data(&view);
            offset += tensor.numel() as i64;
        }
    });
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(architecture: &str, image: [usize; 3], classes: usize) -> Model {
        let form = Form { architecture: architecture.parse().unwrap(), image, classes };
        Model::build(form, 1, Kind::Float, Device::Cpu, None)
    }

    #[test]
    fn parameter_counts_are_those_of_the_reference_networks() {
        for (architecture, image, classes, count) in [
            ("resnet18", [3, 32, 32], 10, 11_173_962),
            ("resnet18", [3, 32, 32], 100, 11_220_132),
            ("wrn-34-10", [3, 32, 32], 10, 46_160_474),
            ("preact-resnet18", [3, 64, 64], 200, 11_269_640),
            ("preact-resnet18", [3, 32, 32], 10, 11_172_170),
            ("mobilenet-v2", [3, 32, 32], 10, 2_296_922),
            ("mobilenet-v2", [3, 32, 32], 100, 2_412_212),
            ("resnet8", [1, 28, 28], 10, 77_754),
        ] {
            assert_eq!(build(architecture, image, classes).parameter_count(), count, "{architecture}");
        }
    }

    #[test]
    fn state_dict_names_are_those_of_the_reference() {
        let names: Vec<String> = build("resnet18", [3, 32, 32], 10).tensors().map(|named| named.name.clone()).collect();
        assert_eq!(names.iter().filter(|name| !name.contains("running")).count(), 62);
        assert_eq!(names.len(), 122 - 20); // the reference's 122 entries hold 20 pass counters
        for name in
            ["conv1.weight", "bn1.running_var", "layer2.0.shortcut.1.bias", "layer4.1.conv2.weight", "linear.bias"]
        {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
        // As the reference saves them: 109 and 344 entries with the pass counters, one for each running mean.
        for (architecture, entries) in [("preact-resnet18", 109), ("mobilenet-v2", 344)] {
            let model = build(architecture, [3, 32, 32], 10);
            let counters = model.tensors().filter(|named| named.name.ends_with("running_mean")).count();
            assert_eq!(model.tensors().count() + counters, entries, "{architecture}");
        }
        let wide = build("wrn-10-1", [3, 32, 32], 10);
        let names: Vec<&str> = wide.parameters.iter().map(|named| named.name.as_str()).collect();
        assert_eq!(
            names[..7],
            [
                "conv1.weight",
                "block1.layer.0.bn1.weight",
                "block1.layer.0.bn1.bias",
                "block1.layer.0.conv1.weight",
                "block1.layer.0.bn2.weight",
                "block1.layer.0.bn2.bias",
                "block1.layer.0.conv2.weight"
            ]
        );
        assert!(names.contains(&"block2.layer.0.convShortcut.weight"));
    }

    #[test]
    fn every_network_gives_finite_logits_for_every_batch_size() {
        for architecture in ["resnet18", "preact-resnet18", "mobilenet-v2", "resnet8", "convnet", "wrn-10-1"] {
            let model = build(architecture, [3, 32, 32], 7);
            for count in [0, 1, 3] {
                for mode in [Mode::Train, Mode::TrainFrozen, Mode::Eval] {
                    let logits = model.logits(&Tensor::rand([count, 3, 32, 32], tch::kind::FLOAT_CPU), mode);
                    assert_eq!(logits.size(), [count, 7]);
                    assert!(bool::try_from(logits.isfinite().all()).unwrap(), "{architecture} {mode:?}");
                }
            }
        }
    }

    #[test]
    fn only_train_mode_moves_the_running_statistics() {
        let model = build("resnet8", [1, 28, 28], 10);
        let images = Tensor::rand([4, 1, 28, 28], tch::kind::FLOAT_CPU);
        let before = model.flat_statistics.copy();
        let _ = model.logits(&images, Mode::Eval);
        let _ = model.logits(&images, Mode::TrainFrozen);
        assert!(before.equal(&model.flat_statistics));
        let _ = model.logits(&images, Mode::Train);
        assert!(!before.equal(&model.flat_statistics));
        assert_eq!(i64::try_from(&model.batches_tracked).unwrap(), 1);
    }

    #[test]
    fn first_values_depend_on_the_seed_and_follow_the_stated_laws() {
        let model = build("wrn-10-1", [3, 32, 32], 10);
        let weight = &model.parameters.iter().find(|named| named.name == "block3.layer.0.conv2.weight").unwrap().tensor;
        let deviation = f64::try_from(weight.std(true)).unwrap();
        assert!((deviation / (2.0f64 / (9.0 * 64.0)).sqrt() - 1.0).abs() < 0.02, "{deviation}");
        let model = build("resnet18", [3, 32, 32], 10);
        let weight = &model.parameters[0].tensor;
        let bound = 1.0 / 27f64.sqrt();
        let largest = f64::try_from(weight.abs().max()).unwrap();
        assert!(largest <= bound && largest > 0.99 * bound, "{largest}");
        let other = Model::build(model.form, 2, Kind::Float, Device::Cpu, None);
        assert!(!other.parameters[0].tensor.equal(weight));
    }

    #[test]
    fn unknown_networks_are_refused_by_name() {
        for name in ["resnet19", "wrn-34", "wrn-33-10", "wrn-34-0", ""] {
            assert!(name.parse::<Architecture>().unwrap_err().contains(name));
        }
    }
}
