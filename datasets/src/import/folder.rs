//! A folder or zip archive with a folder for each class.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use super::imported::{Imported, wrong_file};
use super::left_out::{LeftOut, NO_CLASS, NOT_UTF8, some, why_no_image};
use super::pictures::{Pictures, size_of};
use super::splits::SplitNames;
use super::tree::Tree;
use crate::ground::error::UserError;
use crate::ground::source::Source;

const HINT: &str = "--from takes a folder or zip archive of train/CLASS/IMAGE and test/CLASS/IMAGE (or val/), or of \
                    CLASS/IMAGE alone, with JPEG and PNG files of one size";

/// The images of both splits, each with its class, and the classes.
struct Sorted {
    train: Vec<(String, String)>,
    test: Option<Vec<(String, String)>>,
    classes: BTreeSet<String>,
    left_out: LeftOut,
}

/// Reads a folder or zip archive with a folder for each class, in `train` and `test` (or `val`) or alone. Images may lie
/// in folders below that of their class.
///
/// Images keep one channel where all of them are grey, and have three otherwise. A class without training images is
/// refused unless `allow_empty` is set: it then keeps its number.
pub(super) fn read(from: &Path, splits: Option<&SplitNames>, allow_empty: bool) -> Result<Imported> {
    let tree = Arc::new(Tree::open(from, HINT)?);
    let splits = match splits {
        Some(splits) => splits.clone(),
        None => SplitNames::of(&tree, from)?,
    };
    let sorted = sort(&tree, from, &splits)?;
    check_classes(&tree, &sorted, &splits, allow_empty)?;
    let Sorted { train, test, classes, left_out } = sorted;
    let label: BTreeMap<&str, i64> = classes.iter().map(String::as_str).zip(0..).collect();
    let first = size_of(&tree, &train[0].0, HINT)?;
    let mut grey = true;
    // One with colours decides; as a rule that is the first.
    for (name, _) in train.iter().chain(test.iter().flatten()) {
        grey = grey && size_of(&tree, name, HINT)?.grey;
        if !grey {
            break;
        }
    }
    let shape = [if grey { 1 } else { 3 }, first.height, first.width];
    let class_names: Vec<String> = classes.iter().cloned().collect();
    let part = |files: &[(String, String)]| -> Result<Box<dyn Source>> {
        let labelled = files.iter().map(|(name, class)| match label.get(&class[..]) {
            Some(&label) => Ok((name.clone(), label)),
            None => Err(stranger(&tree, name, class, &splits)),
        });
        let files = labelled.collect::<Result<_, _>>()?;
        let (tree, class_names) = (Arc::clone(&tree), class_names.clone());
        Ok(Box::new(Pictures { tree, files, shape, class_names, hint: HINT }))
    };
    let source = format!("the folder {}", from.file_name().unwrap_or_default().to_string_lossy());
    Ok(Imported { left_out, test: test.as_deref().map(part).transpose()?, ..Imported::new(source, "", part(&train)?) })
}

/// Gives every file of `tree` its place in a split, or a reason why it has none.
fn sort(tree: &Tree, from: &Path, splits: &SplitNames) -> Result<Sorted> {
    let train_prefix = SplitNames::prefix(&splits.train);
    let test_prefix = splits.test.as_deref().map(SplitNames::prefix);
    for (key, folder) in [("train", Some(&splits.train)), ("test", splits.test.as_ref())] {
        if let Some(folder) = folder.filter(|folder| *folder != "." && !tree.folders.contains(*folder)) {
            let outer: Vec<_> = tree.folders.iter().filter(|folder| !folder.contains('/')).cloned().collect();
            let error = UserError::expected(format!("one of its folders: {}", outer.join(", "))).file(from);
            return Err(error.key(format!("--split-names {key}")).value(folder).into());
        }
    }
    let (mut train, mut test, mut left_out) = (vec![], vec![], tree.left_out.clone());
    for name in tree.files() {
        if let Some(reason) = why_no_image(name) {
            left_out.add(reason, name);
            continue;
        }
        // The longer beginning first: the root holds the other split, too.
        let in_test = test_prefix.as_deref().and_then(|prefix| name.strip_prefix(prefix));
        let in_train = name.strip_prefix(&train_prefix[..]);
        let to_train = in_train.is_some()
            && (in_test.is_none() || train_prefix.len() > test_prefix.as_ref().map_or(0, String::len));
        let Some(inside) = (if to_train { in_train } else { in_test }) else {
            let outer = name.split_once('/').map_or("its own place", |(outer, _)| outer);
            left_out.add(&format!("in {outer}, which is no split; --split-names can take it"), name);
            continue;
        };
        match inside.split_once('/') {
            Some((class, _)) if to_train => train.push((name.to_owned(), class.to_owned())),
            Some((class, _)) => test.push((name.to_owned(), class.to_owned())),
            None => left_out.add(NO_CLASS, name),
        }
    }
    let classes = class_folders(tree, &train_prefix, test_prefix.as_deref());
    let expected = "JPEG or PNG images in a folder for each class";
    let place = tree.path(train_prefix.trim_end_matches('/'));
    let flat = left_out.of(NO_CLASS).iter().filter(|name| name.starts_with(&train_prefix));
    let names: Vec<String> = flat.cloned().collect();
    if train.is_empty() && !names.is_empty() {
        let value =
            format!("without folders of classes, with {} images beside each other ({})", names.len(), some(&names));
        let hint = format!("put the images of each class into a folder of its own. {HINT}");
        return Err(wrong_file(&place, &value, expected, &hint).into());
    }
    if train.is_empty() {
        let value =
            if left_out.count() == 0 { "without images".into() } else { format!("without images ({left_out})") };
        return Err(wrong_file(&place, &value, expected, HINT).into());
    }
    let test = match &splits.test {
        Some(folder) if test.is_empty() => {
            let hint = format!("give another one with --split-names train={},test=FOLDER, or none", splits.train);
            return Err(wrong_file(&tree.path(folder), &"without images in folders of classes", expected, &hint).into());
        }
        Some(_) => Some(test),
        None => None,
    };
    Ok(Sorted { train, test, classes, left_out })
}

/// The folders of classes below `train`, also those without an image.
fn class_folders(tree: &Tree, train: &str, test: Option<&str>) -> BTreeSet<String> {
    let inside = tree.folders.iter().filter_map(|folder| folder.strip_prefix(train));
    // With the training images at the root, the folder of the test images is no class.
    let is_test = |folder: &str| test.is_some_and(|test| train.is_empty() && test.strip_suffix('/') == Some(folder));
    inside.filter(|folder| !folder.is_empty() && !folder.contains('/') && !is_test(folder)).map(str::to_owned).collect()
}

/// Refuses classes that would vanish, and folders around splits that look like classes.
fn check_classes(tree: &Tree, sorted: &Sorted, splits: &SplitNames, allow_empty: bool) -> Result<(), UserError> {
    let prefix = SplitNames::prefix(&splits.train);
    let wrong = |class: &str, value: &str, expected: &str, hint: String| {
        Err(UserError::expected(expected)
            .file(tree.path(&format!("{prefix}{class}")))
            .key("the class")
            .value(value)
            .hint(hint))
    };
    // A name that is not UTF-8 holds the replacement character.
    let unnamed =
        sorted.left_out.of(NOT_UTF8).iter().filter_map(|name| name.strip_prefix(&prefix[..])?.split_once('/'));
    if let Some((class, _)) = unnamed.into_iter().find(|(class, _)| class.contains('\u{fffd}')) {
        return wrong(class, "called by a name that is not UTF-8", "a name in UTF-8", "rename the folder".into());
    }
    for class in &sorted.classes {
        let folder = format!("{prefix}{class}");
        let splits_inside: Vec<_> = ["train", "test", "val", "valid"]
            .into_iter()
            .filter(|name| tree.folders.contains(&format!("{folder}/{name}")))
            .collect();
        if splits_inside.len() > 1 {
            let hint = format!("give that folder: --from '{}'", tree.path(&folder).display());
            return wrong(class, &format!("a folder of {}", splits_inside.join(", ")), "a folder of images", hint);
        }
        if !allow_empty && !sorted.train.iter().any(|(_, of)| of == class) {
            let inside = |name: &&String| name.strip_prefix(&folder[..]).is_some_and(|rest| rest.starts_with('/'));
            let rejected: Vec<String> = sorted
                .left_out
                .reasons()
                .filter_map(|(reason, names)| {
                    let count = names.iter().filter(inside).count();
                    (count > 0).then(|| format!("; {count} left out: {reason}"))
                })
                .collect();
            let value = format!("without a training image{}", rejected.concat());
            let hint =
                "add JPEG or PNG images, remove the folder, or keep the class without images by --allow-empty-classes";
            return wrong(class, &value, "at least one JPEG or PNG image", hint.into());
        }
    }
    Ok(())
}

/// A test image of a class that the training images do not have.
fn stranger(tree: &Tree, name: &str, class: &str, splits: &SplitNames) -> UserError {
    let error =
        UserError::expected("a class of the training images").file(tree.path(name)).key("its folder").value(class);
    let tiny = tree.has("wnids.txt") && tree.has("words.txt");
    let others = tree.folders.iter().filter(|folder| {
        !folder.contains('/') && **folder != splits.train && Some(&folder[..]) != splits.test.as_deref()
    });
    let other = others.into_iter().next().map_or("FOLDER", |folder| &folder[..]);
    let own = format!("or take another folder as the test split: --split-names train={},test={other}", splits.train);
    match tiny {
        true => {
            error.hint(format!("this is Tiny-ImageNet: `iad-launch data import tiny-imagenet` knows its labels; {own}"))
        }
        false => error.hint(format!("{HINT}; {own}")),
    }
}

#[cfg(test)]
pub(super) mod tests;
