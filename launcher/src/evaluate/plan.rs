//! The plan of an evaluation: the request that a command line makes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use datasets::{Choice, Source, UserError, refuse_existing};
use trainer::config::{ClassMatching, Dtype, Evaluation, Pixels, Protocol, Reading, Selection, Suite};
use trainer::evaluate::request::{EvaluatedWeights, EvaluationData, EvaluationFiles, EvaluationRequest};
use trainer::run::folder::RunFolder;
use trainer::run::prepare::{first_images, open_test};
use trainer::weights::checkpoint;
use trainer::weights::foreign::{import_command, what_it_is};
use trainer::weights::script::is_script;

use super::choose::choose_weights;
use crate::command::Eval;

/// The seed of attacks on weights without a configuration.
const SEED: u64 = 1;

/// The settings of a run folder, or the defaults for a file of weights.
struct Settings {
    run: String,
    weights: EvaluatedWeights,
    data: PathBuf,
    subset: Option<Choice>,
    reading: Reading,
    evaluation: Evaluation,
    seed: u64,
    dtype: Dtype,
    /// The folder of the results, and the first part of their name.
    results: (PathBuf, String),
}

/// The evaluations that `command` asks for: one, or one for each radius above 0. With `verify`, the images are compared with
/// their checksums.
///
/// # Errors
/// A mistake of the user.
pub(super) fn plan(command: &Eval, verify: bool) -> Result<Vec<EvaluationRequest>> {
    let settings = if command.run.is_file() { of_file(command)? } else { of_run(command)? };
    let radii = radii(command)?;
    let protocols: Vec<Protocol> = radii.iter().map(|eps| protocol(command, *eps, &settings)).collect::<Result<_>>()?;
    let suite = suite(command, &settings)?;
    check_radius_0(command, &suite)?;
    for target in [&command.csv, &command.save_adversarial].into_iter().flatten() {
        refuse_existing(target)?;
    }
    let source = images(command, &settings, verify)?;
    let request = |(eps, protocol): (&Option<Pixels>, Protocol)| EvaluationRequest {
        run: settings.run.clone(),
        command: again(command, *eps),
        weights: settings.weights.clone(),
        data: EvaluationData { source: Arc::clone(&source), file: settings.data.clone() },
        suite: suite.clone(),
        protocol,
        dtype: settings.dtype,
        outputs: EvaluationFiles {
            results: results_file(command, *eps, &settings),
            adversarial: command.save_adversarial.clone(),
            keeps_journal: false,
        },
    };
    Ok(radii.iter().zip(protocols).map(request).collect())
}

/// The beginning of a command that evaluates the same network on the same images within `eps` again, up to the attacks.
fn again(command: &Eval, eps: Option<Pixels>) -> String {
    let mut words = vec![format!("iad-launch eval {}", command.run.display())];
    words.extend(command.weights.map(|weights| format!("--weights {}", format!("{weights:?}").to_lowercase())));
    words.extend(command.data.as_ref().map(|data| format!("--data {}", data.display())));
    words.extend(command.images.map(|count| format!("--images {count}")));
    if command.match_classes == ClassMatching::Order {
        words.push("--match-classes order".into());
    }
    words.extend(command.norm.map(|norm| format!("--norm {norm}")));
    words.extend(eps.map(|eps| format!("--eps {eps}")));
    words.join(" ")
}

/// The radii above 0, or `None` for the one of the settings. At 0 nothing is attacked, so any of the others has its number.
fn radii(command: &Eval) -> Result<Vec<Option<Pixels>>, UserError> {
    let radii: Vec<Option<Pixels>> = command.eps.iter().copied().filter(|eps| eps.0 != 0.0).map(Some).collect();
    let refused = |expected: &str| Err(refused_radii(command, expected));
    if command.eps.is_empty() {
        return Ok(vec![None]);
    }
    if radii.is_empty() {
        return refused("a radius above 0, alone or beside 0; for the natural accuracy alone use --suite natural");
    }
    if radii.len() > 1 && (command.csv.is_some() || command.save_adversarial.is_some()) {
        return refused("one radius with --csv or --save-adversarial, which write one file");
    }
    Ok(radii)
}

/// Refuses radius 0 where nothing measures the accuracy there.
fn check_radius_0(command: &Eval, suite: &Suite) -> Result<(), UserError> {
    if command.eps.iter().all(|eps| eps.0 != 0.0) || suite.attacks.iter().any(|attack| attack.name == "natural") {
        return Ok(());
    }
    Err(refused_radii(command, "natural in --suite, which is the accuracy at radius 0"))
}

fn refused_radii(command: &Eval, expected: &str) -> UserError {
    let given: Vec<String> = command.eps.iter().map(ToString::to_string).collect();
    UserError::expected(expected).key("--eps").value(given.join(","))
}

fn suite(command: &Eval, settings: &Settings) -> Result<Suite, UserError> {
    let names = command.suite.as_ref().unwrap_or(&settings.evaluation.suite);
    let suite = Suite::named(names.iter().map(String::as_str)).map_err(|name| {
        let error =
            UserError::expected(format!("{}, each once", Suite::NAMES)).key("--suite").value(format!("{name:?}"));
        match Suite::nearest(&name).filter(|near| *near != name) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error,
        }
    })?;
    if suite.attacks.is_empty() {
        return Err(UserError::expected(Suite::NAMES).key("--suite").value("empty"));
    }
    Ok(suite)
}

fn images(command: &Eval, settings: &Settings, verify: bool) -> Result<Arc<dyn Source>> {
    let source = open_test(&settings.data, settings.subset.as_ref(), settings.reading, verify)?;
    // What a run says of its own images may be too much for others.
    let of_run = settings.evaluation.images.map(|count| count.min(source.len()));
    match command.images.map(|count| count as usize).or(of_run) {
        Some(count) => Ok(first_images(&source, count, &settings.data, "--images")?),
        None => Ok(source),
    }
}

/// The file of the results. Its name states every setting that differs, so that no evaluation replaces another.
fn results_file(command: &Eval, eps: Option<Pixels>, settings: &Settings) -> PathBuf {
    let (folder, name) = &settings.results;
    let mut parts = vec![name.clone()];
    parts.extend(command.images.map(|count| format!("first{count}")));
    parts.extend(command.weights.map(|_| settings.weights.name.clone()));
    parts.extend(command.suite.as_ref().map(|names| names.join("+")));
    let stem = || settings.data.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    parts.extend(command.data.as_ref().map(|_| stem()));
    if command.match_classes == ClassMatching::Order {
        parts.push("by_order".into());
    }
    parts.extend(command.norm.map(|norm| norm.to_string()));
    parts.extend(eps.map(|eps| format!("eps{}", eps.to_string().replace('/', "_"))));
    parts.extend(command.batch.map(|batch| format!("batch{batch}")));
    parts.extend(command.precision.map(|precision| precision.name().to_string()));
    parts.extend(command.seed.map(|seed| format!("seed{seed}")));
    command.out.as_ref().unwrap_or(folder).join(parts.join("-") + ".json")
}

fn protocol(command: &Eval, eps: Option<Pixels>, settings: &Settings) -> Result<Protocol> {
    let mut protocol = Protocol::stated(&settings.evaluation, command.seed.unwrap_or(settings.seed));
    if let Some(norm) = command.norm.filter(|norm| *norm != protocol.norm) {
        let (eps, step) = norm.of_evaluation();
        (protocol.norm, protocol.eps, protocol.step) = (norm, eps.0, step.0);
    }
    if let Some(eps) = eps {
        if !protocol.norm.allows(eps) {
            return Err(UserError::expected(protocol.norm.lengths()).key("--eps").value(eps).into());
        }
        protocol.eps = eps.0;
    }
    if let Some(batch) = command.batch {
        if !((16..=65_536).contains(&batch) && batch.is_multiple_of(16)) {
            return Err(UserError::expected("a multiple of 16 up to 65,536").key("--batch").value(batch).into());
        }
        protocol.batch = batch;
    }
    protocol.precision = command.precision.unwrap_or(protocol.precision);
    if !protocol.precision.is_default() && settings.dtype == Dtype::Float64 {
        let expected = "float32 for a run in float64, which is evaluated in float64";
        return Err(UserError::expected(expected).key("--precision").value(protocol.precision.name()).into());
    }
    Ok(protocol)
}

fn of_run(command: &Eval) -> Result<Settings> {
    let folder = RunFolder::at(&command.run);
    let config = folder.config()?;
    let (name, file) = choose_weights(&folder, command.weights)?;
    let selection = config.evaluation.selection.name();
    let data = match &command.data {
        Some(data) => data.clone(),
        None if config.data.test.exists() => config.data.test,
        None => {
            return Err(UserError::expected("the images of the run, at the path that its configuration gives")
                .file(&config.data.test)
                .key("data.test")
                .value("missing")
                .hint("add --data FILE.h5, or start the command in the folder from which the run was started")
                .into());
        }
    };
    Ok(Settings {
        run: folder.name(),
        weights: EvaluatedWeights { name: name.to_string(), file, selection, match_classes: command.match_classes },
        data,
        subset: config.data.subset,
        reading: config.data.reading,
        seed: config.seed,
        dtype: config.precision.dtype.of_evaluation(),
        evaluation: config.evaluation,
        results: (folder.path, "evaluation".into()),
    })
}

/// A file of weights without a run: the settings are the defaults of a configuration.
fn of_file(command: &Eval) -> Result<Settings> {
    let path = &command.run;
    if let Some(weights) = command.weights {
        let value = format!("{weights:?}").to_lowercase();
        return Err(UserError::expected("no --weights beside a file of weights").key("--weights").value(value).into());
    }
    if !is_script(path) {
        check_weights(command)?;
    }
    let data = command.data.clone().ok_or_else(|| {
        UserError::expected("--data FILE: a file of weights does not say which images to evaluate it on")
            .file(path)
            .hint("add --data FILE.h5, or name the run folder instead of a file in it")
    })?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(Settings {
        run: stem.clone(),
        weights: EvaluatedWeights {
            name: stem.clone(),
            file: path.clone(),
            selection: Selection::None.name(),
            match_classes: command.match_classes,
        },
        data,
        subset: None,
        reading: Reading::default(),
        evaluation: Evaluation::default(),
        seed: SEED,
        dtype: Dtype::default(),
        results: (folder.to_path_buf(), format!("{stem}-evaluation")),
    })
}

/// Refuses a file that does not hold weights of this program, with the command that imports it.
fn check_weights(command: &Eval) -> Result<(), UserError> {
    let path = &command.run;
    let Err(problem) = checkpoint::read(path) else { return Ok(()) };
    let found = what_it_is(path, &problem);
    let refused = UserError::expected("a file of weights of this program, or a TorchScript file");
    let refused = refused.file(path).key("the file").value(found);
    let image = |data: &PathBuf| Some(datasets::summarise(data).ok()?.splits.first()?.shape);
    let image = command.data.as_ref().and_then(image).unwrap_or([3, 32, 32]);
    Err(match import_command(path, image) {
        Some(command) => refused.hint(format!(
            "import it once with `{command}`, and evaluate the file it makes; or save a network of any other kind as \
             TorchScript: docs/evaluation.md"
        )),
        None => refused.hint("`iad-launch weights info FILE` says what it is"),
    })
}
