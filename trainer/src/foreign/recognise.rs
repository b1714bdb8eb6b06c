//! Which network a dictionary of tensors belongs to, and whether it fits to the last name and shape.

use std::collections::BTreeMap;

use tch::Kind;

use super::dictionary::Dictionary;
use super::tensors::Described;
use crate::model::{Architecture, Form, outline};

/// The weights of a network, found in a dictionary.
pub struct Fitted<'a> {
    /// The network.
    pub form: Form,
    /// The channels of images that its first convolution takes.
    pub channels: usize,
    /// Its tensors under our names, without pass counters.
    pub tensors: Vec<(String, Described<'a>)>,
    /// The pass counters of batch norms, where the file has them.
    pub counters: Vec<(String, Described<'a>)>,
    /// Whether `module.` stood before all names.
    pub prefixed: bool,
    /// How many tensors of `sub_block1` were left out.
    pub unused: usize,
}

impl Fitted<'_> {
    /// The number of trainable values.
    pub fn parameters(&self) -> usize {
        let fixed = |name: &str| name.contains(".running_") || name.starts_with("normalize.");
        self.tensors.iter().filter(|(name, _)| !fixed(name)).map(|(_, tensor)| tensor.count()).sum()
    }
}

/// The types that weights may have; all become float32.
const FLOATS: [Kind; 4] = [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16];
/// How many names a message shows of each sort.
const SHOWN: usize = 5;

/// The tensors of a dictionary without the prefix of `DataParallel`, and whether it was there.
fn names_of<'a>(dictionary: &Dictionary<'a>) -> (BTreeMap<String, Described<'a>>, bool) {
    let prefixed = dictionary.tensors.iter().all(|(name, _)| name.starts_with("module."));
    let plain = |name: &str| if prefixed { name["module.".len()..].to_string() } else { name.to_string() };
    (dictionary.tensors.iter().map(|(name, tensor)| (plain(name), tensor.clone())).collect(), prefixed)
}

/// The network that tensors of these names belong to.
///
/// # Errors
/// In words, what the names lack.
fn architecture(tensors: &BTreeMap<String, Described>) -> Result<Architecture, String> {
    let has = |name: &str| tensors.contains_key(name);
    let shape = |name: &str| tensors.get(name).map(|tensor| tensor.shape.as_slice());
    if has("block1.layer.0.conv1.weight") {
        let blocks = (0..).take_while(|block| has(&format!("block1.layer.{block}.conv1.weight"))).count();
        let channels = shape("block1.layer.0.conv1.weight").and_then(|shape| shape.first()).copied().unwrap_or(0);
        return format!("wrn-{}-{}", 6 * blocks + 4, channels / 16).parse();
    }
    if has("layers.0.conv3.weight") {
        return Ok(Architecture::MobileNetV2);
    }
    if has("layer1.0.conv1.weight") {
        return Ok(if has("normalize.mean") || has("bn.weight") {
            Architecture::PreActResNet18
        } else if has("layer4.0.conv1.weight") {
            Architecture::ResNet18
        } else {
            Architecture::ResNet8
        });
    }
    if has("conv4.weight") && has("linear.weight") {
        return Ok(Architecture::ConvNet);
    }
    let first: Vec<&str> = tensors.keys().take(SHOWN).map(String::as_str).collect();
    Err(format!("tensors of no network that is known: {}, ...", first.join(", ")))
}

const WITHOUT_FINAL_BATCH_NORM: &str = "a PreActResNet that neither normalises its images nor has a batch norm before its \
                                        classifier (the reference's pre_train/models/preact_resnet.py): its weights fit no \
                                        network of this program, preact-resnet18 included";

/// Whether it is a network whose names differ from preact-resnet18's by nothing but what it lacks.
fn is_without_final_batch_norm(tensors: &BTreeMap<String, Described>) -> bool {
    let lacks = |names: &[&str]| !names.iter().any(|name| tensors.contains_key(*name));
    // Where shapes change, a pre-activation block normalises what comes in, 64 channels; a basic one what it has made.
    let first = tensors.get("layer2.0.bn1.weight").map(|tensor| tensor.shape.as_slice());
    lacks(&["normalize.mean", "bn.weight", "bn1.weight"]) && first == Some(&[64])
}

/// Finds the network of a dictionary and takes its tensors. `image` gives the shape of images for a number of channels and
/// classes.
///
/// # Errors
/// In words, why it fits none, or not the one that was asked for.
pub fn fit<'a>(
    dictionary: &Dictionary<'a>,
    wanted: Option<Architecture>,
    image: impl Fn(usize, usize) -> [usize; 3],
) -> Result<Fitted<'a>, String> {
    if let Some(other) = dictionary.others.first() {
        return Err(format!("an entry that is no tensor: {other}"));
    }
    let (mut tensors, prefixed) = names_of(dictionary);
    let before = tensors.len();
    tensors.retain(|name, _| !name.starts_with("sub_block1."));
    let unused = before - tensors.len();
    if is_without_final_batch_norm(&tensors) {
        return Err(WITHOUT_FINAL_BATCH_NORM.into());
    }
    let architecture = wanted.map_or_else(|| architecture(&tensors), Ok)?;
    let classifier =
        if matches!(architecture, Architecture::WideResNet { .. }) { "fc.weight" } else { "linear.weight" };
    let size = |name: &str, place: usize| {
        let size = tensors.get(name).and_then(|tensor| tensor.shape.get(place)).filter(|&&size| size > 0);
        size.map(|&size| size as usize).ok_or_else(|| format!("no {name}, by which {architecture} is measured"))
    };
    let (classes, channels) = (size(classifier, 0)?, size("conv1.weight", 1)?);
    let form = Form { architecture, image: image(channels, classes), classes };
    // By the channels of the file: whether they are those of the images is another question.
    let expected = outline(Form { image: [channels, form.image[1], form.image[2]], ..form });

    let (mut fitted, mut missing, mut misshapen) = (vec![], vec![], vec![]);
    let mut counters = vec![];
    for (name, shape) in expected {
        if let Some(layer) = name.strip_suffix("running_mean") {
            let counter = format!("{layer}num_batches_tracked");
            counters.extend(tensors.remove(&counter).map(|tensor| (counter, tensor)));
        }
        match tensors.remove(&name) {
            None => missing.push(name),
            Some(tensor) if tensor.shape != shape => {
                misshapen.push(format!("{name} {:?} instead of {shape:?}", tensor.shape));
            }
            Some(tensor) if !FLOATS.contains(&tensor.kind) => {
                misshapen.push(format!("{name} of type {:?} instead of float32", tensor.kind));
            }
            Some(tensor) => fitted.push((name, tensor)),
        }
    }
    let extra: Vec<String> = tensors.into_keys().collect();
    let problems: Vec<String> =
        [("missing", missing), ("not of this network", extra), ("of another shape or type", misshapen)]
            .iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what}: {}", shortened(names)))
            .collect();
    if problems.is_empty() {
        return Ok(Fitted { form, channels, tensors: fitted, counters, prefixed, unused });
    }
    Err(format!("other tensors than those of {form}; {}", problems.join("; ")))
}

fn shortened(names: &[String]) -> String {
    let shown = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}
