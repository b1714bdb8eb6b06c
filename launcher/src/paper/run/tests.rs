//! Choosing rows of a table, their order, and what their overrides make of a run file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::*;

const BASE: &str = r#"
epochs = 2
batch = { size = 8 }
data = { train = "a.h5", test = "a.h5" }
student = { architecture = "resnet8" }
loss = { preset = "iad-1" }
optimizer = { lr = 0.1, lr_policy = "reference" }
[teachers.robust]
checkpoint = "runs/teacher"
config = "teacher.toml"
"#;

const TABLE: &str = r#"
title = "A table"
set = ["epochs=3", "optimizer.lr=0.2"]

[[blocks]]
dataset = "images"
model = "resnet8"
prefix = "small_"
set = ["optimizer.lr=0.3", "batch.size=16"]

[[blocks.rows]]
name = "student"
method = "IAD-I"
teacher = "AT"
base = "base.toml"
teachers = { robust = "middle" }
set = ["batch.size=32", "loss.terms.introspect.trust="]

[[blocks.rows]]
name = "middle"
method = "IAD-I"
teacher = "ST"
base = "base.toml"
teachers = { robust = "first" }
shown = false

[[blocks.rows]]
name = "first"
method = "AT"
base = "base.toml"
set = ["loss.preset=at"]
"#;

fn read_with(seeds: &[u64], overrides: &[&str]) -> Result<PaperTable> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("table.toml");
    fs::write(&path, TABLE)?;
    fs::write(folder.path().join("base.toml"), BASE)?;
    let overrides: Vec<_> = overrides.iter().map(|text| text.parse().unwrap()).collect();
    PaperTable::read(&path, &Changes { runs: Path::new("runs"), seeds, overrides: &overrides })
}

fn names(table: &PaperTable, rows: &[usize]) -> Vec<String> {
    rows.iter().map(|&row| table.rows[row].name.clone()).collect()
}

#[test]
fn overrides_apply_from_the_table_to_the_command() {
    let table = read_with(&[], &["epochs=7"]).unwrap();
    let config = &table.rows[0].runs[0].job.config;
    assert_eq!((config.epochs, config.optimizer.lr, config.batch.size, config.seed), (7, 0.3, 32, 1));
    assert!(config.loss.terms.iter().all(|term| term.trust.is_none()), "{:?}", config.loss.terms);
    let last = &table.rows[2].runs[0].job.config;
    assert_eq!((last.batch.size, last.teachers.len()), (16, 0));
}

#[test]
fn teachers_are_the_runs_of_the_same_seed() {
    let table = read_with(&[1, 5], &[]).unwrap();
    for (run, name, teacher) in
        [(0, "small_student", "runs/small_middle"), (1, "small_student-seed5", "runs/small_middle-seed5")]
    {
        let run = &table.rows[0].runs[run];
        assert_eq!(run.name, name);
        let teachers = &run.job.config.teachers;
        assert_eq!(teachers["robust"].checkpoint, PathBuf::from(teacher));
        // The table makes the teacher, not the run file's own configuration of one.
        assert_eq!(teachers["robust"].config, None);
    }
    assert_eq!(table.rows[0].runs[1].job.config.seed, 5);
}

#[test]
fn rows_are_chosen_with_all_their_teachers_first() {
    let table = read_with(&[], &[]).unwrap();
    let chosen =
        |only: &[&str]| plan::choose(&table, &only.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    let all = chosen(&[]);
    assert_eq!(names(&table, &all.with_teachers), ["small_first", "small_middle", "small_student"]);
    let one = chosen(&["student"]);
    assert_eq!((names(&table, &one.rows), one.with_teachers.len()), (vec!["small_student".to_string()], 3));
    assert_eq!(names(&table, &chosen(&["first"]).with_teachers), ["small_first"]);
    assert_eq!(names(&table, &chosen(&["first", "ST"]).rows), ["small_middle", "small_first"]);
}

/// The name of one method begins that of another.
#[test]
fn a_method_by_its_whole_name_is_that_method_alone() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/paper/small.toml");
    let table = PaperTable::read(&path, &Changes { runs: Path::new("runs"), seeds: &[], overrides: &[] }).unwrap();
    let chosen = |text: &str| plan::choose(&table, &[text.to_string()]).unwrap();
    let all = chosen("IAD-I").with_teachers;
    assert_eq!(names(&table, &all), ["fashion_resnet8_at", "fashion_resnet8_iad1_at"]);
    assert!(names(&table, &chosen("IAD").rows).len() == 2, "{:?}", chosen("IAD"));
}
