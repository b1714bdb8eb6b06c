//! Images of one file each, decoded when they are read.

use std::sync::Arc;

use anyhow::Result;

use super::tree::Tree;
use crate::formats::picture::{self, Size};
use crate::ground::error::UserError;
use crate::ground::source::Source;

/// The bytes of the largest image file that is read.
const IMAGE: usize = 64 << 20;

/// Image files of a tree as a source.
pub(super) struct Pictures {
    pub(super) tree: Arc<Tree>,
    /// Paths and labels.
    pub(super) files: Vec<(String, i64)>,
    pub(super) shape: [usize; 3],
    pub(super) class_names: Vec<String>,
    pub(super) hint: &'static str,
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

/// The size of the image file `name`, by its header.
pub(super) fn size_of(tree: &Tree, name: &str, hint: &'static str) -> Result<Size, UserError> {
    picture::size(&tree.read(name, IMAGE, hint)?).map_err(|error| wrong_image(tree, name, &error, hint))
}
