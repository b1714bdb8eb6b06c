//! The ranges of `data.augment`, and which losses take mixed labels.

use datasets::UserError;

use super::range::must;
use super::run_config::RunConfig;

impl RunConfig {
    pub(super) fn check_augment(&self) -> Result<(), UserError> {
        let Some(augment) = &self.data.augment else { return Ok(()) };
        must(augment.crop <= 64, "data.augment.crop", augment.crop, "a padding of 0 to 64 pixels")?;
        let crops = augment.policy.is_some_and(|policy| policy.crops());
        must(augment.crop == 0 || !crops, "data.augment.crop", augment.crop, "0 beside IDBH, which crops by itself")?;
        must(augment.cutout <= 4096, "data.augment.cutout", augment.cutout, "a side of 0 to 4,096 pixels")?;
        let mixed = augment.cutmix;
        must((0.0..=1.0).contains(&mixed), "data.augment.cutmix", mixed, "a share of 0 to 1")?;
        let loss = &self.loss;
        let by_label = [
            ("loss.class_weights", loss.class_weights.is_some()),
            ("loss.class_means", loss.class_means.is_some()),
            ("loss.rectify", loss.rectify.is_some()),
            ("attack.first_order", self.attack.first_order),
        ];
        if let Some((key, _)) = by_label.into_iter().find(|(_, set)| *set && mixed > 0.0) {
            let expected = format!("0: {key} needs one label for each image");
            return Err(UserError::expected(expected).key("data.augment.cutmix").value(mixed));
        }
        let hard = self.loss.terms.iter().find(|term| !term.takes_mixed_labels()).filter(|_| mixed > 0.0);
        let Some(term) = hard else { return Ok(()) };
        let expected = format!("0: the term {} needs one label for each image", term.name);
        Err(UserError::expected(expected).key("data.augment.cutmix").value(mixed).hint(
            "CutMix mixes labels; towards = \"label\" and predictions take them; trust, sample_weight, only, swap_label and \
             \"boosted_label\" do not",
        ))
    }
}
