//! Networks of published layouts: PyTorch's logits, both ways, and what their tensors do not tell.

use super::*;
use crate::config::Normalize;

/// Whether a network is recognised without a word of the user's.
const LAYOUTS: [(&str, bool); 15] = [
    ("resnet34", true),
    ("resnet50", true),
    ("torchvision-resnet18", true),
    ("torchvision-resnet34", true),
    ("torchvision-resnet50", true),
    ("preact-resnet18+none", true),
    ("preact-resnet18-raw", false),
    ("preact-resnet18-no-last-norm", false),
    ("preact-resnet18-raw-no-last-norm", false),
    ("dm-wrn-16-2", false),
    ("dm-wrn-16-2-relu", false),
    ("dm-preact-resnet18", false),
    ("dm-wrn-10-1+cifar100", false),
    ("wrn-10-1+cifar10", true),
    ("resnet18+imagenet", true),
];

#[test]
fn pytorch_computes_the_same_logits_of_every_layout_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    for part in LAYOUTS.chunks(5) {
        let names: Vec<&str> = part.iter().map(|(name, _)| *name).collect();
        let mut written = vec![];
        for name in &names {
            let (file, model, tensors) = write(folder.path(), name);
            export(&file, &folder.path().join(format!("{name}.pth")), None).unwrap();
            written.push((model, tensors));
        }
        in_pytorch(folder.path(), &names);
        for ((name, recognised), (model, tensors)) in part.iter().zip(written) {
            same_logits(folder.path(), name, &model);
            let (file, to) = (folder.path().join(format!("{name}-plain.pth")), folder.path().join("made.safetensors"));
            let known = (!recognised).then_some(model.form);
            let normalize = known.map(|form| form.normalize.unwrap_or(Normalize::None));
            let normalize = normalize.filter(|normalize| *normalize == Normalize::None);
            let architecture = known.map(|form| form.architecture);
            let made = import(&ImportRequest { architecture, normalize, ..request(&file, &to) });
            let made = made.unwrap_or_else(|error| panic!("{name}: {error:#}"));
            assert_eq!((made.form, made.parameters), (model.form, model.parameter_count()), "{name}");
            let (_, found) = checkpoint::read(&to).unwrap();
            assert!(same(&found, &tensors), "{name}");
            fs::remove_file(to).unwrap();
        }
    }
}

#[test]
fn tensors_that_fit_several_networks_ask_which_one_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let exported = |name: &str| {
        let (file, model, _) = write(folder.path(), name);
        let to = folder.path().join(format!("{name}.pth"));
        export(&file, &to, None).unwrap();
        (to, model)
    };
    let to = folder.path().join("made.safetensors");
    let asked = |request: &ImportRequest| import(request).unwrap_err().to_string();

    let (deepmind, _) = exported("dm-wrn-16-2");
    let message = asked(&request(&deepmind, &to));
    assert!(message.contains("--architecture dm-wrn-16-2 (SiLU") && message.contains("dm-wrn-16-2-relu"), "{message}");
    let silu = ImportRequest { architecture: Some("dm-wrn-16-2".parse().unwrap()), ..request(&deepmind, &to) };
    let message = asked(&silu);
    assert!(message.contains("--normalize cifar10 or cifar100"), "{message}");
    let made = import(&ImportRequest { normalize: Some(Normalize::Cifar10), ..silu }).unwrap();
    assert_eq!(made.form.normalize, Some(Normalize::Cifar10));
    fs::remove_file(&to).unwrap();

    let (preact, model) = exported("preact-resnet18-raw-no-last-norm");
    let message = asked(&request(&preact, &to));
    assert!(message.contains("preact-resnet18-no-last-norm") && message.contains("Wong2020Fast"), "{message}");
    // A published id says both; another shortcut computes something else.
    let made = import(&ImportRequest { id: Some("Andriushchenko2020Understanding"), ..request(&preact, &to) }).unwrap();
    assert_eq!(made.form, model.form);
    let (_, tensors) = checkpoint::read(&to).unwrap();
    let other = Model::build(form("preact-resnet18-no-last-norm"), 0, Kind::Float, Device::Cpu, None);
    load_student(&other, &tensors).unwrap();
    let logits = |model: &Model| no_grad(|| model.logits(&images(), Mode::Eval));
    let difference = f64::try_from((logits(&model) - logits(&other)).abs().max()).unwrap();
    assert!(difference > 1e-3, "{difference}");
    fs::remove_file(&to).unwrap();
    let made = import(&ImportRequest { id: Some("Wong2020Fast"), ..request(&preact, &to) }).unwrap();
    assert_eq!(made.form.normalize, Some(Normalize::Cifar10));
    let message =
        asked(&ImportRequest { id: Some("Wong2021"), ..request(&preact, &folder.path().join("n.safetensors")) });
    assert!(message.contains("known are Wong2020Fast"), "{message}");
}

#[test]
fn torchvision_names_behind_a_small_stem_are_taken_for_ours() {
    let (model, tensors) = network("resnet18");
    let renamed = |name: &str| {
        let name = name["student/".len()..].replace(".shortcut.", ".downsample.");
        name.strip_prefix("linear.").map_or(name.clone(), |rest| format!("fc.{rest}"))
    };
    let state: Vec<_> = tensors.iter().map(|(name, tensor)| (renamed(name), tensor.shallow_clone())).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("given.pth");
    fs::write(&file, state_dict::torch_save(&state, &[]).unwrap()).unwrap();
    let (header, found, made) = imported(&file);
    assert_eq!(header.form, model.form);
    assert!(same(&found, &tensors) && made.notes.iter().any(|note| note.contains("torchvision")), "{:?}", made.notes);
}

#[test]
fn networks_that_are_not_read_are_named() {
    let tensor = || Tensor::zeros([3], tch::kind::FLOAT_CPU);
    for (name, part) in
        [("layer.0.block.0.se.fc1.weight", "squeeze-and-excitation"), ("meansparse_0.threshold", "MeanSparse")]
    {
        let message = refusal(&state_dict::torch_save(&[(name.into(), tensor())], &[]).unwrap());
        assert!(message.contains(part), "{message}");
    }
}
