//! How many images of which shape a run has: from its files, else as its data set was published, else as the command says.

use std::collections::BTreeMap;
use std::fs::metadata;

use anyhow::Result;
use datasets::UserError;
use serde::{Deserialize, Serialize};
use trainer::config::{RunConfig, Selection};
use trainer::run::cost::ImageCounts;
use trainer::run::prepare::prepare;

use crate::command::Plan;

const PUBLISHED: &str = include_str!("../../../configs/paper/datasets.toml");

/// A published data set.
#[derive(Debug, Clone, Deserialize)]
struct Published {
    image: [usize; 3],
    classes: usize,
    train: u64,
    test: u64,
}

/// The images of `data.extra`. What is not known yet is left out.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ExtraImages {
    pub(super) file: String,
    pub(super) images: Option<u64>,
    /// Bytes of the file.
    pub(super) bytes: Option<u64>,
}

/// The images of a run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Images {
    /// Where this is known from.
    pub(super) source: String,
    /// Channels, height and width.
    pub(super) shape: [usize; 3],
    pub(super) classes: usize,
    pub(super) train: u64,
    /// Those that choose the best weights.
    pub(super) selection: u64,
    /// Those of the final evaluation.
    pub(super) test: u64,
    /// Those that stand beside them in every step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) extra: Option<ExtraImages>,
    /// Why the run could not open them now.
    pub(super) missing: Option<String>,
}

impl Images {
    /// Those of `config`.
    ///
    /// # Errors
    /// The files are there and wrong; or nothing says how many there are.
    pub(super) fn of(config: &RunConfig, command: &Plan) -> Result<Self> {
        let mut alone = config.clone();
        alone.teachers.clear();
        let extra = config.data.extra.as_ref();
        let not_yet = extra.map(|extra| ExtraImages {
            file: extra.file.display().to_string(),
            images: None,
            bytes: metadata(&extra.file).ok().map(|file| file.len()),
        });
        if config.data.train.exists() && config.data.test.exists() {
            let mut missing = None;
            if extra.is_some_and(|extra| !extra.file.exists()) {
                missing = prepare(&alone, false).err().map(|error| format!("{error:#}"));
                alone.data.extra = None;
            }
            let found = prepare(&alone, false)?;
            let images = found.extra.as_ref().map(|extra| extra.source.len() as u64);
            return Ok(Self {
                source: config.data.train.display().to_string(),
                shape: found.form.image,
                classes: found.form.classes,
                train: found.train.len() as u64,
                selection: found.selection.as_ref().map_or(0, |(source, _)| source.len() as u64),
                test: found.evaluated.len() as u64,
                extra: not_yet.map(|extra| ExtraImages { images, ..extra }),
                missing,
            });
        }
        let missing = prepare(&alone, false).err().map(|error| format!("{error:#}"));
        let name = config.data.train.file_stem().unwrap_or_default().to_string_lossy().replace('_', "-");
        let known: BTreeMap<String, Published> =
            toml::from_str(PUBLISHED).unwrap_or_else(|error| unreachable!("the sizes are tested: {error}"));
        let published = known.get(&name);
        let source = match (published, command.image) {
            (Some(_), None) => format!("{name} as published"),
            _ => "this command".to_string(),
        };
        let unknown = |option: &str| {
            UserError::expected(format!("{option}, where the images are missing and their data set is not a known one"))
                .file(&config.data.train)
                .key("data.train")
                .value("missing")
                .hint("add --image CxHxW --classes N --images N to this command, or make the images first")
        };
        let shape = command.image.or(published.map(|known| known.image)).ok_or_else(|| unknown("--image"))?;
        let classes = config.student.classes.or(command.classes).or(published.map(|known| known.classes));
        let all = command.images.or(published.map(|known| known.train)).ok_or_else(|| unknown("--images"))?;
        let classes = classes.ok_or_else(|| unknown("--classes"))?;
        let (classes, train, test) = chosen(config, classes, all, published.map_or(0, |known| known.test));
        let selection = match config.evaluation.selection {
            Selection::None => 0,
            Selection::Test => test,
            Selection::HeldOut => ((train as f64 * config.evaluation.held_out).round() as u64).max(1),
        };
        let held_out = if config.evaluation.selection == Selection::HeldOut { selection } else { 0 };
        let test = config.evaluation.images.map_or(test, |images| test.min(images as u64));
        let train = train.saturating_sub(held_out);
        Ok(Self { source, shape, classes, train, selection, test, extra: not_yet, missing })
    }

    /// The numbers alone, of a run on so many ranks: of training, the images of an epoch.
    pub(super) fn counts(&self, config: &RunConfig, ranks: usize) -> ImageCounts {
        let train = config.images_of_epoch(self.train, ranks);
        ImageCounts { train, selection: self.selection, test: self.test }
    }
}

/// Classes, training and test images that `data.subset` leaves of a data set of equal classes.
fn chosen(config: &RunConfig, classes: usize, train: u64, test: u64) -> (usize, u64, u64) {
    let Some(choice) = &config.data.subset else { return (classes, train, test) };
    let kept = choice.classes.as_ref().map_or(classes, Vec::len);
    let share = |images: u64| images * kept as u64 / classes.max(1) as u64;
    let per_class = choice.per_class.map(|count| count as u64 * kept as u64);
    let train = choice.count.map(|count| count as u64).or(per_class).unwrap_or(share(train));
    (kept, train, share(test))
}
