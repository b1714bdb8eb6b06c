//! Several seeds of one configuration: a run for each, resumed by the same command, with mean and deviation.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Images, Program, World, assert_same_run};

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn correct(run: &Path) -> Result<f64> {
    let evaluation: Value = serde_json::from_str(&fs::read_to_string(run.join("evaluation.json"))?)?;
    let attack = &evaluation["attacks"][0];
    let share = |key: &str| attack[key].as_f64().context("a count");
    Ok(100.0 * share("correct")? / share("of")?)
}

#[test]
fn a_run_for_each_seed_is_trained_and_resumed_by_the_same_command() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let config = world.config("short", &data, &[])?;
    let runs = world.path("runs/short");
    let train = || Program::alone().train(&config, &runs).args(["--seeds", "3,4"]);
    train().stop_after(1).run()?.expect(85);
    assert!(runs.join("seed-3/run.toml").exists() && !runs.join("seed-4").exists());
    let ended = train().run()?.expect(0);
    assert!(ended.said.contains("going on from step 1"), "{}", ended.said);
    assert!(ended.said.contains("over the runs of several seeds") && ended.said.contains("2 (3, 4)"), "{}", ended.said);
    assert!(runs.join("report.html").is_file() && fs::read_to_string(runs.join("report.html"))?.contains("over seeds"));

    // A run of a seed is the run that the seed alone makes.
    let alone = world.path("alone/seed-4");
    Program::alone().train(&config, &alone).set("seed", 4).run()?.expect(0);
    assert_same_run(&alone, &runs.join("seed-4"), "a seed alone and among others")?;
    assert_eq!(fs::read_to_string(alone.join("run.toml"))?, fs::read_to_string(runs.join("seed-4/run.toml"))?);

    // The file may name the seeds, and more can be added, on more ranks too.
    let in_file = world.config("in-file", &data, &[("seeds", "[3, 4, 5]")])?;
    let ended = Program::alone().train(&in_file, &runs).starting_ranks(2).run()?.expect(0);
    assert!(ended.said.contains("seed-3 is finished") && ended.said.contains("3 (3, 4, 5)"), "{}", ended.said);

    let right: Vec<f64> =
        ["seed-3", "seed-4", "seed-5"].iter().map(|run| correct(&runs.join(run))).collect::<Result<_>>()?;
    let mean = right.iter().sum::<f64>() / 3.0;
    let deviation = (right.iter().map(|one| (one - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
    let said = Program::alone().args(["compare", &text(&runs), "--json"]).run()?.expect(0).said;
    let found: Value = serde_json::from_str(&said)?;
    let natural = &found["over_seeds"][0]["attacks"]["natural"];
    let close = |key: &str, expected: f64| natural[key].as_f64().is_some_and(|value| (value - expected).abs() < 1e-9);
    assert!(close("mean", mean) && close("standard_deviation", deviation), "{found:#}");
    let shown = format!("{mean:.2} ± {deviation:.2}");
    for words in [&["report", &text(&runs)][..], &["compare", &text(&runs)], &["runs", &text(&world.path("runs"))]] {
        let said = Program::alone().args(words).run()?.expect(0).said;
        assert!(said.contains(&shown) && said.contains("seed-5"), "{words:?}: {said}");
    }
    let csv = Program::alone().args(["report", &text(&runs), "--csv"]).run()?.expect(0).said;
    for (statistic, value) in [("mean", mean), ("standard_deviation", deviation)] {
        let line =
            csv.lines().find(|line| line.ends_with(&format!(",{statistic},3 4 5"))).context("a line over seeds")?;
        assert!(line.starts_with("short,") && line.contains(&format!(",,,{value:.4},")), "{line} has no {value}");
    }
    let said = Program::alone().args(["report", &text(&runs), "--json"]).run()?.expect(0).said;
    let rows: Vec<Value> = serde_json::from_str(&said)?;
    let over_seeds = rows.last().context("a row")?;
    let natural = &over_seeds["attacks"]["natural"];
    assert!(rows.len() == 4 && over_seeds["seeds"] == serde_json::json!([3, 4, 5]), "{said}");
    let close = |key: &str, expected: f64| natural[key].as_f64().is_some_and(|value| (value - expected).abs() < 1e-9);
    assert!(close("mean", mean) && close("standard_deviation", deviation), "{said}");
    let latex = Program::alone().args(["report", &text(&runs), "--latex"]).run()?.expect(0).said;
    assert!(latex.contains(&format!("${mean:.2} \\pm {deviation:.2}$")), "{latex}");
    Ok(())
}

#[test]
fn seeds_share_their_teacher_and_mistakes_are_refused() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let (teacher, folder) = (world.config("teacher", &data, &[("seeds", "[8, 9]")])?, world.path("runs/teacher"));
    let quoted = |path: &Path| format!("{:?}", text(path));
    let (made, config) = (quoted(&folder), quoted(&teacher));
    let changes = [
        ("teachers.robust.checkpoint", made.as_str()),
        ("teachers.robust.config", &config),
        ("loss.terms", tests::IAD_1),
        ("student.architecture", "\"resnet8\""),
    ];
    let student = world.config("student", &data, &changes)?;
    let runs = world.path("runs/student");
    let ended = Program::alone().train(&student, &runs).args(["--seeds", "1,2"]).run()?.expect(0);
    assert_eq!(ended.said.matches("is trained first").count(), 1, "{}", ended.said);
    // A teacher is one run, of its `seed`.
    assert!(fs::read_to_string(folder.join("run.toml"))?.starts_with("seed = 1\nepochs"));

    let train = |words: &[&str]| Program::alone().args([&student]).args(words).run();
    train(&["--seeds", "1,1", "--run", &text(&runs)])?.expect(2).expect_error(&["--seeds is 1, twice"]);
    train(&["--set", "seeds=[2, 2]", "--run", &text(&runs)])?.expect(2).expect_error(&["seeds is [2, 2]", "different"]);
    let inside = runs.join("seed-1");
    train(&["--seeds", "5", "--run", &text(&inside)])?
        .expect(2)
        .expect_error(&["a folder for the runs of several seeds"]);
    train(&["--run", &text(&runs)])?.expect(2).expect_error(&["an empty or new folder"]);
    Program::alone().args(["compare", &text(&inside)]).run()?.expect(2).expect_error(&["at least two runs"]);
    Ok(())
}
