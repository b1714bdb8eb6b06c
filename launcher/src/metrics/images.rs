//! The images under attack that a run kept, as one picture.

use anyhow::Result;
use datasets::{AttackRow, attack_sheet, short_name};
use trainer::evaluate::examples::{Example, Examples};

/// A PNG picture.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Picture {
    pub(super) step: u64,
    pub(super) name: String,
    pub(super) png: Vec<u8>,
}

/// The picture of these images: natural, adversarial, the amplified change, and beside them the label and what each network
/// takes the two for.
///
/// # Errors
/// Images that cannot be drawn.
pub(super) fn picture(examples: &Examples) -> Result<Picture> {
    let Examples { origin, shape, images } = examples;
    let class = |number: i64| {
        let name = usize::try_from(number).ok().and_then(|number| origin.classes.get(number));
        name.map_or(number.to_string(), |name| short_name(name))
    };
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
