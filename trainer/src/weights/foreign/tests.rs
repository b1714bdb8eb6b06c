//! Round trips with PyTorch, and files that are damaged, hostile or of another kind.

mod fuzz;
mod layouts;
mod wrapped;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use proptest::prelude::*;
use tch::{Device, Tensor, no_grad};

use super::*;
use crate::fixtures::pattern;
use crate::model::{Mode, Model, ModelSpec};
use crate::system::files::file_sha256;
use crate::weights::checkpoint::Tensors;
use crate::weights::student::load_student;

/// The networks of tests/fixtures/networks.py, for seven classes.
const NETWORKS: [&str; 4] = ["resnet18", "preact-resnet18", "wrn-10-1", "mobilenet-v2"];

/// A network by its name, with its normalisation behind a plus sign.
fn form(name: &str) -> ModelSpec {
    let (architecture, normalize) = name.split_once('+').map_or((name, None), |(name, other)| (name, Some(other)));
    let normalize = normalize.map(|name| name.parse().unwrap());
    ModelSpec { normalize, ..ModelSpec::new(architecture.parse().unwrap(), [3, 32, 32], 7) }
}

/// A network whose running statistics are not their first ones, and the tensors of its file of weights.
fn network(architecture: &str) -> (Model, Tensors) {
    let model = Model::build(form(architecture), 5, Kind::Float, Device::Cpu, None);
    let images = pattern(16 * 3 * 32 * 32, 3).view([16, 3, 32, 32]).to_kind(Kind::Float);
    for _ in 0..3 {
        let _ = no_grad(|| model.logits(&images, Mode::Train));
    }
    let mut tensors = Tensors::new();
    for named in model.tensors() {
        tensors.insert(format!("student/{}", named.name), named.tensor.copy());
        if let Some(layer) = named.name.strip_suffix("running_var") {
            tensors.insert(format!("student/{layer}num_batches_tracked"), Tensor::from(3i64));
        }
    }
    (model, tensors)
}

fn write(folder: &Path, architecture: &str) -> (PathBuf, Model, Tensors) {
    let (model, tensors) = network(architecture);
    let file = folder.join(format!("{architecture}.safetensors"));
    checkpoint::write(&file, Header::new(model.form, "configuration".into(), 8), &tensors).unwrap();
    (file, model, tensors)
}

fn request<'a>(file: &'a Path, to: &'a Path) -> ImportRequest<'a> {
    ImportRequest {
        file,
        to,
        architecture: None,
        image: Some([3, 32, 32]),
        data: None,
        key: None,
        prefix: None,
        normalize: None,
        id: None,
        classes: None,
    }
}

fn imported(file: &Path) -> (Header, Tensors, Imported) {
    let to = file.with_extension("imported.safetensors");
    let imported = import(&request(file, &to)).unwrap_or_else(|error| panic!("{}: {error:#}", file.display()));
    let (header, tensors) = checkpoint::read(&to).unwrap();
    (header, tensors, imported)
}

fn same(one: &Tensors, other: &Tensors) -> bool {
    one.len() == other.len()
        && one.iter().all(|(name, tensor)| other.get(name).is_some_and(|other| other.equal(tensor)))
}

#[test]
fn pytorch_reads_what_is_exported_and_what_it_saves_is_imported() {
    let folder = tempfile::tempdir().unwrap();
    let mut written = vec![];
    for name in NETWORKS {
        let (file, model, tensors) = write(folder.path(), name);
        export(&file, &folder.path().join(format!("{name}.pth")), None).unwrap();
        export(&file, &folder.path().join(format!("{name}-other.safetensors")), None).unwrap();
        written.push((name, model, tensors));
    }
    in_pytorch(folder.path(), &NETWORKS);
    for (name, model, tensors) in written {
        same_logits(folder.path(), name, &model);
        let images = images();

        // The smallest network comes back in all ways, the others in the plain ones.
        let whole = name == "wrn-10-1";
        let kinds = [
            ("", ""),
            ("-plain", ""),
            ("-whole", "state_dict"),
            ("-legacy", "state_dict"),
            ("-net", "net"),
            ("-strided", ""),
            ("-parameters", ""),
            ("-counterless", ""),
        ];
        for (kind, dictionary) in kinds.into_iter().take(if whole { kinds.len() } else { 2 }) {
            let file = folder.path().join(format!("{name}{kind}.pth"));
            let (header, found, made) = imported(&file);
            let source = header.source.unwrap();
            assert_eq!((header.form, made.parameters), (model.form, model.parameter_count()), "{name}{kind}");
            assert_eq!((source.dictionary.as_str(), source.sha256), (dictionary, file_sha256(&file).unwrap()));
            let mut expected = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
            if kind == "-counterless" {
                Tensors::retain(&mut expected, |name, _| !name.ends_with("num_batches_tracked"));
            }
            assert!(same(&found, &expected), "{name}{kind}");
            let again = Model::build(header.form, 0, Kind::Float, Device::Cpu, None);
            load_student(&again, &found).unwrap();
            assert!(
                no_grad(|| again.logits(&images, Mode::Eval)).equal(&no_grad(|| model.logits(&images, Mode::Eval)))
            );
            let prefixed = made.notes.iter().any(|note| note.contains("`module.`"));
            assert_eq!(prefixed, ["-whole", "-legacy"].contains(&kind), "{name}{kind}: {:?}", made.notes);
        }
        let (_, found, _) = imported(&folder.path().join(format!("{name}-other.safetensors")));
        assert!(same(&found, &tensors), "{name} by safetensors");
        if !whole {
            continue;
        }
        let (_, found, made) = imported(&folder.path().join(format!("{name}-half.pth")));
        assert!(made.notes.iter().any(|note| note.contains("converted Half")), "{:?}", made.notes);
        let halved = tensors.iter().all(|(name, tensor)| {
            let expected =
                if tensor.kind() == Kind::Float { tensor.to_kind(Kind::Half) } else { tensor.shallow_clone() };
            found[name].equal(&expected.to_kind(tensor.kind()))
        });
        assert!(halved, "{name} by half precision");
    }
}

#[test]
fn exporting_twice_gives_equal_bytes_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (file, ..) = write(folder.path(), "wrn-10-1");
    for ending in ["pth", "safetensors"] {
        let [one, other] = ["one", "other"].map(|name| folder.path().join(format!("{name}.{ending}")));
        let made = export(&file, &one, None).unwrap();
        export(&file, &other, None).unwrap();
        let bytes = fs::read(&one).unwrap();
        assert_eq!(bytes, fs::read(&other).unwrap());
        // The reference's WideResNet also has the group that it never runs.
        let opened = Opened::read(&bytes).unwrap();
        let names: Vec<&str> = opened.dictionaries[0].tensors.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.len(), made.tensors);
        assert!(names.contains(&"sub_block1.layer.0.conv2.weight"));
        let error = export(&file, &one, None).unwrap_err().to_string();
        assert!(error.contains("does not exist yet"), "{error}");
    }
    let error = export(&file, &folder.path().join("one.h5"), None).unwrap_err().to_string();
    assert!(error.contains(".pth, .pt or .safetensors"), "{error}");
    let error = export(&folder.path().join("one.pth"), &folder.path().join("three.pth"), None).unwrap_err().to_string();
    assert!(error.contains("weights or a checkpoint of this program"), "{error}");
}

/// Loads the exported networks of these names in PyTorch, which writes their logits and saves them again.
fn in_pytorch(folder: &Path, names: &[&str]) {
    let python = Path::new(env!("LIBTORCH")).join("../../../../bin/python");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/networks.py");
    let ended = Command::new(python).arg(script).arg(folder).args(names).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

fn images() -> Tensor {
    pattern(4 * 3 * 32 * 32, 7).view([4, 3, 32, 32]).to_kind(Kind::Float)
}

/// Compares PyTorch's logits of these images with those of `model`.
fn same_logits(folder: &Path, name: &str, model: &Model) {
    let text = fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
    let theirs: Vec<Vec<f64>> = serde_json::from_str(&text).unwrap();
    let theirs = Tensor::from_slice(&theirs.concat()).view([4, 7]);
    let ours = no_grad(|| model.logits(&images(), Mode::Eval)).to_kind(Kind::Double);
    let difference = f64::try_from((&theirs - ours).abs().max()).unwrap();
    assert!(difference < 1e-5, "{name}: logits differ by {difference}");
    assert!(f64::try_from(theirs.std(false)).unwrap() > 1e-2, "{name}: logits that could hardly differ");
}

fn refusal(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (file, to) = (folder.path().join("given.pth"), folder.path().join("made.safetensors"));
    fs::write(&file, bytes).unwrap();
    let error = import(&request(&file, &to)).expect_err("nothing to import");
    assert!(error.downcast_ref::<UserError>().is_some(), "{error:?}");
    assert!(!to.exists(), "a file was left");
    error.to_string()
}

/// A small file of torch.save, in both formats: one tensor of 2x3 called `conv1.weight`.
fn small() -> [Vec<u8>; 2] {
    let tensor = Tensor::arange(6, tch::kind::FLOAT_CPU).view([2, 3]);
    let archive = state_dict::torch_save(&[("conv1.weight".to_string(), tensor.shallow_clone())], &[]).unwrap();
    let mut legacy = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.".to_vec();
    legacy.extend(b"\x80\x02}(X\x10\0\0\0protocol_versionM\xe9\x03X\x0d\0\0\0little_endian\x88u.");
    let pickle = Archive::read(&archive).unwrap().get("archive/data.pkl").unwrap().to_vec();
    // The old format's identifiers have a sixth part.
    let at = pickle.windows(2).position(|two| two == b"tQ").unwrap();
    legacy.extend([&pickle[..at], b"N", &pickle[at..]].concat());
    legacy.extend(b"\x80\x02]X\x01\0\0\x000a.");
    legacy.extend(6u64.to_le_bytes());
    legacy.extend(checkpoint::bytes_of(&tensor));
    [archive, legacy]
}

#[test]
fn small_files_of_both_formats_are_read() {
    for bytes in small() {
        let opened = Opened::read(&bytes).unwrap();
        let (name, tensor) = &opened.dictionaries[0].tensors[0];
        assert_eq!((name.as_str(), &tensor.shape[..], tensor.kind), ("conv1.weight", &[2, 3][..], Kind::Float));
        assert!(tensor.tensor().equal(&Tensor::arange(6, tch::kind::FLOAT_CPU).view([2, 3])));
        let message = refusal(&bytes);
        assert!(message.contains("tensors of no network that is known: conv1.weight"), "{message}");
    }
}

#[test]
fn every_truncation_is_refused_and_no_changed_byte_panics() {
    for bytes in small() {
        for length in 0..bytes.len() {
            assert!(Opened::read(&bytes[..length]).is_err(), "cut to {length} of {} bytes", bytes.len());
        }
        for place in 0..bytes.len() {
            for flipped in [0x01, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[place] ^= flipped;
                let _ = Opened::read(&changed).map(|opened| opened.dictionaries[0].tensors[0].1.tensor());
            }
        }
    }
}

#[test]
fn what_would_have_to_be_executed_is_refused_by_name() {
    let [archive, legacy] = small();
    let swap = |bytes: &[u8], new: &[u8]| {
        let old = b"ctorch._utils\n_rebuild_tensor_v2\n";
        let at = bytes.windows(old.len()).position(|window| window == old).unwrap();
        [&bytes[..at], new, &bytes[at + old.len()..]].concat()
    };
    for (new, name) in [
        (&b"cos\nsystem\n"[..], "os.system"),
        (b"cbuiltins\neval\n", "builtins.eval"),
        (b"ctorch\nload\n", "torch.load"),
        (b"cmodels.resnet\nResNet\n", "models.resnet.ResNet"),
    ] {
        let message = refusal(&swap(&legacy, new));
        assert!(message.contains(&format!("refused: {name}")) && message.contains("state_dict()"), "{message}");
        let pickle = swap(Archive::read(&archive).unwrap().get("archive/data.pkl").unwrap(), new);
        let bytes = archive::write(&[("archive/data.pkl".into(), pickle), ("archive/version".into(), b"3\n".to_vec())]);
        let message = refusal(&bytes.unwrap());
        assert!(message.contains(&format!("refused: {name}")), "{message}");
    }
}

#[test]
fn other_files_are_named() {
    let [_, legacy] = small();
    let big = {
        let at = legacy.windows(5).position(|window| window == b"n\x88u.\x80").unwrap();
        let mut bytes = legacy.clone();
        bytes[at + 1] = 0x89;
        bytes
    };
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let folder = |name: &str| archive::write(&[(name.into(), b"x".to_vec())]).unwrap();
    for (bytes, part) in [
        (&b""[..], "neither a file of torch.save nor safetensors"),
        (b"hello, world, this is a text", "neither a file of torch.save nor safetensors"),
        (b"\x1f\x8b\x08\0", "compressed with gzip"),
        (b"\n<!DOCTYPE html><html><head>", "an HTML page"),
        (b"<html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (&tar, "the tar format of PyTorch before 0.1.10"),
        (b"\x80\x02}.", "a pickle that torch.save has not made"),
        (&big, "little-endian"),
        (&folder("archive/other"), "without data.pkl"),
        (&folder("archive/constants.pkl"), "TorchScript"),
    ] {
        let message = refusal(bytes);
        assert!(message.contains(part), "{message}\nlacks {part}");
    }
    let message = import(&request(Path::new("nowhere.pth"), Path::new("made.safetensors"))).unwrap_err().to_string();
    assert!(message.contains("nowhere.pth"), "{message}");
}

/// Exports a changed state of WRN-10-1 and returns what its import says.
fn changed(change: impl Fn(&mut Tensors)) -> String {
    let (model, mut tensors) = network("wrn-10-1");
    change(&mut tensors);
    let state: Vec<_> =
        tensors.iter().map(|(name, tensor)| (name["student/".len()..].to_string(), tensor.shallow_clone())).collect();
    drop(model);
    refusal(&state_dict::torch_save(&state, &[]).unwrap())
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let message = changed(|tensors| drop(tensors.remove("student/bn1.weight")));
    assert!(message.contains("missing: bn1.weight") && message.contains("wrn-10-1"), "{message}");
    let message = changed(|tensors| drop(tensors.insert("student/head.weight".into(), Tensor::from(1f32))));
    assert!(message.contains("not of this network: head.weight"), "{message}");
    let message =
        changed(|tensors| drop(tensors.insert("student/bn1.bias".into(), Tensor::zeros([3], tch::kind::FLOAT_CPU))));
    assert!(message.contains("of another shape or type: bn1.bias [3] instead of [64]"), "{message}");
    let message = changed(|tensors| {
        let _ = no_grad(|| tensors["student/bn1.bias"].shallow_clone().fill_(f64::NAN));
    });
    assert!(message.contains("bn1.bias is not finite"), "{message}");
}

/// The reference's pre_train/models/preact_resnet.py: no normalisation, no last batch norm.
#[test]
fn the_other_pre_activation_network_is_refused_by_its_own_name() {
    let (_, tensors) = network("preact-resnet18");
    let lacks = |name: &str| name.starts_with("normalize.") || name.starts_with("bn.");
    let state = tensors.iter().map(|(name, tensor)| (name["student/".len()..].to_string(), tensor.shallow_clone()));
    let state: Vec<_> = state.filter(|(name, _)| !lacks(name)).collect();
    let message = refusal(&state_dict::torch_save(&state, &[]).unwrap());
    assert!(message.contains("pre_train/models/preact_resnet.py"), "{message}");
}

#[test]
fn a_key_chooses_among_several_dictionaries() {
    let folder = tempfile::tempdir().unwrap();
    let (file, to) = (folder.path().join("two.safetensors"), folder.path().join("made.safetensors"));
    let (ours, ..) = write(folder.path(), "wrn-10-1");
    let message = import(&request(&ours, &to)).unwrap_err().to_string();
    assert!(message.contains("weights of this program already"), "{message}");
    fs::write(&file, b"").unwrap();
    let (plain, _) = (folder.path().join("plain.pth"), export(&ours, &folder.path().join("plain.pth"), None).unwrap());
    let message = import(&ImportRequest { key: Some("swa"), ..request(&plain, &to) }).unwrap_err().to_string();
    assert!(message.contains("--key is \"swa\"") && message.contains("the outermost dictionary"), "{message}");
    let message = import(&ImportRequest { image: Some([1, 32, 32]), ..request(&plain, &to) }).unwrap_err().to_string();
    assert!(message.contains("--image is 1x32x32") && message.contains("3 channels"), "{message}");
    let message =
        import(&ImportRequest { architecture: Some("resnet18".parse().unwrap()), ..request(&plain, &to) }).unwrap_err();
    assert!(message.to_string().contains("no linear.weight"), "{message}");
    let made = import(&ImportRequest { image: None, ..request(&plain, &to) }).unwrap();
    assert!(made.notes.iter().any(|note| note.contains("assumed images of 3x32x32")), "{:?}", made.notes);
    let command = import_command(&plain, [3, 64, 64]).unwrap();
    assert!(command.contains("weights import") && command.ends_with("--image 3x64x64"), "{command}");
    assert_eq!(import_command(&ours, [3, 64, 64]), None);
    let described = describe(&plain).unwrap().to_string();
    assert!(
        described.contains("an archive of torch.save") && described.contains("wrn-10-1 of 7 classes"),
        "{described}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn mutations_of_files_never_panic(which in 0usize..2, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>(), cuts: bool) {
        let mut bytes = small()[which].clone();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(opened) = Opened::read(&bytes) {
            for (_, tensor) in opened.dictionaries.iter().flat_map(|dictionary| &dictionary.tensors) {
                prop_assert!(tensor.size() <= 4 * bytes.len());
            }
        }
    }
}
