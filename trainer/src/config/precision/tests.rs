use std::path::Path;

use crate::config::{Override, RunConfig};
use crate::fixtures::SMALL;

fn config(line: &str, changes: &[&str]) -> RunConfig {
    let changes: Vec<Override> = changes.iter().map(|text| text.parse().unwrap()).collect();
    RunConfig::parse(&format!("{line}\n{SMALL}"), Path::new("run.toml"), &changes).unwrap()
}

/// The file's line, what the command changes, and the words on a CPU and on a GPU.
#[test]
fn a_name_stands_for_keys_and_single_keys_override_it() {
    let tf32 = "float32, convolutions in TF32";
    for (line, changes, cpu, gpu) in [
        ("", &[][..], "reference: float32", format!("reference: {tf32}")),
        (r#"precision = "reference""#, &[], "reference: float32", format!("reference: {tf32}")),
        (r#"precision = "strict""#, &[], "strict: float32", "strict: float32".into()),
        (
            r#"precision = "fast""#,
            &[],
            "fast: float32, channels last",
            "fast: bfloat16, channels last, CUDA graphs".into(),
        ),
        ("", &["precision=fast"], "fast: float32, channels last", "fast: bfloat16, channels last, CUDA graphs".into()),
        (r#"precision = "strict""#, &["precision=reference"], "reference: float32", format!("reference: {tf32}")),
        (
            r#"precision = { name = "fast", cuda_graphs = false }"#,
            &[],
            "float32, channels last",
            "bfloat16, channels last".into(),
        ),
        (
            r#"precision = "fast""#,
            &["precision.dtype=bfloat16"],
            "bfloat16, channels last, CUDA graphs",
            "bfloat16, channels last, CUDA graphs".into(),
        ),
        (r#"precision = "strict""#, &["precision.dtype=tf32"], "float32", "float32, products in TF32".into()),
        (r#"precision = { dtype = "float64" }"#, &[], "float64", "float64".into()),
        (
            r#"precision = { name = "strict", channels_last = true }"#,
            &[],
            "float32, channels last",
            "float32, channels last".into(),
        ),
    ] {
        let config = config(line, changes);
        assert_eq!(config.precision.in_words(false), cpu, "{line} {changes:?}");
        assert_eq!(config.precision.in_words(true), gpu, "{line} {changes:?}");
        let again = RunConfig::parse(&config.resolved(), Path::new("run.toml"), &[]).unwrap();
        assert_eq!(again, config, "{line} {changes:?}");
        assert_eq!(again.resolved(), config.resolved());
    }
}

/// A run that an earlier version began has a configuration without a name, and is resumed.
#[test]
fn the_default_name_is_not_written() {
    let (plain, named) = (config("", &[]), config(r#"precision = "reference""#, &[]));
    assert_eq!((plain.hash(), plain.resolved()), (named.hash(), named.resolved()));
    assert!(!plain.resolved().contains("reference"), "{}", plain.resolved());
    assert_ne!(plain.hash(), config(r#"precision = "strict""#, &[]).hash());
}

#[test]
fn a_name_decides_where_gpus_may_round() {
    let rounds = |line: &str| {
        let on = config(line, &[]).precision.on(true);
        (on.rounds_convolutions(), on.rounds_matrices())
    };
    assert_eq!(rounds(""), (true, false));
    assert_eq!(rounds(r#"precision = "strict""#), (false, false));
    assert_eq!(rounds(r#"precision = { dtype = "tf32" }"#), (true, true));
    assert_eq!(rounds(r#"precision = { dtype = "float64" }"#), (false, false));
    assert_eq!(rounds(r#"precision = "fast""#), (false, false));
}

#[test]
fn a_name_that_is_not_known_is_refused() {
    let text = format!("precision = \"fsat\"\n{SMALL}");
    let error = RunConfig::parse(&text, Path::new("run.toml"), &[]).unwrap_err().to_string();
    assert!(error.contains("precision.name") && error.contains("did you mean `fast`"), "{error}");
}
