//! A network whose forward passes compute in a lower precision.

use tch::{Device, Kind, Tensor};
use torch_ext::{Autocast, Tf32};

use crate::config::{Dtype, Precision};
use crate::evaluate::Classifier;

/// `network` with forward passes in `dtype`; itself in single or double precision (`auto` is no format of an evaluation). Images, logits, losses and the steps of
/// attacks keep the network's type.
pub fn in_precision(network: Box<dyn Classifier>, dtype: Dtype) -> Box<dyn Classifier> {
    match dtype {
        Dtype::Float32 | Dtype::Float64 | Dtype::Auto => network,
        Dtype::Tf32 | Dtype::Bfloat16 => {
            let products = Precision { dtype, ..Precision::default() }.products();
            Box::new(Lowered { network, dtype, _products: products })
        }
    }
}

struct Lowered {
    network: Box<dyn Classifier>,
    dtype: Dtype,
    /// Holds for backward passes too.
    _products: Tf32,
}

impl Classifier for Lowered {
    fn classes(&self) -> usize {
        self.network.classes()
    }

    fn kind(&self) -> Kind {
        self.network.kind()
    }

    fn device(&self) -> Device {
        self.network.device()
    }

    fn logits(&self, images: &Tensor) -> Tensor {
        let _region = (self.dtype == Dtype::Bfloat16).then(|| Autocast::bfloat16(self.device()));
        self.network.logits(images).to_kind(self.kind())
    }

    fn stand_in(&self, images: &Tensor) -> Option<Tensor> {
        let _region = (self.dtype == Dtype::Bfloat16).then(|| Autocast::bfloat16(self.device()));
        Some(self.network.stand_in(images)?.to_kind(self.kind()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pattern;
    use crate::model::{Model, ModelSpec};

    fn network(dtype: Dtype) -> Box<dyn Classifier> {
        let spec = ModelSpec::new("resnet8".parse().unwrap(), [3, 8, 8], 10);
        let model = Model::build(spec, 3, Kind::Float, Device::Cpu, None);
        Precision { dtype, ..Precision::default() }.freeze(&model);
        in_precision(Box::new(model), dtype)
    }

    /// Logits and the gradient of the images.
    fn passes(network: &dyn Classifier) -> [Tensor; 2] {
        let images = pattern(16 * 3 * 64, 5).view([16, 3, 8, 8]).to_kind(Kind::Float).set_requires_grad(true);
        let logits = network.logits(&images);
        logits.square().sum(Kind::Float).backward();
        [logits.detach(), images.grad()]
    }

    #[test]
    fn tf32_is_float32_on_a_cpu_and_bfloat16_is_near() {
        let full = passes(&*network(Dtype::Float32));
        for (one, other) in full.iter().zip(passes(&*network(Dtype::Tf32))) {
            assert!(one.equal(&other));
        }
        for (one, other) in full.iter().zip(passes(&*network(Dtype::Bfloat16))) {
            assert_eq!(other.kind(), Kind::Float);
            let apart = f64::try_from((one - &other).norm() / one.norm()).unwrap();
            assert!((1e-6..0.1).contains(&apart), "{apart}");
        }
    }
}
