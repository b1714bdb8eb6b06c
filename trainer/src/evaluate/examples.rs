//! A few images under attack, for people to look at: `examples.safetensors` of a run folder.
//!
//! Its tensors are `natural` (u8) and `adversarial` (f32, in [0, 1]), `[N, channels, height, width]`; `samples` and `labels`
//! (i64 `[N]`); and of each network `predictions/NAME` (i64 `[N, 2]`), of the natural and of the adversarial image. Its
//! metadata hold one JSON object, [`Origin`].

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

use crate::config::{Method, Protocol, STUDENT, Suite};
use crate::evaluate::batch::read_filled;
use crate::evaluate::load::load;
use crate::evaluate::request::EvaluationRequest;
use crate::evaluate::round::ball;
use crate::evaluate::{Round, sanity_checks};
use crate::method::attack::{Noise, predictions};
use crate::method::networks::Networks;
use crate::model::Mode;
use crate::system::files::{read_regular, write_atomically};

/// The most images.
const COUNT: usize = 8;
/// The most rows and columns of an image, and the most networks, that are read: a picture is drawn of all of them.
const SIDE: usize = 1024;
const NETWORKS: usize = 16;
/// The rows of their batch, which give the same bits with any number of threads.
const ROWS: usize = 16;
/// The attack where the evaluation has no PGD.
const USUAL: &str = "pgd10";
const METADATA: &str = "iad_examples";
const PREDICTIONS: &str = "predictions/";

/// What made the images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The weights that were attacked: `best`, `final`, or another name.
    pub weights: String,
    /// Steps of training behind them.
    pub step: u64,
    /// The attack.
    pub attack: String,
    /// The names of the classes.
    pub classes: Vec<String>,
}

/// An image before and after the attack.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Its number among the images of the evaluation.
    pub sample: i64,
    /// Its label.
    pub label: i64,
    /// Its values, by channel, row and column.
    pub natural: Vec<u8>,
    /// The values that the attack left, in [0, 1].
    pub adversarial: Vec<f32>,
    /// The predictions of each network for the natural and for the adversarial image, the student first.
    pub predictions: Vec<(String, [i64; 2])>,
}

/// A few images under attack.
#[derive(Debug, Clone, PartialEq)]
pub struct Examples {
    /// What made them.
    pub origin: Origin,
    /// Channels, height and width.
    pub shape: [usize; 3],
    /// The images.
    pub images: Vec<Example>,
}

impl Origin {
    /// The name of a class, or its number where it has none.
    pub fn class(&self, number: i64) -> String {
        class_name(&self.classes, number)
    }
}

/// The name of a class among `classes`, or its number where it has none.
pub fn class_name(classes: &[String], number: i64) -> String {
    let name = usize::try_from(number).ok().and_then(|number| classes.get(number));
    name.map_or(number.to_string(), String::clone)
}

impl Examples {
    /// Attacks up to eight images, evenly spread over those of `request`, with the last PGD of its suite, or PGD-10 without
    /// any; the teachers of `networks` say what they take the images for. The images depend on weights, seed and protocol alone.
    ///
    /// # Errors
    /// Weights or images that cannot be read.
    pub fn attack(request: &EvaluationRequest, networks: &Networks, device: Device) -> Result<Self> {
        let network = load(request, device)?;
        let student = network.classifier.as_ref();
        let (source, protocol) = (request.data.source.as_ref(), &request.protocol);
        let count = COUNT.min(source.len());
        ensure!(count > 0, "there are no images to attack");
        let samples: Vec<usize> = (0..count).map(|place| place * source.len() / count).collect();
        let batch = read_filled(source, &samples, ROWS, (student.kind(), device))?;
        let round = pgd_of(&request.suite, protocol, student.classes())?;
        let noise = Noise::new(&round.draws(protocol.seed), &batch.samples, device);
        let found = round.search(student, protocol, &batch, &[], &noise);
        let (found, _) = sanity_checks::within(ball(protocol), &batch.images, &found);
        let says = |logits: &dyn Fn(&Tensor) -> Tensor| {
            let of = |images: &Tensor| Vec::<i64>::try_from(no_grad(|| predictions(&logits(images))));
            Ok::<_, anyhow::Error>((of(&batch.images)?, of(&found)?))
        };
        let mut said = vec![(STUDENT.to_string(), says(&|images| student.logits(images))?)];
        for (name, teacher) in &networks.teachers {
            // Like in training: a teacher may compute in bfloat16.
            let logits = |images: &Tensor| {
                networks.precision.logits(teacher, &images.to_kind(networks.student.kind()), Mode::Eval)
            };
            said.push((name.clone(), says(&logits)?));
        }
        let values = source.shape().iter().product();
        let image = |(row, &sample): (usize, &usize)| {
            let mut natural = vec![0; values];
            source.read(sample, &mut natural)?;
            let pixels = found.get(row as i64).flatten(0, -1).to_device(Device::Cpu).to_kind(Kind::Float);
            let of = |(name, (natural, adversarial)): &(String, (Vec<i64>, Vec<i64>))| {
                (name.clone(), [natural[row], adversarial[row]])
            };
            Ok(Example {
                sample: sample as i64,
                label: source.label(sample),
                natural,
                adversarial: Vec::try_from(pixels)?,
                predictions: said.iter().map(of).collect(),
            })
        };
        let images = samples.iter().enumerate().map(image).collect::<Result<_>>()?;
        let origin = Origin {
            weights: request.weights.name.clone(),
            step: network.step,
            attack: round.name,
            classes: source.class_names().to_vec(),
        };
        Ok(Self { origin, shape: source.shape(), images })
    }

    /// Writes the file at `path`, whole or not at all.
    ///
    /// # Errors
    /// An I/O error.
    pub fn write(&self, path: &Path) -> Result<()> {
        let whole = |values: &mut dyn Iterator<Item = i64>| values.flat_map(i64::to_le_bytes).collect::<Vec<u8>>();
        let (images, count) = (&self.images, self.images.len());
        let natural: Vec<u8> = images.iter().flat_map(|image| image.natural.clone()).collect();
        let adversarial: Vec<u8> =
            images.iter().flat_map(|image| &image.adversarial).flat_map(|value| value.to_le_bytes()).collect();
        let pixels = [&[count], &self.shape[..]].concat();
        let mut stored = vec![
            ("natural".to_string(), Dtype::U8, pixels.clone(), natural),
            ("adversarial".to_string(), Dtype::F32, pixels, adversarial),
            ("samples".to_string(), Dtype::I64, vec![count], whole(&mut images.iter().map(|image| image.sample))),
            ("labels".to_string(), Dtype::I64, vec![count], whole(&mut images.iter().map(|image| image.label))),
        ];
        let names = images.first().into_iter().flat_map(|image| &image.predictions);
        for (place, (name, _)) in names.enumerate() {
            let bytes = whole(&mut images.iter().flat_map(|image| image.predictions[place].1));
            stored.push((format!("{PREDICTIONS}{name}"), Dtype::I64, vec![count, 2], bytes));
        }
        let views = stored
            .iter()
            .map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>>>()?;
        let metadata = HashMap::from([(METADATA.to_string(), serde_json::to_string(&self.origin)?)]);
        write_atomically(path, &safetensors::serialize(views, Some(metadata))?)
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// A file that is missing, damaged or of another kind.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read_regular(path).with_context(|| format!("reading {}", path.display()))?;
        Self::of_bytes(&bytes).with_context(|| format!("{} is no file of attacked images", path.display()))
    }

    fn of_bytes(bytes: &[u8]) -> Result<Self> {
        let (_, metadata) = SafeTensors::read_metadata(bytes)?;
        let origin = metadata.metadata().as_ref().and_then(|metadata| metadata.get(METADATA));
        let origin: Origin = serde_json::from_str(origin.context("it does not say what made it")?)?;
        let file = SafeTensors::deserialize(bytes)?;
        let pixels = file.tensor("natural")?;
        let &[count, channels, height, width] = pixels.shape() else { anyhow::bail!("natural is no batch of images") };
        let fits = (1..=COUNT).contains(&count) && (1..=4).contains(&channels);
        let drawn = (1..=SIDE).contains(&height) && (1..=SIDE).contains(&width);
        ensure!(fits && drawn, "there are too many images, or too large ones, or none");
        let (shape, values) = ([channels, height, width], channels * height * width);
        let stored = |name: &str, dtype: Dtype, shape: &[usize]| {
            let view = file.tensor(name)?;
            ensure!(view.dtype() == dtype && view.shape() == shape, "{name} has another type or shape");
            Ok(view.data())
        };
        let whole = |name: &str, shape: &[usize]| -> Result<Vec<i64>> {
            let bytes = stored(name, Dtype::I64, shape)?.as_chunks::<8>().0;
            Ok(bytes.iter().map(|value| i64::from_le_bytes(*value)).collect())
        };
        let batch = [count, channels, height, width];
        let (natural, adversarial) =
            (stored("natural", Dtype::U8, &batch)?, stored("adversarial", Dtype::F32, &batch)?);
        let adversarial: Vec<f32> =
            adversarial.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
        let (samples, labels) = (whole("samples", &[count])?, whole("labels", &[count])?);
        let mut networks: Vec<&str> =
            file.names().into_iter().filter_map(|name| name.strip_prefix(PREDICTIONS)).collect();
        ensure!(networks.len() <= NETWORKS, "it names {} networks", networks.len());
        networks.sort_by_key(|name| (*name != STUDENT, *name));
        let said = networks.iter().map(|name| whole(&format!("{PREDICTIONS}{name}"), &[count, 2]));
        let said = said.collect::<Result<Vec<_>>>()?;
        let image = |row: usize| Example {
            sample: samples[row],
            label: labels[row],
            natural: natural[row * values..(row + 1) * values].to_vec(),
            adversarial: adversarial[row * values..(row + 1) * values].to_vec(),
            predictions: networks
                .iter()
                .zip(&said)
                .map(|(name, said)| ((*name).to_string(), [said[2 * row], said[2 * row + 1]]))
                .collect(),
        };
        Ok(Self { origin, shape, images: (0..count).map(image).collect() })
    }
}

/// The last PGD of a suite, or the usual one.
fn pgd_of(suite: &Suite, protocol: &Protocol, classes: usize) -> Result<Round> {
    let last = |suite: &Suite| {
        let mut rounds = suite.rounds(protocol, classes).into_iter();
        rounds.rfind(|round| matches!(round.method, Method::Pgd(_)))
    };
    let usual = Suite::named([USUAL]).map_err(anyhow::Error::msg)?;
    last(suite).or_else(|| last(&usual)).context("no PGD")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Examples {
        let image = |sample: i64| Example {
            sample,
            label: 1,
            natural: vec![sample as u8; 12],
            adversarial: vec![0.25; 12],
            predictions: vec![(STUDENT.into(), [0, sample]), ("another".into(), [1, 1])],
        };
        let classes = ["cat", "dog"].map(String::from).to_vec();
        let origin = Origin { weights: "best".into(), step: 7, attack: "pgd20".into(), classes };
        Examples { origin, shape: [3, 2, 2], images: vec![image(0), image(1)] }
    }

    #[test]
    fn what_is_written_is_read_and_damage_is_refused_or_harmless() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("examples.safetensors");
        examples().write(&path).unwrap();
        assert_eq!(Examples::read(&path).unwrap(), examples());
        let bytes = std::fs::read(&path).unwrap();
        assert!((0..bytes.len()).all(|length| Examples::of_bytes(&bytes[..length]).is_err()));
        // No images of a size that memory has no room for, and no more than are kept.
        let whole = examples();
        for odd in [
            Examples { images: vec![], shape: [3, 1, 1 << 40], ..whole.clone() },
            Examples { images: whole.images.iter().cycle().take(9).cloned().collect(), ..whole },
        ] {
            odd.write(&path).unwrap();
            assert!(Examples::read(&path).is_err());
        }
        for place in 0..8 * bytes.len() {
            let mut changed = bytes.clone();
            changed[place / 8] ^= 1 << (place % 8);
            // Pixels may be others; nothing panics, and the images stay whole.
            if let Ok(found) = Examples::of_bytes(&changed) {
                assert!(
                    found.images.iter().all(|image| image.adversarial.len() == found.shape.iter().product::<usize>())
                );
            }
        }
    }

    #[test]
    fn the_last_pgd_of_a_suite_attacks_or_the_usual_one() {
        let attack = |names: &[&str]| {
            let suite = Suite::named(names.iter().copied()).unwrap();
            pgd_of(&suite, &Protocol::default(), 10).unwrap().name
        };
        assert_eq!(attack(&["natural", "pgd20", "pgd50", "fgsm"]), "pgd50");
        assert_eq!(attack(&["natural", "apgd_ce"]), "pgd10");
    }
}
