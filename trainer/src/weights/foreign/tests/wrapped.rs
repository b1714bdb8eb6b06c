//! One network under the prefixes that wrappers leave, and behind normalisations under the names of several projects.

use super::*;
use crate::config::Normalize;

/// WRN-10-1 as PyTorch's wrappers save it.
fn wrapped() -> (tempfile::TempDir, Model, Tensors) {
    let folder = tempfile::tempdir().unwrap();
    let (file, model, tensors) = write(folder.path(), "wrn-10-1");
    export(&file, &folder.path().join("wrn-10-1.pth"), None).unwrap();
    in_pytorch(folder.path(), &["wrn-10-1"]);
    (folder, model, tensors)
}

#[test]
fn prefixes_of_wrappers_are_taken_off() {
    let (folder, model, tensors) = wrapped();
    for (name, prefix, beside) in [
        ("compiled", "_orig_mod.", None),
        ("twice", "module.module.", None),
        ("averaged", "module.", Some("n_averaged")),
        ("lightning", "model.", None),
        ("ema", "module.0.", None),
        ("basic", "basic_net.", None),
        ("normal-beside", "module.model.", Some("module.attacker.model.")),
        ("normal-sequential", "1.", None),
        ("normal-buffers", "", None),
    ] {
        let (header, mut found, made) = imported(&folder.path().join(format!("{name}.wrapped.pth")));
        let normal = name.starts_with("normal").then_some(Normalize::Cifar10);
        assert_eq!(header.form, ModelSpec { normalize: normal, ..model.form }, "{name}");
        let notes = made.notes.join("\n");
        assert_eq!(notes.contains(&format!("took `{prefix}` off")), !prefix.is_empty(), "{name}: {notes}");
        assert_eq!(notes.contains("beside it: "), beside.is_some(), "{name}: {notes}");
        assert!(notes.contains(beside.unwrap_or("")), "{name}: {notes}");
        if normal.is_some() {
            let images = images();
            let network = Model::build(header.form, 0, Kind::Float, Device::Cpu, None);
            load_student(&network, &found).unwrap();
            let by = |values: [f32; 3]| Tensor::from_slice(&values).view([1, 3, 1, 1]);
            let normalised = (&images - by([0.4914, 0.4822, 0.4465])) / by([0.2471, 0.2435, 0.2616]);
            let [inner, whole] = [(&model, &normalised), (&network, &images)]
                .map(|(network, images)| no_grad(|| network.logits(images, Mode::Eval)));
            assert!(inner.allclose(&whole, 1e-6, 1e-6, false), "{name}");
            assert!(
                found.remove("student/normalize.mean").is_some() && found.remove("student/normalize.std").is_some()
            );
        }
        assert!(same(&found, &tensors), "{name}");
    }
}

#[test]
fn two_networks_ask_for_a_prefix() {
    let (folder, _, tensors) = wrapped();
    let (file, to) = (folder.path().join("pair.wrapped.pth"), folder.path().join("new/folder/made.safetensors"));
    let asked = |prefix| import(&ImportRequest { prefix, ..request(&file, &to) });
    let message = asked(None).unwrap_err().to_string();
    assert!(
        message.contains("`student.` (wrn-10-1), `teacher.` (wrn-10-1)") && message.contains("--prefix"),
        "{message}"
    );
    let message = asked(Some("pupil")).unwrap_err().to_string();
    assert!(message.contains("no name begins with `pupil.`") && message.contains("`teacher.`"), "{message}");
    asked(Some("student")).unwrap();
    // The folder of the new file is made.
    assert!(same(&checkpoint::read(&to).unwrap().1, &tensors));
}

#[test]
fn a_normalisation_that_the_user_states_must_agree_with_the_file() {
    let (folder, ..) = wrapped();
    let to = folder.path().join("made.safetensors");
    let file = folder.path().join("normal-beside.wrapped.pth");
    let stated = |file, normalize| import(&ImportRequest { normalize: Some(normalize), ..request(file, &to) });
    let message = stated(&file, Normalize::Imagenet).unwrap_err().to_string();
    assert!(
        message.contains("module.normalizer.new_mean") && message.contains("--normalize says imagenet"),
        "{message}"
    );
    stated(&file, Normalize::Cifar10).unwrap();
    fs::remove_file(&to).unwrap();

    // Where the file is silent, the user is told of it.
    let plain = folder.path().join("compiled.wrapped.pth");
    let (_, _, made) = imported(&plain);
    assert!(made.notes.iter().any(|note| note.contains("no normalisation is in the file")), "{:?}", made.notes);
    let made = stated(&plain, Normalize::Imagenet).unwrap();
    assert_eq!(made.form.normalize, Some(Normalize::Imagenet));
    let (_, tensors) = checkpoint::read(&to).unwrap();
    assert!(tensors["student/normalize.std"].equal(&Tensor::from_slice(&[0.229f32, 0.224, 0.225])));
}

#[test]
fn the_accuracy_that_a_file_claims_is_known() {
    let (folder, ..) = wrapped();
    let bytes = fs::read(folder.path().join("claiming.wrapped.pth")).unwrap();
    let claims = Opened::read(&bytes).unwrap().claims;
    assert_eq!(claims, [Claim { by: "test_acc".into(), percent: 91.5 }]);
}
