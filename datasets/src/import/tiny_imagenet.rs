//! Tiny-ImageNet as published, and with its validation images sorted into folders of classes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use super::imported::{Imported, wrong_file};
use super::left_out::{LeftOut, NO_CLASS, why_no_image};
use super::pictures::{Pictures, size_of};
use super::tree::Tree;
use crate::ground::error::UserError;
use crate::ground::source::Source;

/// The bytes of the largest text file that is read; WordNet's words.txt has 2.7 million.
const TEXT: usize = 16 << 20;
const HINT: &str = "get it with `iad-launch data fetch tiny-imagenet`, or give tiny-imagenet-200.zip, or its unpacked \
                    folder, to --from";
const WNIDS: &str = "wnids.txt";
const WORDS: &str = "words.txt";
const ANNOTATIONS: &str = "val/val_annotations.txt";

/// Finds images and labels in a tree of files.
struct Reader<'a> {
    tree: &'a Tree,
    /// The label of each WordNet number.
    label: BTreeMap<String, i64>,
    left_out: LeftOut,
}

/// Reads Tiny-ImageNet from its folder or zip archive. Classes have the order of their sorted WordNet numbers; the
/// validation images are the test split, because the published test images have no labels.
///
/// Images lie in `train/WNID/images/` and `val/images/`, or directly in folders `train/WNID/` and `val/WNID/`. Where
/// `val_annotations.txt` exists it gives the order of the validation images, so that both forms make the same file.
pub(super) fn read(from: &Path) -> Result<Imported> {
    let tree = Arc::new(Tree::open(from, HINT)?);
    let wnids: BTreeSet<String> = text(&tree, WNIDS)?.split_whitespace().map(str::to_owned).collect();
    let words = text(&tree, WORDS)?;
    let words: BTreeMap<&str, &str> = words.lines().filter_map(|line| line.split_once('\t')).collect();
    let class_names: Vec<String> =
        wnids.iter().map(|wnid| words.get(&wnid[..]).map_or(&wnid[..], |name| name.trim()).to_owned()).collect();
    let label = wnids.into_iter().zip(0..).collect();
    let mut reader = Reader { tree: &tree, label, left_out: tree.left_out.clone() };
    let (train, validation) = reader.sort()?;
    let test = reader.validation(validation)?;
    for (what, files) in [("train/WNID/images", &train), (ANNOTATIONS, &test)] {
        if files.is_empty() {
            return Err(wrong_file(&tree.path(what), &"without images", "JPEG images", HINT).into());
        }
    }
    // Grey ones among them become RGB by equal planes.
    let first = size_of(&tree, &train[0].0, HINT)?;
    let shape = [3, first.height, first.width];
    let left_out = reader.left_out;
    let part = |files| -> Box<dyn Source> {
        Box::new(Pictures { tree: Arc::clone(&tree), files, shape, class_names: class_names.clone(), hint: HINT })
    };
    Ok(Imported {
        left_out,
        test: Some(part(test)),
        ..Imported::new(
            "Tiny-ImageNet (Le and Yang 2015; images of ImageNet)",
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            part(train),
        )
    })
}

fn text(tree: &Tree, name: &str) -> Result<String> {
    Ok(String::from_utf8_lossy(&tree.read(name, TEXT, HINT)?).into_owned())
}

/// The files of images with the numbers of their classes.
type Labelled = Vec<(String, i64)>;

impl Reader<'_> {
    /// The training images with their labels, and the paths of the validation images.
    fn sort(&mut self) -> Result<(Labelled, Vec<String>)> {
        let (mut train, mut validation) = (Vec::new(), Vec::new());
        for name in self.tree.files() {
            let parts: Vec<&str> = name.split('/').collect();
            match (why_no_image(name), &parts[..]) {
                (Some(_), _) if [WNIDS, WORDS, ANNOTATIONS].contains(&name) => {}
                (Some(reason), _) => self.left_out.add(reason, name),
                (None, ["train", wnid, "images", _] | ["train", wnid, _]) => {
                    train.push((name.to_owned(), self.class_of(name, wnid)?));
                }
                (None, ["val", _, _] | ["val", _, "images", _]) => validation.push(name.to_owned()),
                (None, ["test", ..]) => self.left_out.add("published without labels", name),
                (None, _) => self.left_out.add(NO_CLASS, name),
            }
        }
        Ok((train, validation))
    }

    fn class_of(&self, name: &str, wnid: &str) -> Result<i64, UserError> {
        self.label.get(wnid).copied().ok_or_else(|| {
            let expected = "a class of wnids.txt";
            UserError::expected(expected).file(self.tree.path(name)).key("its folder").value(wnid).hint(HINT)
        })
    }

    /// The validation images with their labels: by the annotations, by their folders, or by both where they agree.
    fn validation(&mut self, found: Vec<String>) -> Result<Vec<(String, i64)>> {
        let sorted = |name: &str| !name.starts_with("val/images/");
        if !self.tree.has(ANNOTATIONS) && found.iter().any(|name| sorted(name)) {
            let (sorted, unsorted): (Vec<_>, Vec<_>) = found.into_iter().partition(|name| sorted(name));
            unsorted.iter().for_each(|name| self.left_out.add(NO_CLASS, name));
            let labelled = sorted.into_iter().map(|name| {
                let wnid = name.split('/').nth(1).unwrap_or_default();
                let class = self.class_of(&name, wnid)?;
                Ok((name, class))
            });
            return labelled.collect();
        }
        let mut places: BTreeMap<&str, &str> = BTreeMap::new();
        for path in &found {
            let image = path.rsplit('/').next().unwrap_or(path);
            if let Some(other) = places.insert(image, path) {
                let error = UserError::expected(format!("one validation image {image}; another is {other}"));
                return Err(error.file(self.tree.path(path)).hint(HINT).into());
            }
        }
        let mut test = Vec::new();
        let lines = text(self.tree, ANNOTATIONS)?;
        for (number, line) in lines.lines().enumerate() {
            let mut fields = line.split('\t');
            let (image, wnid) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            let wrong = |expected: &str| {
                let error = UserError::expected(expected).file(self.tree.path(ANNOTATIONS));
                error.key(format!("line {}", number + 1)).value(format!("{line:?}")).hint(HINT)
            };
            let class = self.label.get(wnid).filter(|_| why_no_image(image).is_none() && !image.contains('/'));
            let class = *class.ok_or_else(|| wrong("an image file and a class of wnids.txt"))?;
            let path = match places.remove(image) {
                Some(path) if sorted(path) && path.split('/').nth(1) != Some(wnid) => {
                    return Err(wrong(&format!("the class of its folder, {path}")).into());
                }
                Some(path) => path.to_owned(),
                None if test.iter().any(|(known, _): &(String, i64)| known.ends_with(&format!("/{image}"))) => {
                    return Err(wrong("each image once").into());
                }
                // Reading it fails and names the missing file.
                None => format!("val/images/{image}"),
            };
            test.push((path, class));
        }
        let reason = "a validation image without a line in val_annotations.txt";
        places.into_values().for_each(|path| self.left_out.add(reason, path));
        Ok(test)
    }
}

#[cfg(test)]
mod tests;
