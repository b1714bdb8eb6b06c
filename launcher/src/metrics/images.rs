//! The images under attack that a run kept, as one picture.

use std::path::Path;

use anyhow::Result;
use datasets::{AttackRow, attack_sheet, short_name};
use trainer::evaluate::examples::{Example, Examples};
use trainer::run::folder::RunFolder;

/// A PNG picture.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Picture {
    pub(super) step: u64,
    pub(super) name: String,
    pub(super) png: Vec<u8>,
}

/// The pictures of the run in `folder`: a run that was made before there were such images, or is under way, has none.
pub(super) fn pictures(folder: &Path) -> Vec<Picture> {
    let kept = Examples::read(&RunFolder::at(folder).examples());
    kept.and_then(|examples| picture(&examples)).into_iter().collect()
}

/// The picture of these images: natural, adversarial, the amplified change, and beside them the label and what each network
/// takes the two for.
///
/// # Errors
/// Images that cannot be drawn.
fn picture(examples: &Examples) -> Result<Picture> {
    let Examples { origin, shape, images } = examples;
    let class = |number: i64| short_name(&origin.class(number));
    let lines = |image: &Example| {
        let said = |(name, [natural, adversarial]): &(String, [i64; 2])| {
            format!("{}: {} / {}", short_name(name), class(*natural), class(*adversarial))
        };
        let label = format!("label: {}", class(image.label));
        std::iter::once(label).chain(image.predictions.iter().map(said)).collect()
    };
    let mut rows = vec![];
    for image in images {
        rows.push(AttackRow { natural: &image.natural, adversarial: &image.adversarial, lines: lines(image) });
    }
    let name = format!("images/{}", origin.attack);
    Ok(Picture { step: origin.step, name, png: attack_sheet(*shape, &rows)? })
}
