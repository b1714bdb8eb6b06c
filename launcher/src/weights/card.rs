//! The model card beside an exported network: what it is, how it was trained and measured, and how to load it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;
use toml::Table;
use trainer::run::folder::RunFolder;
use trainer::system::files::{read_regular, read_text};
use trainer::weights::foreign::{ExportFormat, Exported};

/// The file of the card of an exported file.
pub(super) fn card_file(exported: &Path) -> PathBuf {
    let mut name = exported.as_os_str().to_owned();
    name.push(".md");
    name.into()
}

/// The text of the card of `to`. Its numbers, configuration and teachers come from the run folder, if there is one.
pub(super) fn card(made: &Exported, to: &Path, run: Option<&RunFolder>) -> Result<String> {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let title = run.map_or_else(|| name.to_string(), |run| format!("{name}, of the run {}", run.name()));
    let mut text = format!("# {title}\n\n");
    let classes = if made.class_names.is_empty() {
        format!("{}, without names", made.form.classes)
    } else {
        made.class_names.join(", ")
    };
    let [channels, height, width] = made.form.image;
    let normalization = match made.form.normalization() {
        Some((mean, deviation)) => format!("inside the network: mean {mean:?}, deviation {deviation:?}"),
        None => "none".into(),
    };
    for (key, value) in [
        ("network", made.form.architecture.to_string()),
        ("takes", format!("images `[N, {channels}, {height}, {width}]`, float, in [0, 1]")),
        ("gives", format!("logits `[N, {}]`", made.form.classes)),
        ("classes", classes),
        ("normalisation", normalization),
        ("steps of training", made.step.to_string()),
        ("SHA-256 of the weights", made.sha256[0].clone()),
        ("SHA-256 of this file", made.sha256[1].clone()),
        ("program", format!("iad-launch {}", env!("CARGO_PKG_VERSION"))),
    ] {
        writeln!(text, "* {key}: {value}")?;
    }
    write!(text, "\n## Load it\n\n```python\n{}```\n", snippet(made, &name))?;
    if let Some(run) = run {
        let evaluations = evaluations(run, &made.sha256[0]);
        if !evaluations.is_empty() {
            write!(text, "\n## Results\n\n{}", evaluations.concat())?;
        }
        write!(text, "{}", teachers(run))?;
        let config = read_text(&run.file("run.toml"))?;
        write!(text, "\n## Configuration\n\n```toml\n{}\n```\n", config.trim_end())?;
    }
    Ok(text)
}

/// A Python program that loads the file in its folder.
fn snippet(made: &Exported, name: &str) -> String {
    let [channels, height, width] = made.form.image;
    let images = format!("torch.rand(2, {channels}, {height}, {width})");
    match made.format {
        ExportFormat::TorchScript => format!(
            "import torch\n\nnetwork = torch.jit.load({name:?}).eval()\nlogits = network({images})    # images in [0, 1]\n\
             print(logits.argmax(1))\n"
        ),
        ExportFormat::Onnx => format!(
            "import numpy\nimport onnxruntime\n\nsession = onnxruntime.InferenceSession({name:?})\n\
             images = numpy.random.rand(2, {channels}, {height}, {width}).astype(\"float32\")    # in [0, 1]\n\
             (logits,) = session.run(None, {{\"images\": images}})\nprint(logits.argmax(1))\n"
        ),
        ExportFormat::Torch => format!(
            "import torch\n\nstate = torch.load({name:?}, weights_only=True)\nprint(len(state), \"tensors\")\n\
             # network.load_state_dict(state) in a PyTorch class of {}; images in [0, 1]\n",
            made.form.architecture
        ),
        ExportFormat::Safetensors => format!(
            "from safetensors.torch import load_file\n\nstate = load_file({name:?})\nprint(len(state), \"tensors\")\n\
             # network.load_state_dict(state) in a PyTorch class of {}; images in [0, 1]\n",
            made.form.architecture
        ),
    }
}

/// A section for each evaluation of these weights in the run folder.
fn evaluations(run: &RunFolder, weights: &str) -> Vec<String> {
    let entries = fs::read_dir(&run.path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    files.sort();
    let parsed = files.iter().filter_map(|file| serde_json::from_slice(&read_regular(file).ok()?).ok());
    parsed.filter(|found: &Value| found["weights_sha256"] == weights).filter_map(|found| section(&found)).collect()
}

fn section(found: &Value) -> Option<String> {
    let norm = found["norm"].as_str().unwrap_or("linf");
    let standard = match found["autoattack_standard"].as_bool() {
        Some(true) => "; AutoAttack in its standard version",
        Some(false) => "; AutoAttack not in its standard version",
        None => "",
    };
    let mut text = format!(
        "{} images of {} (SHA-256 {}); norm {norm}, eps {}, step {}, seed {}{standard}; weights selected by: {}.\n\n| attack | \
         right | of | % |\n|---|---|---|---|\n",
        found["images"],
        found["data"].as_str()?,
        found["data_sha256"].as_str()?,
        found["eps"],
        found["attack_step"],
        found["seed"],
        found["selection"].as_str()?,
    );
    let all = found["attacks"].as_array()?.iter().chain([&found["worst_case"]]);
    for attack in all {
        let (correct, of) = (attack["correct"].as_u64()?, attack["of"].as_u64()?);
        let percent = 100.0 * correct as f64 / of.max(1) as f64;
        writeln!(text, "| {} | {correct} | {of} | {percent:.2} |", attack["name"].as_str()?).ok()?;
    }
    for warning in found["warnings"].as_array()?.iter().filter_map(Value::as_str) {
        write!(text, "\nWarning: {warning}.\n").ok()?;
    }
    text.push('\n');
    Some(text)
}

/// The teachers of the last session, by the SHA-256 of their files.
fn teachers(run: &RunFolder) -> String {
    let found = || -> Option<String> {
        let environment: Table = read_text(&run.file("environment.toml")).ok()?.parse().ok()?;
        let session = environment.get("session")?.as_array()?.last()?;
        let teachers = session.get("teachers_sha256")?.as_table()?;
        let lines = teachers.iter().map(|(name, hash)| format!("* {name}: SHA-256 {}\n", hash.as_str().unwrap_or("")));
        Some(format!("\n## Teachers\n\n{}", lines.collect::<String>()))
    };
    found().unwrap_or_default()
}
