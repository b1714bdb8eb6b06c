//! Sizes, names, initial values and modes of every network.

use super::*;

fn build(architecture: &str, image: [usize; 3], classes: usize) -> Model {
    let form = ModelSpec::new(architecture.parse().unwrap(), image, classes);
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

/// RobustBench's networks: their parameters and the entries of their state_dict, pass counters among them.
#[test]
fn sizes_of_published_networks_are_those_of_their_classes() {
    for (architecture, parameters, entries) in [
        ("wrn-28-10", 36_479_194, 155),
        ("wrn-34-20", 184_531_674, 191),
        ("wrn-70-16", 266_796_506, 407),
        ("dm-wrn-28-10", 36_479_194, 155),
        ("dm-wrn-34-20", 184_531_674, 191),
        ("dm-wrn-70-16", 266_796_506, 407),
        ("dm-preact-resnet18", 12_548_426, 107),
        ("preact-resnet18-raw-no-last-norm", 11_171_146, 102),
        ("resnet18", 11_173_962, 122),
        // Of 322 entries in the zoo, two are the normalisation.
        ("resnet50", 23_520_842, 320),
    ] {
        let tensors = outline(ModelSpec::new(architecture.parse().unwrap(), [3, 32, 32], 10));
        let trained = tensors.iter().filter(|(name, _)| !name.contains(".running_"));
        let count: i64 = trained.map(|(_, shape)| shape.iter().product::<i64>()).sum();
        let counters = tensors.iter().filter(|(name, _)| name.ends_with("running_mean")).count();
        assert_eq!((count, tensors.len() + counters), (parameters, entries), "{architecture}");
    }
}

#[test]
fn names_of_networks_are_read_and_written_back() {
    for name in [
        "resnet34",
        "torchvision-resnet50",
        "preact-resnet18-raw",
        "preact-resnet18-raw-no-last-norm",
        "dm-wrn-70-16",
        "dm-wrn-28-10-relu",
        "dm-preact-resnet18",
    ] {
        assert_eq!(name.parse::<Architecture>().unwrap().to_string(), name);
    }
    for name in ["resnet19", "torchvision-resnet", "preact-resnet18-", "dm-resnet18", "dm-wrn-33-10", "wrn-28-10-relu"]
    {
        assert!(name.parse::<Architecture>().unwrap_err().contains(name), "{name}");
    }
}

#[test]
fn a_normalised_network_is_the_network_of_normalised_images() {
    let plain = build("resnet8", [3, 16, 16], 5);
    let form = ModelSpec { normalize: Some(crate::config::Normalize::Cifar10), ..plain.form };
    let model = Model::build(form, 1, Kind::Float, Device::Cpu, None);
    let names: Vec<&str> = model.constants.iter().map(|named| named.name.as_str()).collect();
    assert_eq!(names, ["normalize.mean", "normalize.std"]);
    let images = Tensor::rand([4, 3, 16, 16], tch::kind::FLOAT_CPU);
    let by = |values: [f32; 3]| Tensor::from_slice(&values).view([1, 3, 1, 1]);
    let normalised = (&images - by([0.4914, 0.4822, 0.4465])) / by([0.2471, 0.2435, 0.2616]);
    assert!(model.logits(&images, Mode::Eval).equal(&plain.logits(&normalised, Mode::Eval)));
    // A file without a normalisation is written as before.
    assert!(!serde_json::to_string(&plain.form).unwrap().contains("normalize"));
    assert!(serde_json::to_string(&form).unwrap().contains("\"normalize\":\"cifar10\""));
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
    let form = ModelSpec::new("preact-resnet18".parse().unwrap(), [3, 64, 64], 200);
    let names: Vec<String> = outline(form).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names[..3], ["normalize.mean", "normalize.std", "conv1.weight"]);
    assert_eq!(
        names[4..8],
        ["layer1.0.bn1.bias", "layer1.0.bn1.running_mean", "layer1.0.bn1.running_var", "layer1.0.conv1.weight"]
    );
    // A network that no machine could hold.
    let form = ModelSpec::new("wrn-1000-64".parse().unwrap(), [3, 32, 32], 1 << 40);
    assert_eq!(outline(form).len(), 1 + 498 * 10 + 3 + 4 + 2);
}

#[test]
fn every_network_gives_finite_logits_for_every_batch_size() {
    for architecture in [
        "resnet18",
        "preact-resnet18",
        "mobilenet-v2",
        "resnet8",
        "convnet",
        "wrn-10-1",
        "dm-wrn-10-1",
        "dm-preact-resnet18",
    ] {
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
    for architecture in ["resnet18", "preact-resnet18", "mobilenet-v2", "resnet8", "wrn-10-1", "convnet", "dm-wrn-10-1"]
    {
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
