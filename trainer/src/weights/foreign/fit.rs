//! Whether a dictionary of tensors is a network to the last name and shape.

use tch::Kind;

use crate::config::{Architecture, Normalize};
use crate::model::{ModelSpec, outline};
use crate::weights::foreign::dictionary::Dictionary;
use crate::weights::foreign::prefixes::{Beside, Entries, normalization, prefixes};
use crate::weights::foreign::published::{Published, published};
use crate::weights::foreign::recognise::{ends, hides_normalization, recognise, shortened};
use crate::weights::foreign::tensors::Described;

/// What the user knows of a network beside its tensors.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// The architecture, instead of the one recognised by its tensors.
    pub architecture: Option<Architecture>,
    /// The prefix of its names.
    pub prefix: Option<&'a str>,
    /// The normalisation of its images.
    pub normalize: Option<Normalize>,
    /// Its id in RobustBench's model zoo.
    pub id: Option<&'a str>,
}

/// The weights of a network, found in a dictionary.
pub struct Fitted<'a> {
    /// The network.
    pub form: ModelSpec,
    /// The channels of images that its first convolution takes.
    pub channels: usize,
    /// Its tensors under our names, without pass counters and normalisation.
    pub tensors: Vec<(String, Described<'a>)>,
    /// The pass counters of batch norms, where the file has them.
    pub counters: Vec<(String, Described<'a>)>,
    /// Mean and deviation of each channel, where it normalises its images.
    pub normalization: Option<(Vec<f64>, Vec<f64>)>,
    /// The prefix that was taken off its names.
    pub prefix: String,
    /// The published network that it is, if an id says so.
    pub published: Option<Published>,
    /// Notes on what was found, assumed or left out.
    pub notes: Vec<String>,
}

impl Fitted<'_> {
    /// The number of trainable values.
    pub fn parameters(&self) -> usize {
        self.tensors.iter().filter(|(name, _)| !name.contains(".running_")).map(|(_, tensor)| tensor.count()).sum()
    }

    fn same_values(&self, other: &Self) -> bool {
        let pairs = self.tensors.iter().zip(&other.tensors);
        self.form == other.form
            && pairs.clone().all(|((name, one), (other_name, other))| {
                name == other_name && one.kind == other.kind && one.tensor().equal(&other.tensor())
            })
    }
}

/// The types that weights may have; all become float32.
const FLOATS: [Kind; 4] = [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16];

/// Finds the network of a dictionary and takes its tensors. `image` gives the shape of images for a number of channels and
/// classes.
///
/// # Errors
/// In words: why it fits no network, or not the requested one, and which ones it may be.
pub fn fit<'a>(
    dictionary: &Dictionary<'a>,
    wanted: &Wanted,
    image: impl Fn(usize, usize) -> [usize; 3],
) -> Result<Fitted<'a>, String> {
    let all: Entries = dictionary.tensors.iter().cloned().collect();
    let found = match wanted.prefix {
        None => prefixes(&all),
        Some(prefix) => {
            let prefix = if prefix.is_empty() { String::new() } else { format!("{}.", prefix.trim_end_matches('.')) };
            if !all.keys().any(|name| name.starts_with(&prefix)) {
                let known: Vec<String> = prefixes(&all).iter().map(|prefix| format!("`{prefix}`")).collect();
                return Err(format!("no name begins with `{prefix}`; networks may stand under {}", known.join(", ")));
            }
            vec![prefix]
        }
    };
    let (mut fits, mut problems): (Vec<Fitted>, Vec<String>) = (vec![], vec![]);
    for prefix in found {
        match fit_under(&all, prefix, wanted, &image) {
            // A wrapper may hold the same network twice.
            Ok(fitted) if fits.iter().any(|known| known.same_values(&fitted)) => {}
            Ok(fitted) => fits.push(fitted),
            Err(problem) => problems.push(problem),
        }
    }
    if fits.len() > 1 {
        let each = fits.iter().map(|fitted| format!("`{}` ({})", fitted.prefix, fitted.form.architecture));
        let each: Vec<String> = each.collect();
        return Err(format!("several networks, under {}; choose one with --prefix", each.join(", ")));
    }
    let Some(mut fitted) = fits.pop() else {
        return Err(problems.into_iter().next().unwrap_or_else(|| "no tensors".into()));
    };
    if !dictionary.others.is_empty() {
        fitted.notes.push(format!("left out what is no tensor: {}", shortened(&dictionary.others)));
    }
    Ok(fitted)
}

/// The network whose names begin with `prefix`.
fn fit_under<'a>(
    all: &Entries<'a>,
    prefix: String,
    wanted: &Wanted,
    image: impl Fn(usize, usize) -> [usize; 3],
) -> Result<Fitted<'a>, String> {
    let beside = match wanted.normalize {
        // Which of several holds is said.
        Some(_) => normalization(all, &prefix).unwrap_or(None),
        None => normalization(all, &prefix)?,
    };
    let normalizes = |name: &String| beside.as_ref().is_some_and(|beside| beside.names.contains(name));
    let outside: Vec<String> =
        all.keys().filter(|name| !name.starts_with(&prefix) && !normalizes(name)).cloned().collect();
    let inside = all.iter().filter(|(name, _)| name.starts_with(&prefix) && !normalizes(name));
    let mut tensors: Entries =
        inside.map(|(name, tensor)| (name[prefix.len()..].to_string(), tensor.clone())).collect();
    let mut notes = vec![];
    if !prefix.is_empty() {
        notes.push(format!("took `{prefix}` off all names"));
    }
    if !outside.is_empty() {
        let count = if outside.len() == 1 { "1 tensor" } else { &format!("{} tensors", outside.len()) };
        notes.push(format!("left out {count} beside it: {}", shortened(&outside)));
    }
    let before = tensors.len();
    tensors.retain(|name, _| !name.starts_with("sub_block1."));
    if tensors.len() < before {
        notes.push(format!("left out the {} tensors of sub_block1, which computes nothing", before - tensors.len()));
    }
    tensors = cifar_names(tensors, &mut notes);

    let size = |name: &str, place: usize| {
        let size = tensors.get(name).and_then(|tensor| tensor.shape.get(place)).filter(|&&size| size > 0);
        size.map(|&size| size as usize)
    };
    let classes = ["logits.weight", "fc.weight", "linear.weight"].iter().find_map(|name| size(name, 0));
    let published = wanted.id.map(|id| published(id, classes.unwrap_or(10))).transpose()?;
    let architecture = match wanted.architecture.or(published.map(|published| published.architecture)) {
        Some(architecture) => architecture,
        None => {
            let (architecture, assumed) = recognise(&tensors)?;
            notes.extend(assumed.filter(|_| beside.as_ref().is_none_or(|beside| !is_reference(beside))));
            architecture
        }
    };
    let (stem, classifier) = ends(architecture);
    let measured = |name: &str, place: usize| {
        size(name, place).ok_or_else(|| format!("no {name}, by which {architecture} is measured"))
    };
    let (classes, channels) = (measured(classifier, 0)?, measured(stem, 1)?);
    let normalize = settle(architecture, wanted, published, beside.as_ref(), channels, &mut notes)?;
    // By the channels of the file: whether they are those of the images is another question.
    let [_, height, width] = image(channels, classes);
    let form = ModelSpec { normalize, ..ModelSpec::new(architecture, [channels, height, width], classes) };
    // The network that only begins with its usual numbers has those of the file.
    let normalization = match &beside {
        Some(beside) => beside.normalize.of_channels(channels),
        None => form.normalization(),
    };
    let (tensors, counters) = take(&form, tensors)?;
    let form = ModelSpec { image: image(channels, classes), ..form };
    Ok(Fitted { form, channels, tensors, counters, normalization, prefix, published, notes })
}

/// Whether the normalisation has the names that the reference's preact-resnet18 gives it.
fn is_reference(beside: &Beside) -> bool {
    beside.names.iter().any(|name| name.ends_with("normalize.mean"))
}

/// The normalisation of the images: that of the file, else that of the user, else the published one.
fn settle(
    architecture: Architecture,
    wanted: &Wanted,
    published: Option<Published>,
    beside: Option<&Beside>,
    channels: usize,
    notes: &mut Vec<String>,
) -> Result<Option<Normalize>, String> {
    let own = architecture.usual_normalize() != Normalize::None;
    if let Some(beside) = beside {
        let (names, found) = (&beside.names[..2], beside.normalize);
        if let Some(stated) = wanted.normalize.filter(|stated| !stated.equals_in_float32(found)) {
            return Err(format!(
                "{} say that it normalises by {found}, --normalize says {stated}; leave --normalize out",
                names.join(" and ")
            ));
        }
        notes.push(format!("normalises its images by {found}, as {} say", names.join(" and ")));
        return Ok(Some(found).filter(|_| !own));
    }
    let stated = wanted.normalize.or(published.map(|published| published.normalize));
    if let Some(stated) = stated {
        return Ok(Some(stated).filter(|stated| own || *stated != Normalize::None));
    }
    if hides_normalization(architecture) {
        return Err(format!(
            "whether {architecture} normalises its images is not in the file: give --normalize cifar10 or cifar100 (as all \
             of RobustBench's networks of this kind do), --normalize none, or --id and its name in RobustBench"
        ));
    }
    if channels == 3 {
        notes.push(
            "no normalisation is in the file: images in [0, 1] go in as they are. If it was trained behind (x - mean) / std, \
             import it with --normalize"
                .into(),
        );
    }
    Ok(own.then_some(Normalize::None))
}

/// Tensors under torchvision's names behind a CIFAR stem, under our names for them.
fn cifar_names<'a>(tensors: Entries<'a>, notes: &mut Vec<String>) -> Entries<'a> {
    let small = tensors.get("conv1.weight").and_then(|stem| stem.shape.get(2)) == Some(&3);
    if !small || !tensors.contains_key("fc.weight") || !tensors.contains_key("layer1.0.conv1.weight") {
        return tensors;
    }
    notes.push(
        "took torchvision's `fc` for `linear` and `downsample` for `shortcut`, behind a first convolution of 3x3"
            .into(),
    );
    let renamed = |name: String| match name.strip_prefix("fc.") {
        Some(rest) => format!("linear.{rest}"),
        None => name.replace(".downsample.", ".shortcut."),
    };
    tensors.into_iter().map(|(name, tensor)| (renamed(name), tensor)).collect()
}

/// Tensors by their names.
type Listed<'a> = Vec<(String, Described<'a>)>;

/// The network's own tensors and its pass counters.
fn take<'a>(form: &ModelSpec, mut tensors: Entries<'a>) -> Result<(Listed<'a>, Listed<'a>), String> {
    let (mut fitted, mut missing, mut misshapen) = (vec![], vec![], vec![]);
    let mut counters = vec![];
    let expected = outline(*form).into_iter().filter(|(name, _)| !name.starts_with("normalize."));
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
        return Ok((fitted, counters));
    }
    Err(format!("other tensors than those of {form}; {}", problems.join("; ")))
}
