//! The images of `data.extra`, opened, with the classes of the training set.

use std::sync::Arc;

use anyhow::Result;
use datasets::{Container, Extra, Source, Subset, UserError, per_class};

use crate::config::{ClassMatching, ExtraData};
use crate::weights::classes::is_named;

/// The classes of a run.
#[derive(Clone, Copy)]
pub(super) struct RunClasses<'a> {
    /// Those of the container of `data.train`.
    pub(super) all: &'a [String],
    /// Those that `data.subset` leaves, in the order of the run's labels.
    pub(super) chosen: &'a [String],
}

/// The images of `container` for a run on images of `shape`, and what the user should know of them.
///
/// # Errors
/// A [`UserError`]: images of another shape, or classes that the training set does not have.
pub(super) fn extra_images(
    config: &ExtraData,
    container: Container,
    shape: [usize; 3],
    classes: RunClasses,
) -> Result<(Extra, Vec<String>)> {
    if container.shape() != shape {
        let error = UserError::expected(format!("images of {shape:?}, as in data.train"));
        let error = error.file(&config.file).key("data.extra.file").value(format!("images of {:?}", container.shape()));
        return Err(error.hint("choose images made for the same data set").into());
    }
    let (numbers, mut notes) = labels(config, container.class_names(), classes)?;
    let same = classes.chosen.len() == classes.all.len()
        && numbers.iter().enumerate().all(|(label, number)| *number == label as i64);
    let all = container.len();
    let source: Arc<dyn Source> = Arc::new(container);
    // A list of the images that are used costs memory for each of them: only where their labels change.
    let source: Arc<dyn Source> =
        if same { source } else { Arc::new(Subset::renumbered(source, classes.chosen.to_vec(), numbers)) };
    if source.is_empty() {
        let error = UserError::expected("images of the classes of data.subset.classes").file(&config.file);
        return Err(error.key("data.extra.file").value(format!("{all} images of other classes")).into());
    }
    if source.len() < all {
        let used = source.len();
        notes.push(format!(
            "data.extra: {used} of {all} images are of the classes of this run; the others are left out"
        ));
    }
    let missing: Vec<&str> = counts(source.as_ref(), classes.chosen)
        .filter(|(_, count)| *count == 0)
        .map(|(name, _)| name.as_str())
        .collect();
    if !missing.is_empty() {
        let listed = missing[..missing.len().min(5)].join(", ");
        let more = if missing.len() > 5 { ", ..." } else { "" };
        notes.push(format!("data.extra: it has no image of {} of the classes: {listed}{more}", missing.len()));
    }
    Ok((Extra { source, fraction: config.fraction }, notes))
}

/// Each class of the run, and how many images `source` has of it.
fn counts<'a>(source: &dyn Source, chosen: &'a [String]) -> impl Iterator<Item = (&'a String, usize)> {
    // A container may name fewer classes than the run has.
    chosen.iter().zip(per_class(source).into_iter().chain(std::iter::repeat(0)))
}

/// The label in the run of each class of the container, -1 for a class that the run leaves out, and a note.
fn labels(config: &ExtraData, names: &[String], classes: RunClasses) -> Result<(Vec<i64>, Vec<String>), UserError> {
    let RunClasses { all, chosen } = classes;
    let error = |value: String, expected: String| {
        UserError::expected(expected).file(&config.file).key("data.extra.file").value(value)
    };
    let label = |name: &String| chosen.iter().position(|other| other == name).map_or(-1, |place| place as i64);
    let by_name = config.match_classes == ClassMatching::Name && is_named(names) && is_named(all);
    if by_name || names == all {
        if let Some(unknown) = names.iter().find(|name| !all.contains(*name)) {
            let known: Vec<&str> = all.iter().take(5).map(String::as_str).collect();
            let more = if all.len() > known.len() { ", ..." } else { "" };
            let hint = "choose images made for the same data set; or set data.extra.match_classes = \"order\" if its \
                        classes only have other names";
            let expected = format!("classes of data.train: {}{more}", known.join(", "));
            return Err(error(format!("images of a class {unknown:?}"), expected).hint(hint));
        }
        return Ok((names.iter().map(label).collect(), vec![]));
    }
    if names.len() > all.len() {
        let expected = format!("labels of at most the {} classes of data.train", all.len());
        let error = error(format!("images of {} classes", names.len()), expected);
        return Err(error.hint("choose images made for the same data set"));
    }
    let reason = match config.match_classes {
        ClassMatching::Order => "its classes are those of data.train in their order, as requested",
        ClassMatching::Name if is_named(names) => {
            "the training set does not name its classes: label i is taken for class i of data.train"
        }
        ClassMatching::Name => "it does not name its classes: label i is taken for class i of data.train",
    };
    Ok((all.iter().take(names.len()).map(label).collect(), vec![format!("data.extra: {reason}")]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_string).collect()
    }

    fn matched(
        match_classes: ClassMatching,
        extra: &str,
        all: &str,
        chosen: &str,
    ) -> Result<(Vec<i64>, usize), String> {
        let config = ExtraData { file: "extra.h5".into(), fraction: 0.5, match_classes };
        let (all, chosen) = (names(all), names(chosen));
        let found = labels(&config, &names(extra), RunClasses { all: &all, chosen: &chosen });
        found.map(|(labels, notes)| (labels, notes.len())).map_err(|error| error.to_string())
    }

    #[test]
    fn a_label_means_the_class_of_its_name_or_of_its_place() {
        let by_name = |extra, all, chosen| matched(ClassMatching::Name, extra, all, chosen);
        assert_eq!(by_name("ant bee cow", "ant bee cow", "ant bee cow"), Ok((vec![0, 1, 2], 0)));
        assert_eq!(by_name("cow ant", "ant bee cow", "ant bee cow"), Ok((vec![2, 0], 0)));
        assert_eq!(by_name("ant bee cow", "ant bee cow", "cow ant"), Ok((vec![1, -1, 0], 0)));
        assert_eq!(by_name("0 1 2", "0 1 2", "0 1 2"), Ok((vec![0, 1, 2], 0)));
        // Without names, by place and with a note.
        assert_eq!(by_name("0 1", "ant bee cow", "ant bee cow"), Ok((vec![0, 1], 1)));
        assert_eq!(by_name("0 1 2", "ant bee cow", "cow ant"), Ok((vec![1, -1, 0], 1)));
        assert_eq!(by_name("ant bee", "0 1 2", "0 1 2"), Ok((vec![0, 1], 1)));
        let order = matched(ClassMatching::Order, "kuh biene", "ant bee cow", "ant bee cow");
        assert_eq!(order, Ok((vec![0, 1], 1)));
    }

    #[test]
    fn classes_that_the_training_set_does_not_have_are_refused() {
        let unknown = matched(ClassMatching::Name, "ant dog", "ant bee cow", "ant bee").unwrap_err();
        for part in ["extra.h5: data.extra.file", "class \"dog\"", "ant, bee, cow", "match_classes = \"order\""] {
            assert!(unknown.contains(part), "{unknown}");
        }
        for (matching, extra) in [(ClassMatching::Name, "0 1 2 3"), (ClassMatching::Order, "a b c d")] {
            let more = matched(matching, extra, "ant bee cow", "ant bee cow").unwrap_err();
            assert!(more.contains("4 classes") && more.contains("at most the 3 classes"), "{more}");
        }
    }
}
