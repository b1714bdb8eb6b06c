//! Tables of the paper: those that come with the program are whole, and a small one is trained, stopped, resumed and shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tests::{Ended, Images, Program, World, assert_same_run, checkout};

const TABLES: [u32; 13] = [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];

fn table(name: &str) -> PathBuf {
    checkout().join("configs/paper").join(name).with_extension("toml")
}

/// `iad-launch paper TABLE ARGUMENTS`, started in the folder of `world`.
fn paper(world: &World, table: &Path, arguments: &[&str]) -> Result<Ended> {
    Program::alone().within(&world.path("")).args(["paper"]).args([table]).args(arguments).run()
}

/// A line of a dry run: name, method, teacher, the beginning of its configuration's hash, state, PFLOP, hours.
#[derive(Debug)]
struct Listed {
    name: String,
    hash: String,
    state: String,
}

/// The runs that a dry run lists.
fn list(world: &World, table: &Path, arguments: &[&str]) -> Result<Vec<Listed>> {
    let ended = paper(world, table, &[&["--dry-run"], arguments].concat())?.expect(0);
    let lines = ended.said.lines().skip_while(|line| !line.starts_with("run ")).skip(1);
    let listed = lines.take_while(|line| !line.is_empty()).map(|line| {
        // Columns are two or more spaces apart.
        let cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        let cell = |index: usize| cells.get(index).map(ToString::to_string).context(line.to_string());
        Ok(Listed { name: cell(0)?, hash: cell(3)?, state: cell(4)? })
    });
    listed.collect()
}

/// The lines of comma-separated values after the first, by the names of its columns.
fn values(path: &Path) -> Result<Vec<BTreeMap<String, String>>> {
    let text = fs::read_to_string(path)?;
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_string).collect::<Vec<_>>());
    let columns = lines.next().context("a first line")?;
    Ok(lines.map(|cells| columns.iter().cloned().zip(cells).collect()).collect())
}

#[test]
fn a_dry_run_lists_every_row_without_any_data() -> Result<()> {
    let world = World::new()?;
    let ended = paper(&world, &table("table2"), &["--dry-run"])?.expect(0);
    assert!(ended.said.contains("20 rows of the table, 22 runs with their teachers"), "{}", ended.said);
    let rows = list(&world, &table("table2"), &[])?;
    assert_eq!(rows.len(), 22);
    for row in &rows {
        assert!(row.hash.len() == 12 && row.hash.chars().all(|digit| digit.is_ascii_hexdigit()), "{row:?}");
        assert_eq!(row.state, "missing", "{row:?}");
    }
    assert_eq!(fs::read_dir(world.path(""))?.count(), 0, "a dry run leaves nothing behind");
    Ok(())
}

/// Runs of different tables share a folder by their name: one name means one configuration, and no other name means it.
#[test]
fn a_name_is_one_configuration_in_all_tables() -> Result<()> {
    let world = World::new()?;
    let mut hashes = BTreeMap::new();
    for number in TABLES.map(|number| format!("table{number}")).iter().map(String::as_str).chain([
        "small",
        "methods",
        "methods_small",
    ]) {
        for Listed { name, hash, .. } in list(&world, &table(number), &[])? {
            let known = hashes.entry(name.clone()).or_insert_with(|| hash.clone());
            assert_eq!(*known, hash, "{name} of {number}");
        }
    }
    let different: BTreeSet<&String> = hashes.values().collect();
    assert_eq!(different.len(), hashes.len(), "two names for one configuration: {hashes:#?}");
    assert!(hashes.len() > 60, "{}", hashes.len());
    Ok(())
}

/// A preset without a row is missing from the comparison of all methods.
#[test]
fn every_preset_has_a_row_in_the_tables_of_methods() -> Result<()> {
    let world = World::new()?;
    let mut presets = BTreeSet::new();
    for entry in fs::read_dir(checkout().join("configs/losses"))? {
        let path = entry?.path();
        presets.insert(path.file_stem().and_then(|name| name.to_str()).context("a name")?.to_string());
    }
    for (name, prefix) in [("methods", "methods_cifar10_resnet18_"), ("methods_small", "methods_fashion_resnet8_")] {
        let runs = list(&world, &table(name), &["--seeds", "1"])?;
        let rows: BTreeSet<String> =
            runs.iter().filter_map(|run| run.name.strip_prefix(prefix)).map(str::to_string).collect();
        assert_eq!(rows, presets, "{name}");
        let text = fs::read_to_string(table(name))?;
        for preset in &presets {
            assert!(text.contains(&format!("\"loss.preset={preset}\"")), "{name} has no row with the loss {preset}");
        }
    }
    Ok(())
}

#[test]
fn every_published_number_stands_in_its_table_once() -> Result<()> {
    let world = World::new()?;
    let mut shown = vec![];
    for number in TABLES {
        let csv = world.path(&format!("table{number}.csv"));
        let to = csv.display().to_string();
        paper(&world, &table(&format!("table{number}")), &["--show", "--csv", &to])?.expect(0);
        for line in values(&csv)? {
            let columns = ["dataset", "model", "teacher", "method", "variant", "metric", "paper"];
            let cells: Vec<&str> = columns.iter().map(|column| line[*column].as_str()).collect();
            shown.push(format!("{number},{}", cells.join(",")));
        }
    }
    let published = fs::read_to_string(checkout().join("configs/paper/published.csv"))?;
    let mut published: Vec<String> = published.lines().skip(1).map(str::to_string).collect();
    shown.sort();
    published.sort();
    assert_eq!(shown.len(), 482);
    assert_eq!(shown, published);
    Ok(())
}

/// A table of an adversarially trained teacher and its student on small images, with two seeds.
fn small_table(world: &World) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(96))?;
    let network = ("student.architecture", "\"resnet8\"");
    let selection = [("evaluation.selection", "\"test\""), ("evaluation.suite", "[\"natural\", \"fgsm_rs\"]")];
    world.config("teacher", &data, &[&[network], &selection[..]].concat())?;
    let changes = World::distil(Path::new("nowhere"));
    let changes: Vec<(&str, &str)> = changes.iter().map(|(key, value)| (*key, value.as_str())).collect();
    // Long enough to be stopped on the way: 72 steps.
    world.config("student", &data, &[&changes[..], &selection, &[("epochs", "12")]].concat())?;
    fs::write(
        world.path("published.csv"),
        "table,dataset,model,teacher,method,variant,metric,value\n\
         1,patterns,resnet8,none,AT,main,natural,50.00\n1,patterns,resnet8,none,AT,main,aa,40.00\n\
         1,patterns,resnet8,AT,IAD-I,main,natural,60.00\n1,patterns,resnet8,AT,IAD-I,main,fgsm,30.00\n",
    )?;
    fs::write(world.path("sizes.toml"), "[patterns]\nimage = [3, 16, 16]\nclasses = 4\ntrain = 96\ntest = 32\n")?;
    let path = world.path("table.toml");
    fs::write(&path, TABLE)?;
    Ok(path)
}

const TABLE: &str = r#"
title = "A small table"
table = 1
published = "published.csv"
datasets = "sizes.toml"
seeds = [1, 2]
set = ["evaluation.final=true"]

[[blocks]]
dataset = "patterns"
model = "resnet8"
prefix = "patterns_"

[[blocks.rows]]
name = "iad1"
method = "IAD-I"
teacher = "AT"
base = "student.toml"
teachers = { robust = "at" }

[[blocks.rows]]
name = "at"
method = "AT"
base = "teacher.toml"
"#;

/// The natural accuracy of a run in percent.
fn natural(run: &Path) -> Result<f64> {
    let evaluation: serde_json::Value = serde_json::from_str(&fs::read_to_string(run.join("evaluation.json"))?)?;
    let natural = &evaluation["attacks"][0];
    assert_eq!(natural["name"], "natural");
    Ok(100.0 * natural["correct"].as_f64().context("a count")? / natural["of"].as_f64().context("a count")?)
}

fn trained_stopped_and_shown(ranks: usize) -> Result<()> {
    let world = World::new()?;
    let table = small_table(&world)?;
    let command = |runs: &Path| Program::on(ranks).args(["paper"]).args([&table]).args(["--runs"]).args([runs]);
    let (whole, broken) = (world.path("whole"), world.path("broken"));
    command(&whole).run()?.expect(0);

    let student = broken.join("patterns_iad1");
    let mut running = command(&broken).start()?;
    let recorded = || fs::read_to_string(student.join("metrics.jsonl")).unwrap_or_default();
    running.wait_until("the student's step 8", || recorded().contains("\"step\":8,"))?;
    running.signal("USR1", &[running.process()]);
    running.wait()?.expect(85);
    let states = |arguments: &[&str]| -> Result<Vec<(String, String)>> {
        let runs = broken.display().to_string();
        let listed = list(&world, &table, &[&["--runs", &runs], arguments].concat())?;
        Ok(listed.into_iter().map(|row| (row.name, row.state)).collect())
    };
    let found = states(&[])?;
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["patterns_at", "patterns_at-seed2", "patterns_iad1", "patterns_iad1-seed2"], "teachers first");
    let state = |index: usize| found[index].1.as_str();
    assert_eq!((state(0), state(1), state(3)), ("finished", "finished", "missing"));
    assert!(state(2).starts_with("epoch ") && state(2).ends_with(" of 12"), "{found:?}");
    assert_eq!(states(&["--set", "epochs=13"])?[0].1, "another configuration");

    let ended = command(&broken).run()?.expect(0);
    for name in names {
        assert_same_run(&whole.join(name), &broken.join(name), "after a stop within the table")?;
    }
    let (one, other) = (natural(&student)?, natural(&broken.join("patterns_iad1-seed2"))?);
    let (mean, deviation) = ((one + other) / 2.0, (one - other).abs() / 2f64.sqrt());
    let cells = format!("{mean:.2} ± {deviation:.2}");
    let line = ended
        .said
        .lines()
        .rev()
        .find(|line| line.starts_with("patterns_iad1 (2 of 2 seeds)") && line.contains("60.00"));
    let line = line.with_context(|| format!("no line of the student in {}", ended.said))?;
    assert!(line.contains(&cells) && line.contains(&format!("{:+.2}", mean - 60.0)), "{line}: not {cells}");
    for part in ["not measured by these runs: aa", "chosen on the test set, as in the paper"] {
        assert!(ended.said.contains(part), "{part}: {}", ended.said);
    }
    Ok(())
}

#[test]
fn a_table_is_trained_stopped_resumed_and_shown() -> Result<()> {
    trained_stopped_and_shown(1)
}

#[test]
fn a_table_is_trained_stopped_resumed_and_shown_on_two_ranks() -> Result<()> {
    trained_stopped_and_shown(2)
}

#[test]
fn parts_of_a_table_are_trained_apart() -> Result<()> {
    let world = World::new()?;
    let table = small_table(&world)?;
    let quick = ["--set", "epochs=1", "--set", "evaluation.selection=none"];
    let run = |arguments: &[&str]| paper(&world, &table, &[arguments, &quick[..]].concat());
    let is_there = |name: &str| world.path("runs/paper").join(name).join("evaluation.json").is_file();

    // Students wait for their teachers, each for that of its seed.
    let refused = run(&["--job", "2/2"])?.expect(2);
    refused.expect_error(&["--job 2/2: the teacher of patterns_iad1-seed2 is missing", "--teachers"]);
    run(&["--teachers", "--job", "2/2"])?.expect(0);
    assert!(is_there("patterns_at-seed2") && !is_there("patterns_at"));
    let ended = run(&["--job", "2/2"])?.expect(0);
    assert!(is_there("patterns_iad1-seed2") && !is_there("patterns_iad1"));
    assert!(ended.said.contains("this part is finished"), "{}", ended.said);

    // One row by its method, with the teacher that it lacks, and nothing else.
    run(&["--only", "IAD-I", "--seeds", "3"])?.expect(0);
    assert!(is_there("patterns_iad1-seed3") && is_there("patterns_at-seed3") && !is_there("patterns_at"));

    // Numbers of another configuration are not shown as the table's.
    let shown = paper(&world, &table, &["--show"])?.expect(0);
    assert!(shown.said.contains("its numbers are not used: patterns_iad1-seed2, patterns_at-seed2."), "{}", shown.said);
    assert!(!shown.said.lines().any(|line| line.starts_with("patterns_") && line.contains('±')), "{}", shown.said);
    let refused = paper(&world, &table, &[])?.expect(2);
    refused.expect_error(&["patterns_at-seed2", "evaluation.selection", "another folder"]);
    Ok(())
}

#[test]
fn mistakes_in_a_table_are_named() -> Result<()> {
    let world = World::new()?;
    small_table(&world)?;
    let student = "base = \"student.toml\"\n";
    for (good, bad, parts) in [
        ("title", "titel", &["line 2", "titel"][..]),
        ("base = \"teacher.toml\"", "base = \"gone.toml\"", &["gone.toml", "nothing there"]),
        ("name = \"at\"", "name = \"iad1\"", &["patterns_iad1", "a name of its own"]),
        ("name = \"at\"", "name = \"../at\"", &["patterns_../at", "it becomes a folder"]),
        (
            "[[blocks.rows]]\nname = \"at\"",
            "[[blocks.rows]]\nname = \"iad1-seed2\"\nmethod = \"AT\"\nbase = \"teacher.toml\"\n\n[[blocks.rows]]\nname = \"at\"",
            &["patterns_iad1-seed2", "twice"],
        ),
        ("robust = \"at\"", "robust = \"st\"", &["row patterns_iad1: teachers", "\"st\"", "a row of this table"]),
        ("robust = \"at\"", "other = \"at\"", &["row patterns_iad1", "\"robust\"", "[teachers.robust]"]),
        ("robust = \"at\"", "robust = \"iad1\"", &["row patterns_iad1: teachers", "their student"]),
        (
            student,
            &format!("{student}set = [\"epochs=0\"]\n"),
            &["bad.toml", "row patterns_iad1: epochs", "1 to 1,000,000"],
        ),
        (
            student,
            &format!("{student}set = [\"loss.terms.x.weight=2\"]\n"),
            &["row patterns_iad1: --set loss.terms.x", "teach"],
        ),
        (student, &format!("{student}set = [\"epochs\"]\n"), &["row patterns_iad1: set", "\"epochs\"", "KEY=VALUE"]),
        ("seeds = [1, 2]", "seeds = [2, 2]", &["seeds is [2, 2]", "different seeds"]),
        ("method = \"IAD-I\"", "method = \"IAD-3\"", &["row patterns_iad1", "AT,IAD-3,main", "AT,IAD-I,main"]),
        ("table = 1\n", "", &["table is missing"]),
        ("\"published.csv\"", "\"sizes.toml\"", &["sizes.toml", "line 1", "table,dataset,model"]),
    ] {
        assert!(TABLE.contains(good), "{good}");
        let path = world.path("bad.toml");
        fs::write(&path, TABLE.replace(good, bad))?;
        paper(&world, &path, &["--dry-run"])?.expect(2).expect_error(parts);
    }
    let table = world.path("table.toml");
    paper(&world, &table, &["--dry-run", "--only", "ARD"])?.expect(2).expect_error(&["--only", "ARD", "patterns_iad1"]);
    let named = Program::alone().within(checkout()).args(["paper", "table1", "--dry-run"]).run()?.expect(2);
    named.expect_error(&["the table is table1", "small, table2, table3", "table14"]);
    Ok(())
}
