//! The tensor types of a frozen network and of a network in training.

use tch::Device;

use super::*;
use crate::config::{Fused, Named};
use crate::fixtures::{network, pattern};
use crate::model::ModelSpec;

const FUSED: Fused = Fused::Stated(false);
const LOWER: Precision = Precision {
    name: Named::Reference,
    dtype: Dtype::Bfloat16,
    channels_last: false,
    cuda_graphs: false,
    fused: FUSED,
};

fn images() -> Tensor {
    pattern(8 * 3 * 16 * 16, 4).view([8, 3, 16, 16]).to_kind(Kind::Float)
}

#[test]
fn a_frozen_network_keeps_its_answers() {
    for architecture in ["resnet8", "preact-resnet18", "mobilenet-v2", "wrn-10-1", "convnet"] {
        let form = ModelSpec::new(architecture.parse().unwrap(), [3, 16, 16], 5);
        let build = || Model::build(form, 3, Kind::Float, Device::Cpu, None);
        let expected = build();
        (0..5).for_each(|_| drop(no_grad(|| expected.logits(&images(), Mode::Train))));
        let expected = no_grad(|| expected.logits(&images(), Mode::Eval));
        for (dtype, tolerance) in [(Dtype::Float32, 1e-5), (Dtype::Bfloat16, 0.05)] {
            for channels_last in [false, true] {
                let precision = Precision { dtype, channels_last, ..Precision::default() };
                let model = build();
                (0..5).for_each(|_| drop(no_grad(|| model.logits(&images(), Mode::Train))));
                precision.freeze(&model);
                let found = precision.logits(&model, &images(), Mode::Eval);
                assert_eq!(found.kind(), Kind::Float);
                assert!(!found.requires_grad());
                let apart = f64::try_from((&found - &expected).norm() / expected.norm()).unwrap();
                assert!(apart <= tolerance, "{architecture} {precision:?}: {apart}");
            }
        }
    }
}

#[test]
fn frozen_weights_are_cast_once_and_the_rest_stays() {
    let model = network(2, 5, Kind::Float);
    LOWER.freeze(&model);
    for named in model.tensors() {
        let expected = if named.tensor.dim() > 1 { Kind::BFloat16 } else { Kind::Float };
        assert_eq!(named.tensor.kind(), expected, "{}", named.name);
    }
    assert_eq!(model.kind(), Kind::Float);
}

#[test]
fn weights_in_training_are_cast_once_until_they_are_said_to_change() {
    let model = network(1, 5, Kind::Float);
    let pass = || LOWER.logits(&model, &images(), Mode::TrainFrozen);
    let casts = Casts::fresh();
    let before = pass();
    // No one may do this while the casts live; it shows that they are used.
    no_grad(|| {
        model.parameters.iter().filter(|named| named.tensor.dim() > 1).for_each(|named| {
            let _ = named.tensor.shallow_clone().g_mul_scalar_(1.5);
        });
    });
    assert!(pass().equal(&before), "weights are cast at every use");
    drop(casts);
    assert!(!pass().equal(&before), "a cast outlived the change of its weight");
}

#[test]
fn maps_of_images_of_any_number_of_channels_are_channels_last() {
    for channels in [1, 3] {
        let images = pattern(4 * channels * 64, 4).view([4, channels as i64, 8, 8]).to_kind(Kind::Float);
        let last = channels_last(&images);
        assert!(last.equal(&images));
        let weight = pattern(6 * channels * 9, 5).view([6, channels as i64, 3, 3]).to_kind(Kind::Float);
        let maps = last.conv2d(&weight, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1);
        assert_eq!(maps.stride(), [6 * 64, 1, 8 * 6, 6], "{channels}");
    }
}
