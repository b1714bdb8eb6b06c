//! Reads a configuration from a file and overrides. Errors name file, line, key and the known keys.

use std::path::{Path, PathBuf};

use anyhow::Result;
use datasets::{UserError, nearest};
use toml::Table;

use super::explain::explain;
use super::positions::{Positions, line_of};
use super::run_config::RunConfig;
use super::{Override, Teacher, norm, precision, preset, single_step};
use crate::system::files::{in_words, read_text};

impl RunConfig {
    /// Reads `path`, replaces a preset by its method, applies `overrides`, and checks every value that does not depend
    /// on the data. A run folder means the configuration that it was begun with.
    ///
    /// # Errors
    /// A [`UserError`] that names the file, the key, its value and what was expected.
    pub fn read(path: &Path, overrides: &[Override]) -> Result<Self> {
        if path.is_dir() {
            let begun = path.join("run.toml");
            return if begun.is_file() { Self::read(&begun, overrides) } else { Err(folder_instead(path).into()) };
        }
        let text = read_text(path).map_err(|error| {
            UserError::expected("a readable configuration file")
                .file(path)
                .value(if error.kind() == std::io::ErrorKind::NotFound {
                    "nothing there".into()
                } else {
                    in_words(&error)
                })
                .hint(match meant(path) {
                    Some(near) => format!("did you mean {}? configs/ has examples; {LISTS}", near.display()),
                    None => format!("configs/ has examples; {LISTS}"),
                })
        })?;
        Self::parse(&text, path, overrides)
    }

    /// The configuration of a teacher, with the changes of `teachers.NAME.set`; `None` if the teacher names none. A teacher is
    /// one run, that of `seed`.
    ///
    /// # Errors
    /// As `read`.
    pub fn of_teacher(teacher: &Teacher) -> Result<Option<Self>> {
        let changes = Override::in_table(&teacher.set);
        let read = |file| Self::read(file, &changes).map(|config| config.of_seed(config.seed));
        teacher.config.as_deref().map(read).transpose()
    }

    /// [`read`](Self::read) for the text of `path`.
    ///
    /// # Errors
    /// As `read`.
    pub fn parse(text: &str, path: &Path, overrides: &[Override]) -> Result<Self> {
        let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(0, |span| line_of(text, span.start));
            UserError::expected(format!("valid TOML ({})", error.message())).file(path).key(format!("line {line}"))
        })?;
        // A preset is chosen before other overrides change its terms.
        let (presets, others): (Vec<_>, Vec<_>) = overrides.iter().partition(|change| change.key == "loss.preset");
        let apply = |change: &&Override, table: &mut Table| change.apply(table).map_err(|error| error.file(path));
        presets.iter().try_for_each(|change| apply(change, &mut table))?;
        let preset = preset::insert(&mut table, path, !presets.is_empty())?;
        precision::spell_out_name(&mut table);
        others.iter().try_for_each(|change| apply(change, &mut table))?;
        precision::spell_out_name(&mut table);
        precision::insert_keys(&mut table);
        preset::tie_temperatures(&mut table, preset.as_deref(), overrides, path)?;
        norm::insert_lengths(&mut table);
        single_step::complete(&mut table);
        let positions = Positions::of(text);
        let changes: Vec<String> = overrides.iter().map(|change| change.place_in(&table)).collect();
        let config: Self = serde_path_to_error::deserialize(table)
            .map_err(|error| explain(&error, &changes, &positions).file(path))?;
        config.check().map_err(|error| error.file(path))?;
        Ok(config)
    }
}

/// The error for a folder that is no run folder in the place of a configuration, with the next step.
fn folder_instead(path: &Path) -> UserError {
    let hint = "name a file, as in `iad-launch configs/quickstart/quickstart.toml`, or a run folder, as in `iad-launch runs/quickstart`";
    UserError::expected("a configuration file, or a run folder with its run.toml")
        .file(path)
        .value("a folder")
        .hint(hint)
}

/// What tells the commands.
const LISTS: &str = "`iad-launch --help` lists the commands";

/// The configuration whose name is nearest to that of `path`, which is not there.
fn meant(path: &Path) -> Option<PathBuf> {
    let known = neighbours(path);
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let names: Vec<String> = known.iter().filter_map(|path| name(path)).collect();
    let near = nearest(&name(path)?, names.iter().map(String::as_str))?;
    known.iter().find(|path| path.ends_with(near)).cloned()
}

/// The configurations in the folder of `path` and in the folders of that one; where there is no such folder, in the one above.
/// Below the current directory, which may hold anything, folders are not searched.
fn neighbours(path: &Path) -> Vec<PathBuf> {
    let spelled = |folder: &Path| -> Vec<PathBuf> {
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let entries = std::fs::read_dir(here).into_iter().flatten().flatten();
        // Spelled as the user spelled it, without `./`.
        entries.map(|entry| folder.join(entry.file_name())).collect()
    };
    let Some(folder) = path.ancestors().skip(1).find(|folder| folder.as_os_str().is_empty() || folder.is_dir()) else {
        return vec![];
    };
    let (mut folders, mut files) = (vec![(folder.to_path_buf(), 0)], vec![]);
    while let Some((folder, depth)) = folders.pop() {
        let (inside, found): (Vec<_>, Vec<_>) = spelled(&folder).into_iter().partition(|path| path.is_dir());
        files.extend(found);
        if depth < 2 && !folder.as_os_str().is_empty() {
            folders.extend(inside.into_iter().map(|folder| (folder, depth + 1)));
        }
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Norm;

    const GOOD: &str = r#"
epochs = 2
batch = { size = 8 }
data = { train = "a.h5", test = "a.h5" }
student = { architecture = "resnet8" }
loss = { preset = "iad-1" }
optimizer = { lr = 0.1, lr_policy = "reference" }
[teachers.robust]
checkpoint = "runs/teacher"
"#;

    fn read(text: &str, overrides: &[&str]) -> Result<RunConfig> {
        let overrides: Vec<Override> = overrides.iter().map(|text| text.parse().unwrap()).collect();
        RunConfig::parse(text, Path::new("good.toml"), &overrides)
    }

    fn message(text: &str, overrides: &[&str]) -> String {
        let error = read(text, overrides).unwrap_err();
        assert!(error.downcast_ref::<UserError>().is_some(), "{error:?}");
        error.to_string()
    }

    #[test]
    fn what_is_resolved_reads_back_as_the_same() {
        for overrides in [
            &[][..],
            &[
                "loss.terms.introspect.trust.exponent=0.5",
                "attack.eps=0.1",
                "data.augment.crop=4",
                "data.augment.flip=true",
            ],
        ] {
            let config = read(GOOD, overrides).unwrap();
            assert_eq!(read(&config.resolved(), &[]).unwrap(), config);
        }
    }

    #[test]
    fn a_configuration_that_is_not_there_is_looked_for_in_the_folders_beside() {
        let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
        let near =
            |typed: &str| meant(&configs.join(typed)).map(|path| path.strip_prefix(&configs).unwrap().to_owned());
        for (typed, expected) in [
            ("quickstart.toml", "quickstart/quickstart.toml"),
            ("quikstart/quickstart.toml", "quickstart/quickstart.toml"),
            ("cifar10_resnet18_iad1.toml", "paper/runs/cifar10_resnet18_iad1.toml"),
            ("paper/cifar10_resnet18_iad2.toml", "paper/runs/cifar10_resnet18_iad2.toml"),
            ("wrn_cifra10.toml", "wrn_cifar10.toml"),
        ] {
            assert_eq!(near(typed).as_deref(), Some(Path::new(expected)), "{typed}");
        }
        assert_eq!(near("nothing_like_it.toml"), None);
    }

    /// Runs of versions without a norm can be resumed.
    #[test]
    fn the_norm_that_was_always_there_is_not_written() {
        let plain = read(GOOD, &[]).unwrap();
        let stated = read(GOOD, &["attack.norm=linf", "evaluation.norm=linf"]).unwrap();
        assert_eq!((stated.hash(), stated.resolved()), (plain.hash(), plain.resolved()));
        assert!(!plain.resolved().lines().any(|line| line.starts_with("norm")), "{}", plain.resolved());
    }

    #[test]
    fn lengths_in_l2_are_those_of_the_field_unless_they_are_stated() {
        let config = read(GOOD, &["attack.norm=l2", "evaluation.norm=l2"]).unwrap();
        assert_eq!(
            (config.attack.norm, config.attack.eps.0, config.attack.step.0),
            (Norm::L2, 128.0 / 255.0, 15.0 / 255.0)
        );
        let evaluation = &config.evaluation;
        assert_eq!((evaluation.norm, evaluation.eps.0, evaluation.step.0), (Norm::L2, 0.5, 15.0 / 255.0));
        assert_eq!(read(&config.resolved(), &[]).unwrap(), config);
        let config = read(GOOD, &["attack.norm=l2", "attack.eps=1.5"]).unwrap();
        assert_eq!((config.attack.eps.0, config.evaluation.norm), (1.5, Norm::Linf));
        assert_ne!(config.hash(), read(GOOD, &["attack.eps=1", "attack.step=15/255"]).unwrap().hash());
    }

    #[test]
    fn every_preset_is_valid_toml() {
        for name in preset::names() {
            let text = GOOD.replace("iad-1", name) + "[teachers.standard]\ncheckpoint = \"runs/standard\"\n";
            // A learner begins within the run.
            let begins = ["learners.tutor.from_epoch=1", "loss.terms.tutor-label.from_epoch=1"];
            let changes: &[&str] = if name == "ciard" { &begins } else { &[] };
            assert!(!read(&text, changes).unwrap().loss.terms.is_empty(), "{name}");
        }
    }

    #[test]
    fn overrides_reach_terms_by_number_and_name() {
        let weight = |key: &str| read(GOOD, &[&format!("{key}=3")]).unwrap().loss.terms[2].weight;
        assert_eq!((weight("loss.terms.2.weight"), weight("loss.terms.introspect.weight")), (3.0, 3.0));
        assert_eq!(read(GOOD, &["loss.terms.label.weight=3", "loss.preset=at"]).unwrap().loss.terms[0].weight, 3.0);
        assert_eq!(read(GOOD, &["student.architecture=convnet"]).unwrap().student.architecture.to_string(), "convnet");
    }

    #[test]
    fn mistakes_are_named_with_key_value_and_way_out() {
        let with = |line: &str| format!("{line}\n{GOOD}");
        for (text, overrides, parts) in [
            (with("epoch = 3"), &[][..], &["good.toml", "epoch (line 1)", "`epochs`"][..]),
            (GOOD.replace("lr = 0.1", "lr = \"x\""), &[], &["optimizer.lr", "a number", "\"x\""]),
            (GOOD.replace("epochs = 2\n", ""), &[], &["the key `epochs`, which is missing"]),
            (GOOD.replace("size = 8", "size = 0"), &[], &["batch.size is 0", "1 to 1,048,576"]),
            (GOOD.replace("resnet8", "resnet9"), &[], &["student.architecture", "resnet9", "resnet18"]),
            (
                GOOD.replace("iad-1", "iad-3"),
                &[],
                &[
                    "loss.preset",
                    "iad-3",
                    "st, at, trades, ard, ard-orig, akd2, akd2-partial, akd2-orig, iad-1, iad-1-down, iad-2, rslad, adaad, \
                     mart, trades-ls, igdm, igdm-ard, igdm-rslad",
                ],
            ),
            (GOOD.replace("epochs = 2", "epochs = ["), &[], &["line 3: expected valid TOML"]),
            (
                GOOD.replace("teachers.robust", "teachers.other"),
                &[],
                &["towards.network", "\"robust\"", "[teachers.robust]"],
            ),
            (
                GOOD.into(),
                &["student.architecture=resnet51"],
                &["student.architecture", "expected resnet18", "\"resnet51\""],
            ),
            (GOOD.into(), &["attack.eps=9"], &["attack.eps is 9", "8/255"]),
            (GOOD.into(), &["attack.norm=l1"], &["attack.norm", "`l1`", "`linf`", "`l2`"]),
            (GOOD.into(), &["evaluation.norm=l2", "evaluation.eps=2000"], &["evaluation.eps is 2000", "up to 1,000"]),
            (GOOD.into(), &["attack.nothing=9"], &["attack.nothing (from --set)", "`eps`"]),
            (
                format!("{GOOD}[checkpoint]\nevery = 1\n[metrics]\nevery = -1\n"),
                &[],
                &["metrics.every (line 13)", "a whole number"],
            ),
            (
                format!("{GOOD}[checkpoint]\nevery = 1\n[metrics]\nevery = 1\n"),
                &["metrics.every=-1"],
                &["metrics.every (from --set)"],
            ),
            (
                format!("{GOOD}[checkpoint]\nevery = 1\n[metrics]\nevery = 1\nother = 2\n"),
                &[],
                &["metrics.other (line 14)"],
            ),
            (GOOD.into(), &["loss.terms.teach.weight=much"], &["weight (from --set)", "a number"]),
            (GOOD.into(), &["epochs.x=9"], &["--set epochs.x", "a table at epochs"]),
            (GOOD.into(), &["loss.terms.other.weight=1"], &["teach, unused, introspect, label"]),
            (GOOD.into(), &["loss.terms.teach.from_epoch=1"], &["loss.terms", "from_epoch = 0"]),
            (GOOD.into(), &["attack.kind=none"], &["attack.kind is \"none\""]),
            (GOOD.into(), &["evaluation.suite=[\"pgd\"]"], &["evaluation.suite[0]", "pgdN"]),
            (GOOD.into(), &["evaluation.batch=100"], &["evaluation.batch is 100", "multiple of 16"]),
        ] {
            let message = message(&text, overrides);
            assert!(parts.iter().all(|part| message.contains(part)), "{message}\nlacks one of {parts:?}");
        }
    }
}
