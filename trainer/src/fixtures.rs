//! What tests share: the inputs of tests/fixtures/make.py, numbers of golden files, a small configuration.

mod ranks;

use std::path::Path;

use anyhow::Result;
use serde_json::Value;
use tch::{Device, Kind, Tensor, no_grad};

pub(crate) use self::ranks::{Call, on_ranks};

use crate::config::{Override, RunConfig};
use crate::model::{Model, ModelSpec, OverRanks};

/// `count` numbers in [0, 1), exact multiples of 2^-32, as in make.py.
pub(crate) fn pattern(count: usize, key: u64) -> Tensor {
    let number =
        |index: u64| ((index * 2_654_435_761 + key * 40_503 + 12_345) % (1 << 32)) as f64 / (1u64 << 32) as f64;
    Tensor::from_slice(&(0..count as u64).map(number).collect::<Vec<f64>>())
}

/// Lists of lists of numbers as a tensor in float64.
pub(crate) fn tensor_of(value: &Value) -> Tensor {
    fn collect(value: &Value, numbers: &mut Vec<f64>) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| collect(value, numbers)),
            number => numbers.push(number.as_f64().unwrap()),
        }
    }
    let (mut shape, mut inner) = (vec![], value);
    while let Some(values) = inner.as_array() {
        shape.push(values.len() as i64);
        inner = &values[0];
    }
    let mut numbers = vec![];
    collect(value, &mut numbers);
    Tensor::from_slice(&numbers).view(shape.as_slice())
}

/// The configuration of a small network that is trained adversarially for four epochs.
pub(crate) const SMALL: &str = r#"
epochs = 4
batch = { size = 8 }
data = { train = "a.h5", test = "a.h5" }
student = { architecture = "resnet8" }
loss = { preset = "at" }
optimizer = { lr = 0.1, lr_policy = "constant" }
"#;

/// That configuration, changed as by `--set`.
pub(crate) fn parse(changes: &[&str]) -> Result<RunConfig> {
    let changes: Vec<Override> = changes.iter().map(|text| text.parse().unwrap()).collect();
    RunConfig::parse(SMALL, Path::new("test.toml"), &changes)
}

/// A weighted sum of the values and their norm: together they notice any difference that matters.
pub(crate) fn digest(tensor: &Tensor) -> [f64; 2] {
    let tensor = tensor.to_kind(Kind::Double);
    let weights = pattern(tensor.numel(), 99) + 1.0;
    [(tensor.flatten(0, -1) * weights).sum(Kind::Double), tensor.norm()].map(|value| f64::try_from(value).unwrap())
}

/// make.py's ResNet8 for 3x16x16 images: each tensor a pattern whose key is its place in the sorted list of names.
pub(crate) fn network(seed: u64, classes: usize, kind: Kind) -> Model {
    network_across(seed, classes, kind, None)
}

/// The same with batch norm across ranks.
pub(crate) fn network_across(seed: u64, classes: usize, kind: Kind, over_ranks: Option<OverRanks>) -> Model {
    let form = ModelSpec::new("resnet8".parse().unwrap(), [3, 16, 16], classes);
    let model = Model::build(form, 1, kind, Device::Cpu, over_ranks);
    let mut named: Vec<_> = model.tensors().collect();
    named.sort_by(|one, other| one.name.cmp(&other.name));
    for (place, named) in named.into_iter().enumerate() {
        let tensor = &named.tensor;
        let values = pattern(tensor.numel(), seed * 1000 + place as u64).view_as(tensor);
        let values = if named.name.ends_with("running_var") {
            values + 0.5
        } else if tensor.dim() == 1 && named.name.ends_with("weight") {
            values / 2.0 + 0.75
        } else {
            let fan_in = (tensor.numel() / tensor.size()[0] as usize).max(16) as f64;
            (values - 0.5) * (2.0 / fan_in.sqrt())
        };
        no_grad(|| tensor.shallow_clone().copy_(&values));
    }
    model
}
