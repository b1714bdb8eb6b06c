//! Data sets of one file per image: Tiny-ImageNet, and plain folders of classes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use super::picture::{self, Size};
use super::tree::Tree;
use super::{Imported, wrong_file};
use crate::{Source, UserError};

/// The bytes of the largest image file that is read.
const IMAGE: usize = 64 << 20;
/// The bytes of the largest text file that is read; WordNet's words.txt has 2.7 million.
const TEXT: usize = 16 << 20;
const TINY_HINT: &str = "get it with `iad-launch data fetch tiny-imagenet`, or give tiny-imagenet-200.zip, or its \
                         unpacked folder, to --from";
const FOLDER_HINT: &str = "--from takes a folder or zip archive of train/CLASS/IMAGE and test/CLASS/IMAGE (or val/), or \
                           of CLASS/IMAGE alone, with JPEG and PNG files of one size";

/// Images that are decoded when they are read.
struct Pictures {
    tree: Arc<Tree>,
    files: Vec<(String, i64)>,
    shape: [usize; 3],
    class_names: Vec<String>,
    hint: &'static str,
}

impl Source for Pictures {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, sample: usize) -> i64 {
        self.files[sample].1
    }

    fn read(&self, sample: usize, image: &mut [u8]) -> Result<()> {
        let name = &self.files[sample].0;
        let bytes = self.tree.read(name, IMAGE, self.hint)?;
        let decoded = picture::decode(&bytes, self.shape, image);
        Ok(decoded.map_err(|error| wrong_image(&self.tree, name, &error, self.hint))?)
    }
}

fn wrong_image(tree: &Tree, name: &str, error: &anyhow::Error, hint: &str) -> UserError {
    let expected = "a whole JPEG or PNG image of 8 bits, grey or RGB, of the same size as the others";
    UserError::expected(expected).file(tree.path(name)).key("the image").value(format!("{error:#}")).hint(hint)
}

fn size_of(tree: &Tree, name: &str, hint: &'static str) -> Result<Size, UserError> {
    picture::size(&tree.read(name, IMAGE, hint)?).map_err(|error| wrong_image(tree, name, &error, hint))
}

/// Reads Tiny-ImageNet from its folder or zip archive. Classes have the order of their sorted WordNet numbers; the
/// validation images are the test split, because the published test images have no labels.
pub(super) fn read_tiny_imagenet(from: &Path) -> Result<Imported> {
    let tree = Arc::new(Tree::open(from, TINY_HINT)?);
    let text =
        |name: &str| -> Result<String> { Ok(String::from_utf8_lossy(&tree.read(name, TEXT, TINY_HINT)?).into_owned()) };
    let wnids: BTreeSet<String> = text("wnids.txt")?.split_whitespace().map(str::to_owned).collect();
    let label: BTreeMap<&str, i64> = wnids.iter().map(String::as_str).zip(0..).collect();
    let words = text("words.txt")?;
    let words: BTreeMap<&str, &str> = words.lines().filter_map(|line| line.split_once('\t')).collect();
    let class_names: Vec<String> =
        wnids.iter().map(|wnid| words.get(&wnid[..]).map_or(&wnid[..], |name| name.trim()).to_owned()).collect();

    let mut train = Vec::new();
    for name in tree.files() {
        if let [folder, wnid, "images", image] = name.split('/').collect::<Vec<_>>()[..]
            && folder == "train"
            && is_image(image)
        {
            let class = label.get(wnid).ok_or_else(|| {
                let expected = "a class of wnids.txt";
                UserError::expected(expected).file(tree.path(name)).key("its folder").value(wnid).hint(TINY_HINT)
            })?;
            train.push((name.to_owned(), *class));
        }
    }
    let annotations = "val/val_annotations.txt";
    let mut test = Vec::new();
    for (number, line) in text(annotations)?.lines().enumerate() {
        let mut fields = line.split('\t');
        let (image, wnid) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let class = label.get(wnid).filter(|_| is_image(image) && !image.contains('/'));
        let class = class.ok_or_else(|| {
            let error = UserError::expected("an image file and a class of wnids.txt").file(tree.path(annotations));
            error.key(format!("line {}", number + 1)).value(format!("{line:?}")).hint(TINY_HINT)
        })?;
        test.push((format!("val/images/{image}"), *class));
    }
    for (what, files) in [("train/WNID/images", &train), (annotations, &test)] {
        if files.is_empty() {
            return Err(wrong_file(&tree.path(what), &"without images", "JPEG images", TINY_HINT).into());
        }
    }
    // Grey ones among them become RGB by equal planes.
    let first = size_of(&tree, &train[0].0, TINY_HINT)?;
    let shape = [3, first.height, first.width];
    let part = |files| -> Box<dyn Source> {
        Box::new(Pictures { tree: Arc::clone(&tree), files, shape, class_names: class_names.clone(), hint: TINY_HINT })
    };
    Ok(Imported {
        source: "Tiny-ImageNet (Le and Yang 2015; images of ImageNet)".into(),
        url: "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        coarse: None,
        train: part(train),
        test: Some(part(test)),
    })
}

/// Reads a folder or zip archive with a folder for each class, in `train` and `test` (or `val`) or alone.
///
/// Images keep one channel where all of them are grey, and have three otherwise.
pub(super) fn read_folder(from: &Path) -> Result<Imported> {
    let tree = Arc::new(Tree::open(from, FOLDER_HINT)?);
    let images: Vec<Vec<&str>> =
        tree.files().filter(|name| is_image(name)).map(|name| name.split('/').collect()).collect();
    let has = |split: &str| images.iter().any(|parts| parts.len() == 3 && parts[0] == split);
    let (train, test) = match (has("train"), has("test"), has("val")) {
        (false, ..) => ("", None),
        (true, true, _) => ("train/", Some("test/")),
        (true, false, true) => ("train/", Some("val/")),
        (true, false, false) => ("train/", None),
    };
    let of_split = |split: &str| -> Vec<(String, String)> {
        let inside = tree.files().filter(|name| is_image(name)).filter_map(|name| {
            let (class, image) = name.strip_prefix(split)?.split_once('/')?;
            (!image.contains('/')).then(|| (name.to_owned(), class.to_owned()))
        });
        inside.collect()
    };
    let (train, test) = (of_split(train), test.map(of_split));
    let classes: BTreeSet<&str> = train.iter().map(|(_, class)| &class[..]).collect();
    let label: BTreeMap<&str, i64> = classes.iter().copied().zip(0..).collect();
    let (Some((first, _)), Some(_)) = (train.first(), classes.first()) else {
        return Err(
            wrong_file(from, &"without images", "JPEG or PNG images in a folder for each class", FOLDER_HINT).into()
        );
    };
    let first = size_of(&tree, first, FOLDER_HINT)?;
    let mut grey = true;
    // One with colours decides; as a rule that is the first.
    for (name, _) in train.iter().chain(test.iter().flatten()) {
        grey = grey && size_of(&tree, name, FOLDER_HINT)?.grey;
        if !grey {
            break;
        }
    }
    let shape = [if grey { 1 } else { 3 }, first.height, first.width];
    let class_names: Vec<String> = classes.iter().map(|&class| class.to_owned()).collect();
    let part = |files: &[(String, String)]| -> Result<Box<dyn Source>> {
        let labelled = files.iter().map(|(name, class)| match label.get(&class[..]) {
            Some(&label) => Ok((name.clone(), label)),
            None => {
                let expected = "a class of the training images";
                Err(UserError::expected(expected)
                    .file(tree.path(name))
                    .key("its folder")
                    .value(class)
                    .hint(FOLDER_HINT))
            }
        });
        let files = labelled.collect::<Result<_, _>>()?;
        let (tree, class_names) = (Arc::clone(&tree), class_names.clone());
        Ok(Box::new(Pictures { tree, files, shape, class_names, hint: FOLDER_HINT }))
    };
    Ok(Imported {
        source: format!("the folder {}", from.file_name().unwrap_or_default().to_string_lossy()),
        url: "",
        coarse: None,
        train: part(&train)?,
        test: test.as_deref().map(part).transpose()?,
    })
}

fn is_image(name: &str) -> bool {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    ending.is_some_and(|ending| ["jpeg", "jpg", "png"].contains(&&ending[..]))
}

#[cfg(test)]
mod tests;
