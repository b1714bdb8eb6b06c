//! The outputs of finished weights and the classes of images, matched by name.

use std::collections::HashMap;

use datasets::UserError;
use tch::Tensor;

use crate::config::ClassMatching;
use crate::model::{ModelSpec, outline};
use crate::weights::checkpoint::Tensors;

/// How many names a message lists.
const SHOWN: usize = 5;

/// The classes that a network tells apart.
#[derive(Debug, Clone, Copy)]
pub struct NetworkClasses<'a> {
    /// The number of its outputs.
    pub outputs: usize,
    /// The names of its first outputs; empty where its file does not name them.
    pub names: &'a [String],
}

/// How the outputs of a network serve the classes of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClassMatch {
    /// Output i is class i, and the names say so.
    Same,
    /// For each class the output of its name, and a sentence about it.
    Selected(Vec<usize>, String),
    /// Output i is taken for class i, with a warning.
    Assumed(String),
}

impl ClassMatch {
    /// For each class the output that stands for it, unless they are in order.
    pub fn outputs(&self) -> Option<&[usize]> {
        match self {
            Self::Selected(outputs, _) => Some(outputs),
            Self::Same | Self::Assumed(_) => None,
        }
    }

    /// What the user should know of it.
    pub fn note(&self) -> Option<&str> {
        match self {
            Self::Same => None,
            Self::Selected(_, note) | Self::Assumed(note) => Some(note),
        }
    }
}

/// Matches a network's outputs with the `classes` of images.
///
/// # Errors
/// A [`UserError`] without file and key: fewer outputs than classes, or classes that none of the network's names matches.
pub fn match_classes(
    network: NetworkClasses,
    classes: &[String],
    matching: ClassMatching,
) -> Result<ClassMatch, UserError> {
    let NetworkClasses { outputs, names } = network;
    let by_name = matching == ClassMatching::Name && is_named(names) && is_named(classes);
    if names == classes {
        return Ok(ClassMatch::Same);
    }
    if !by_name {
        return if outputs < classes.len() {
            Err(too_few(outputs, classes))
        } else {
            Ok(by_order(network, classes, matching))
        };
    }
    let places: HashMap<&str, usize> = names.iter().enumerate().map(|(place, name)| (name.as_str(), place)).collect();
    let found: Vec<Option<usize>> = classes.iter().map(|name| places.get(name.as_str()).copied()).collect();
    let unknown: Vec<&String> =
        classes.iter().zip(&found).filter(|(_, place)| place.is_none()).map(|(name, _)| name).collect();
    if !unknown.is_empty() {
        let expected = format!("classes that the network has: {}", listed(names.iter()));
        return Err(UserError::expected(expected).value(format!(
            "{} of {} classes unknown to it: {}",
            unknown.len(),
            classes.len(),
            listed(unknown)
        )));
    }
    let order: Vec<usize> = found.into_iter().flatten().collect();
    let note = if order.len() < outputs {
        let rest = outputs - order.len();
        format!("takes the outputs of {} by name, and leaves {rest} other(s) of {outputs} out", listed(classes.iter()))
    } else {
        format!("reorders the {outputs} outputs by the names of the classes: {}", listed(classes.iter()))
    };
    Ok(ClassMatch::Selected(order, note))
}

/// Whether these are names, and not the numbers of nameless classes.
pub(crate) fn is_named(names: &[String]) -> bool {
    names.iter().enumerate().any(|(place, name)| *name != place.to_string())
}

fn too_few(outputs: usize, classes: &[String]) -> UserError {
    UserError::expected(format!("at most {outputs} classes, as the network has outputs"))
        .value(format!("{} classes", classes.len()))
}

fn by_order(
    NetworkClasses { outputs, names }: NetworkClasses,
    classes: &[String],
    matching: ClassMatching,
) -> ClassMatch {
    let surplus = outputs - classes.len();
    let more = if surplus > 0 {
        format!("; its {surplus} other output(s) of {outputs} are wrong answers wherever one is the largest")
    } else {
        String::new()
    };
    if matching == ClassMatching::Order {
        return ClassMatch::Assumed(format!("takes the outputs for the classes in their order, as requested{more}"));
    }
    let nameless =
        if is_named(names) { "the images do not name their classes" } else { "the weights do not name their classes" };
    ClassMatch::Assumed(format!("{nameless}: output i is taken for class i{more}"))
}

/// The first names, and how many more there are.
fn listed<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    let shown = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

/// The name of a network's last layer, its classifier, without `.weight`.
pub fn classifier_layer(spec: ModelSpec) -> String {
    let linear = outline(spec).into_iter().rev().find(|(_, shape)| shape.len() == 2);
    linear.map(|(name, _)| name.trim_end_matches(".weight").to_string()).unwrap_or_default()
}

/// Keeps the given outputs of the student among `tensors`, in that order.
pub fn select_outputs(spec: &mut ModelSpec, tensors: &mut Tensors, outputs: &[usize]) {
    let rows: Vec<i64> = outputs.iter().map(|&output| output as i64).collect();
    let layer = classifier_layer(*spec);
    for name in ["weight", "bias"] {
        if let Some(tensor) = tensors.get_mut(&format!("student/{layer}.{name}")) {
            *tensor = tensor.index_select(0, &Tensor::from_slice(&rows));
        }
    }
    spec.classes = outputs.len();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tch::{Device, Kind};

    use super::*;
    use crate::fixtures::pattern;
    use crate::model::{Mode, Model};
    use crate::weights::student::{load_student, student_tensors};

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_string).collect()
    }

    fn matched(network: &str, classes: &str) -> Result<ClassMatch, String> {
        let (network, classes) = (names(network), names(classes));
        let network = NetworkClasses { outputs: network.len(), names: &network };
        match_classes(network, &classes, ClassMatching::Name).map_err(|error| error.to_string())
    }

    #[test]
    fn names_decide_where_both_sides_have_them() {
        assert_eq!(matched("ant bee cow", "ant bee cow"), Ok(ClassMatch::Same));
        let reordered = matched("ant bee cow", "cow ant bee").unwrap();
        assert_eq!(reordered.outputs(), Some(&[2, 0, 1][..]));
        assert!(reordered.note().unwrap().contains("reorders the 3 outputs"), "{reordered:?}");
        let restricted = matched("ant bee cow", "ant cow").unwrap();
        assert_eq!(restricted.outputs(), Some(&[0, 2][..]));
        assert!(restricted.note().unwrap().contains("leaves 1 other(s) of 3 out"), "{restricted:?}");
        let refused = matched("ant bee cow", "ant dog cow elk").unwrap_err();
        assert!(refused.contains("2 of 4 classes unknown to it: dog, elk"), "{refused}");
        assert!(refused.contains("ant, bee, cow"), "{refused}");
    }

    #[test]
    fn numbers_are_no_names() {
        let warned = |network: &str, classes: &str, part: &str| {
            let found = matched(network, classes).unwrap();
            assert!(found.outputs().is_none() && found.note().is_some_and(|note| note.contains(part)), "{found:?}");
        };
        warned("ant bee cow", "0 1 2", "the images do not name");
        warned("0 1 2", "ant bee cow", "the weights do not name");
        warned("0 1 2 3", "ant bee cow", "1 other output(s) of 4 are wrong answers");
        assert_eq!(matched("0 1 2", "0 1 2"), Ok(ClassMatch::Same));
        assert!(matched("0 1", "ant bee cow").unwrap_err().contains("3 classes; expected at most 2"));
        // The order of the digits can be told.
        assert_eq!(matched("3 1 2 0", "0 1 2 3").unwrap().outputs(), None);
    }

    #[test]
    fn nameless_weights_and_requests_go_by_order() {
        let classes = names("ant bee cow");
        let nameless = NetworkClasses { outputs: 100, names: &[] };
        let found = match_classes(nameless, &classes, ClassMatching::Name).unwrap();
        assert!(found.note().unwrap().contains("97 other output(s) of 100"), "{found:?}");
        let others = names("kuh biene ameise");
        let other = NetworkClasses { outputs: 3, names: &others };
        assert!(match_classes(other, &classes, ClassMatching::Name).is_err());
        let found = match_classes(other, &classes, ClassMatching::Order).unwrap();
        assert!(found.note().unwrap().contains("as requested"), "{found:?}");
        // A student may have more outputs than its data have classes.
        let wider = NetworkClasses { outputs: 5, names: &classes };
        assert_eq!(match_classes(wider, &classes, ClassMatching::Name).unwrap(), ClassMatch::Same);
    }

    proptest! {
        #[test]
        fn every_class_gets_the_output_of_its_name(order in Just((0..7usize).collect::<Vec<_>>()).prop_shuffle(), count in 1usize..8) {
            let all: Vec<String> = (0..7).map(|class| format!("class {class}")).collect();
            let classes: Vec<String> = order[..count].iter().map(|&place| all[place].clone()).collect();
            let found = match_classes(NetworkClasses { outputs: 7, names: &all }, &classes, ClassMatching::Name).unwrap();
            let expected: Vec<usize> = order[..count].to_vec();
            prop_assert_eq!(found.outputs().map_or((0..7).collect(), <[usize]>::to_vec), expected);
        }
    }

    #[test]
    fn selected_outputs_are_those_logits() {
        for name in ["convnet", "wrn-10-1", "dm-preact-resnet18", "mobilenet-v2", "torchvision-resnet18"] {
            let mut spec = ModelSpec::new(name.parse().unwrap(), [3, 32, 32], 7);
            let model = Model::build(spec, 3, Kind::Float, Device::Cpu, None);
            let images = pattern(2 * 3 * 32 * 32, 1).view([2, 3, 32, 32]).to_kind(Kind::Float);
            let mut tensors = student_tensors(&model);
            select_outputs(&mut spec, &mut tensors, &[6, 0, 3]);
            let selected = Model::build(spec, 0, Kind::Float, Device::Cpu, None);
            load_student(&selected, &tensors).unwrap();
            let expected = model.logits(&images, Mode::Eval).index_select(1, &Tensor::from_slice(&[6i64, 0, 3]));
            assert!(selected.logits(&images, Mode::Eval).allclose(&expected, 1e-5, 1e-6, false), "{name}");
        }
    }
}
