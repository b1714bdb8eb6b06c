//! Around a network's names: the prefixes that wrappers leave, and a normalisation beside or before the network.

use std::collections::BTreeMap;

use tch::Kind;

use crate::config::Normalize;
use crate::weights::foreign::tensors::Described;

/// The first and the last layers of the known networks; text before both is a prefix.
const STEMS: [&str; 3] = ["conv1.weight", "init_conv.weight", "conv_2d.weight"];
const CLASSIFIERS: [&str; 3] = ["fc.weight", "linear.weight", "logits.weight"];
/// How projects call the mean and the deviation that they normalise images by.
const NORMALIZATIONS: [(&str, &str); 3] = [("mean", "std"), ("new_mean", "new_std"), ("mu", "sigma")];

/// The tensors of a file by name.
pub type Entries<'a> = BTreeMap<String, Described<'a>>;

/// The prefixes under which a network may lie, the shortest first. Each is empty or ends in a dot.
pub fn prefixes(tensors: &Entries) -> Vec<String> {
    let before = |name: &String| {
        let stem = STEMS.iter().find_map(|stem| name.strip_suffix(stem))?;
        let ends = stem.is_empty() || stem.ends_with('.');
        let whole = CLASSIFIERS.iter().any(|last| tensors.contains_key(&format!("{stem}{last}")));
        (ends && whole).then(|| stem.to_string())
    };
    let mut found: Vec<String> = tensors.keys().filter_map(before).collect();
    found.sort_by_key(|prefix| prefix.len());
    if found.is_empty() { vec![common(tensors)] } else { found }
}

/// The names of wrappers that all names begin with.
fn common(tensors: &Entries) -> String {
    const WRAPPERS: [&str; 5] = ["module.", "model.", "_orig_mod.", "net.", "basic_net."];
    let mut prefix = String::new();
    let extends = |prefix: &str| tensors.keys().all(|name| name.starts_with(prefix));
    while let Some(wrapper) = WRAPPERS.iter().find(|wrapper| extends(&format!("{prefix}{wrapper}"))) {
        prefix += wrapper;
    }
    prefix
}

/// A normalisation found in a file.
#[derive(Debug, Clone)]
pub struct Beside {
    /// The normalisation.
    pub normalize: Normalize,
    /// The names of its mean and deviation in the file.
    pub names: Vec<String>,
}

/// The normalisation that belongs to the network under `prefix`: the one directly in it or in a part of it, else the only
/// one in the file.
///
/// # Errors
/// In words, numbers that normalise nothing; several normalisations.
pub fn normalization(tensors: &Entries, prefix: &str) -> Result<Option<Beside>, String> {
    let mut found: Vec<Beside> = vec![];
    for name in tensors.keys() {
        let (before, last) = name.rsplit_once('.').map_or(("", name.as_str()), |(before, last)| (before, last));
        let Some((_, deviation)) = NORMALIZATIONS.iter().find(|(mean, _)| *mean == last) else { continue };
        let other = if before.is_empty() { deviation.to_string() } else { format!("{before}.{deviation}") };
        let values = |name: &str| tensors.get(name).and_then(channels);
        let Some((mean, deviation)) = values(name).zip(values(&other)) else { continue };
        let normalize = Normalize::by(&mean, &deviation).map_err(|problem| format!("{name}: {problem}"))?;
        let names = vec![name.clone(), other];
        match found.iter_mut().find(|known| known.normalize.equals_in_float32(normalize)) {
            // The shortest names come first: messages show them.
            Some(known) if known.names[0].len() > name.len() => drop(known.names.splice(..0, names)),
            Some(known) => known.names.extend(names),
            None => found.push(Beside { normalize, names }),
        }
    }
    let inside = |beside: &Beside| {
        let within = beside.names[0].strip_prefix(prefix);
        within.is_some_and(|name| name.matches('.').count() <= 1)
    };
    if found.len() > 1 {
        let (own, other): (Vec<_>, Vec<_>) = found.into_iter().partition(inside);
        found = if own.is_empty() { other } else { own };
    }
    if let [one, other, ..] = &found[..] {
        let (one, other) = (&one.names[0], &other.names[0]);
        return Err(format!(
            "several normalisations, {one} and {other} among them; say with --normalize which one holds"
        ));
    }
    Ok(found.pop())
}

/// One or three numbers in the shapes of means and deviations: `[C]`, `[C, 1, 1]`, `[1, C, 1, 1]` or a scalar.
fn channels(tensor: &Described) -> Option<Vec<f64>> {
    let float = matches!(tensor.kind, Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16);
    let long = tensor.shape.iter().filter(|&&size| size != 1).count();
    if !float || long > 1 || ![1, 3].contains(&tensor.count()) {
        return None;
    }
    Vec::try_from(tensor.tensor().to_kind(Kind::Double).reshape([-1])).ok()
}
