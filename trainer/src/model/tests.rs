//! Sizes, names, first values and modes of every network.

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
    for name in ["conv1.weight", "bn1.running_var", "layer2.0.shortcut.1.bias", "layer4.1.conv2.weight", "linear.bias"]
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
fn an_outline_is_the_network_without_its_values() {
    for architecture in ["resnet18", "preact-resnet18", "mobilenet-v2", "resnet8", "convnet", "wrn-10-1", "wrn-16-2"] {
        let model = build(architecture, [3, 32, 32], 7);
        let mut expected: Vec<_> = model.tensors().map(|named| (named.name.clone(), named.tensor.size())).collect();
        let mut found = outline(model.form);
        let parameters = found.iter().filter(|(name, _)| model.parameters.iter().any(|named| named.name == *name));
        assert!(
            parameters.map(|(name, _)| name).eq(model.parameters.iter().map(|named| &named.name)),
            "{architecture}"
        );
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{architecture}");
    }
    let form = Form { architecture: "preact-resnet18".parse().unwrap(), image: [3, 64, 64], classes: 200 };
    let names: Vec<String> = outline(form).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names[..3], ["normalize.mean", "normalize.std", "conv1.weight"]);
    assert_eq!(
        names[4..8],
        ["layer1.0.bn1.bias", "layer1.0.bn1.running_mean", "layer1.0.bn1.running_var", "layer1.0.conv1.weight"]
    );
    // A network that no machine could hold.
    let form = Form { architecture: "wrn-1000-64".parse().unwrap(), image: [3, 32, 32], classes: 1 << 40 };
    assert_eq!(outline(form).len(), 1 + 498 * 10 + 3 + 4 + 2);
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
fn first_values_follow_the_stated_laws_in_every_tensor() {
    for architecture in ["resnet18", "preact-resnet18", "mobilenet-v2", "resnet8", "convnet", "wrn-10-2"] {
        let model = build(architecture, [3, 32, 32], 10);
        let wide = architecture.starts_with("wrn");
        for Named { name, tensor } in &model.parameters {
            let (shape, values) = (tensor.size(), tensor.detach().to_kind(Kind::Double));
            let (mean, largest) = (values.mean(Kind::Double), f64::try_from(values.abs().max()).unwrap());
            let squares = f64::try_from(values.square().mean(Kind::Double)).unwrap();
            let count = tensor.numel() as f64;
            let inputs = tensor.numel() as f64 / shape[0] as f64;
            let expected = match (shape.len(), name.ends_with("bias")) {
                (4, _) if wide => 2.0 / (shape[0] * shape[2] * shape[3]) as f64,
                // Uniform within the bound: a third of its square.
                (4 | 2, _) => 1.0 / (3.0 * inputs),
                (_, true) if name == "linear.bias" => continue,
                (_, true) => 0.0,
                _ => 1.0,
            };
            // The relative standard error of a mean of squares: at most sqrt(2 / count), for normal values.
            let tolerance = if shape.len() == 1 { 0.0 } else { 5.0 * (2.0 / count).sqrt() };
            assert!((squares - expected).abs() <= tolerance * expected, "{architecture} {name}: {squares}, {expected}");
            if shape.len() > 1 {
                let mean = f64::try_from(mean).unwrap();
                assert!(mean.abs() <= 5.0 * (expected / count).sqrt(), "{architecture} {name}: mean {mean}");
            }
            if shape.len() == 2 || shape.len() == 4 && !wide {
                assert!(largest <= 1.0 / inputs.sqrt() + 1e-7, "{architecture} {name}: {largest}");
            }
        }
        if let Some(bias) = model.parameters.iter().find(|named| named.name == "linear.bias") {
            let features = model.parameters[model.parameters.len() - 2].tensor.size()[1] as f64;
            let largest = f64::try_from(bias.tensor.abs().max()).unwrap();
            assert!(largest <= 1.0 / features.sqrt() && largest > 0.3 / features.sqrt(), "{architecture}: {largest}");
        }
    }
}

#[test]
fn first_values_depend_on_seed_and_name() {
    let model = build("resnet8", [3, 32, 32], 10);
    let other = Model::build(model.form, 2, Kind::Float, Device::Cpu, None);
    assert!(!other.parameters[0].tensor.equal(&model.parameters[0].tensor));
    let again = build("resnet8", [3, 32, 32], 10);
    assert!(model.parameters.iter().zip(&again.parameters).all(|(one, other)| one.tensor.equal(&other.tensor)));
    let value = |name: &str| model.parameters.iter().find(|named| named.name == name).unwrap().tensor.shallow_clone();
    assert!(!value("layer1.0.conv1.weight").equal(&value("layer1.0.conv2.weight")));
}

#[test]
fn unknown_networks_are_refused_by_name() {
    for name in ["resnet19", "wrn-34", "wrn-33-10", "wrn-34-0", ""] {
        assert!(name.parse::<Architecture>().unwrap_err().contains(name));
    }
}

#[test]
fn batch_norm_in_the_convolutions_gives_the_same_logits() {
    for architecture in ["resnet18", "preact-resnet18", "mobilenet-v2", "resnet8", "wrn-10-1", "convnet"] {
        let model = build(architecture, [3, 32, 32], 10);
        let images = crate::fixtures::pattern(8 * 3 * 32 * 32, 5).to_kind(Kind::Float).view([8, 3, 32, 32]);
        // Statistics and parameters of a network that has seen something.
        no_grad(|| {
            for (key, named) in model.parameters.iter().enumerate().filter(|(_, named)| named.name.contains("bn")) {
                let values = crate::fixtures::pattern(named.tensor.numel(), key as u64).view_as(&named.tensor);
                named.tensor.shallow_clone().copy_(&(values + 0.5));
            }
            (0..20).for_each(|_| drop(model.logits(&images, Mode::Train)));
        });
        model.freeze();
        let slope = || {
            let variable = images.copy().set_requires_grad(true);
            let logits = model.logits(&variable, Mode::Eval);
            let loss = logits.logsumexp([1i64].as_slice(), false).sum(Kind::Float);
            (logits.detach(), Tensor::run_backward(&[loss], &[&variable], false, false).remove(0))
        };
        let (logits, gradient) = slope();
        model.fold_batch_norm(Kind::Float);
        let (folded, folded_gradient) = slope();
        let distance = |one: &Tensor, other: &Tensor| {
            f64::try_from((one - other).abs().max()).unwrap() / f64::try_from(one.abs().max()).unwrap()
        };
        assert!(distance(&logits, &folded) < 1e-5, "{architecture}: {}", distance(&logits, &folded));
        // A value that rounding moves across the corner of a ReLU moves its part of the gradient.
        let apart = f64::try_from((&gradient - &folded_gradient).norm() / gradient.norm()).unwrap();
        assert!(apart < 1e-2, "{architecture}: gradients {apart} apart");
        assert!(logits.argmax(1, false).equal(&folded.argmax(1, false)), "{architecture}");
        assert_eq!(logits.equal(&folded), architecture == "convnet", "{architecture}: is anything folded?");
    }
}
