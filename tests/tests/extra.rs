//! `data.extra`: images of another container in every batch, the same on any ranks, resumed anywhere.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use datasets::{About, Container, Layout, Memory, Source, Split, write_from};
use serde_json::{Value, json};
use tests::{Images, Program, World, assert_same_run, largest_difference, metrics, tell, tensors};

/// Training images, of which a step of 16 has five.
const ORIGINALS: usize = 60;
const GENERATED: usize = 90;
/// As an imported `.npz` file names classes.
const NUMBERS: [&str; 4] = ["0", "1", "2", "3"];

/// `count` images of these classes in `NAME.h5`, in a training split alone.
fn generated(world: &World, name: &str, count: usize, shape: [usize; 3], classes: &[&str]) -> Result<PathBuf> {
    let path = world.path(&format!("{name}.h5"));
    let classes: Vec<String> = classes.iter().map(ToString::to_string).collect();
    let pixels = (0..count * shape.iter().product::<usize>()).map(|place| (place * 7919 / 16) as u8).collect();
    let labels = (0..count).map(|sample| (sample % classes.len()) as i64).collect();
    let images = Memory::new(shape, classes.clone(), pixels, labels)?;
    datasets::write(&path, name, "made for a test", &classes, &[(Split::Train, &images)])?;
    Ok(path)
}

fn usual(world: &World) -> Result<PathBuf> {
    generated(world, "generated", GENERATED, [3, 16, 16], &NUMBERS)
}

fn extra(file: &Path) -> String {
    format!("{{ file = {:?}, fraction = 0.7 }}", file.display().to_string())
}

/// The recipe of `configs/leading/cifar10_wrn_generated.toml` for a tiny network in double precision: two epochs of four steps.
fn recipe(world: &World, file: &Path) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(ORIGINALS))?;
    let optimizer = r#"{ lr = 0.05, lr_policy = { one_cycle_cosine = { pct_start = 0.5 } }, nesterov = true,
        weight_decay = 5e-4, no_weight_decay = ["batch_norm"] }"#;
    let changes = [
        ("epochs", "2"),
        ("data.augment", "{ crop = 2, flip = true }"),
        ("data.extra", &extra(file)),
        ("student", r#"{ architecture = "resnet8", normalize = "cifar10" }"#),
        ("attack", r#"{ eps = "8/255", step = "2/255", steps = 2 }"#),
        ("batch_norm.across_ranks", "\"sync\""),
        ("loss.preset", "\"trades-ls\""),
        ("optimizer", &optimizer.replace('\n', " ")),
        ("averages.ema", r#"{ decay = 0.995, warm_up = 0.25, statistics = "student" }"#),
        ("precision.dtype", "\"float64\""),
    ];
    world.config("recipe", &data, &changes)
}

fn losses(run: &Path) -> Result<Vec<f64>> {
    let events = metrics(run)?;
    let steps = events.iter().filter(|event| event["event"] == "step");
    steps.map(|step| step["loss"].as_f64().context("a loss that is not a number")).collect()
}

fn weights(run: &Path, name: &str) -> PathBuf {
    run.join(format!("checkpoints/{name}.safetensors"))
}

#[test]
fn a_small_form_of_the_recipe_trains_and_resumes_within_an_epoch() -> Result<()> {
    let world = World::new()?;
    let config = recipe(&world, &usual(&world)?)?;
    let whole = world.run("whole");
    let said = Program::alone().train(&config, &whole).run()?.expect(0).said;
    assert!(said.contains("11 of each step drawn from 90 extra images; 2 epochs of 4 steps"), "{said}");
    let losses_of_whole = losses(&whole)?;
    assert_eq!(losses_of_whole.len(), 8);

    // To the bit on as many ranks as before.
    for ranks in [1, 2] {
        let broken = world.run(&format!("broken-{ranks}"));
        let mut whole = whole.clone();
        if ranks > 1 {
            whole = world.run(&format!("whole-{ranks}"));
            Program::on(ranks).train(&config, &whole).run()?.expect(0);
        }
        Program::on(ranks).train(&config, &broken).stop_after(6).run()?.expect(85);
        Program::on(ranks).train(&config, &broken).run()?.expect(0);
        assert_same_run(&whole, &broken, &format!("resumed on {ranks} ranks"))?;
        assert!(fs::read(weights(&whole, "ema"))? == fs::read(weights(&broken, "ema"))?, "the averages differ");
    }
    // Up to rounding on others.
    let elastic = world.run("elastic");
    Program::on(2).train(&config, &elastic).stop_after(3).run()?.expect(85);
    Program::on(3).train(&config, &elastic).run()?.expect(0);
    for (step, (one, other)) in losses_of_whole.iter().zip(&losses(&elastic)?).enumerate() {
        assert!((one - other).abs() <= 1e-9 * one.abs(), "step {}: a loss of {one} on 1 rank, {other}", step + 1);
    }
    for name in ["final", "ema"] {
        let (one, other) = (tensors(&weights(&whole, name))?, tensors(&weights(&elastic, name))?);
        let (difference, tensor) = largest_difference(&one, &other)?;
        tell(&format!("2, then 3 ranks, and 1 rank: {name} weights differ by {difference:.2e} ({tensor})"));
        assert!(difference <= 1e-9, "{name}: {tensor} differs by {difference:e}");
    }
    Ok(())
}

/// The container of `path` in compressed chunks.
fn compressed(path: &Path) -> Result<PathBuf> {
    let to = path.with_extension("chunks.h5");
    let train = Container::open(path, Split::Train)?;
    let about = About { name: "chunks".into(), class_names: train.class_names().to_vec(), ..About::default() };
    let layout = Layout { chunk: Some(7), compress: Some(4), threads: Some(1) };
    write_from(&to, &about, &[(Split::Train, &train as &dyn Source)], &layout)?;
    Ok(to)
}

#[test]
fn what_stands_in_a_batch_is_said_and_does_not_depend_on_how_it_is_read() -> Result<()> {
    let world = World::new()?;
    let file = usual(&world)?;
    let data = world.images("data", Images::colour(ORIGINALS))?;
    let config = world.config(
        "short",
        &data,
        &[("data.extra", &extra(&file)), ("data.augment.crop", "2"), ("data.augment.flip", "true")],
    )?;
    let run = world.run("run");
    Program::alone().train(&config, &run).run()?.expect(0);
    let events = metrics(&run)?;
    let started = &events[0];
    assert_eq!((&started["train_images"], &started["steps_per_epoch"]), (&json!(ORIGINALS), &json!(4)), "{started}");
    let expected = json!({ "images": GENERATED, "per_step": 11, "images_per_class": [23, 23, 22, 22] });
    assert_eq!(started["extra"], expected);
    let warned = |part: &str| {
        events.iter().any(|event| event["event"] == "warned" && event["message"].to_string().contains(part))
    };
    assert!(warned("label i is taken for class i of data.train"), "{events:?}");
    // Every batch is full: four of 16 images.
    let epoch = events.iter().find(|event| event["event"] == "epoch").context("an epoch")?;
    assert_eq!(epoch["counts"]["student_natural"]["of"], json!(64), "{epoch}");

    let other = world.run("other");
    let program = Program::alone().train(&config, &other).set("data.extra.file", compressed(&file)?.display());
    let program = program.set("data.reading", "streaming").set("data.window_mib", 1).set("data.threads", 3);
    program.run()?.expect(0);
    assert_same_run(&run, &other, "read in chunks")?;

    // What is planned is what was done, also before the images are there.
    let plan = |file: &Path| -> Result<Value> {
        let program = Program::alone().args(["plan", "--json"]).args([&config]);
        let said = program.set("data.extra.file", file.display()).run()?.expect(0).said;
        serde_json::from_str(&said).with_context(|| said)
    };
    let (there, missing) = (plan(&file)?, plan(&world.path("later.h5"))?);
    for plan in [&there, &missing] {
        let steps = &plan["steps"];
        assert_eq!((&steps["images"], &steps["extra"], &steps["per_epoch"]), (&json!(16), &json!(11), &json!(4)));
    }
    assert_eq!(there["images"]["extra"]["images"], json!(GENERATED));
    assert_eq!(there["images"]["extra"]["bytes"], json!(fs::metadata(&file)?.len()));
    assert_eq!(missing["training_operations"], there["training_operations"]);
    let said = missing["warnings"].to_string();
    assert!(said.contains("later.h5") && said.contains("iad-launch data import npz --from FILE.npz"), "{said}");
    Ok(())
}

#[test]
fn generated_images_take_part_in_the_classes_of_the_run() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(ORIGINALS))?;
    let names = ["pattern 3", "pattern 2", "pattern 1", "pattern 0"];
    let file = generated(&world, "named", 42, [3, 16, 16], &names)?;
    let config = world.config("named", &data, &[("data.extra", &extra(&file))])?;
    let of = |run: &str, classes: &str| -> Result<Vec<Value>> {
        let run = world.run(run);
        let program = Program::alone().train(&config, &run).set("data.subset.classes", classes).stop_after(1);
        program.run()?.expect(85);
        metrics(&run)
    };
    // Class 0 is the first name of the file, of the four with 11, 11, 10 and 10 images.
    let events = of("two", r#"["pattern 2", "pattern 0"]"#)?;
    let (started, said) = (&events[0]["extra"], format!("{events:?}"));
    assert_eq!((&started["images"], &started["images_per_class"]), (&json!(21), &json!([11, 10])), "{started}");
    assert!(said.contains("21 of 42 images are of the classes of this run"), "{said}");
    Ok(())
}

#[test]
fn mistakes_are_named_before_training() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(ORIGINALS))?;
    let file = usual(&world)?;
    let config = world.config("short", &data, &[("data.extra", &extra(&file))])?;
    let missing = world.path("edm1m.h5").display().to_string();
    let larger = generated(&world, "larger", 8, [3, 32, 32], &NUMBERS)?.display().to_string();
    let unknown = generated(&world, "unknown", 8, [3, 16, 16], &["pattern 0", "cat"])?.display().to_string();
    let more = generated(&world, "more", 8, [3, 16, 16], &["0", "1", "2", "3", "4"])?.display().to_string();
    let command = format!("iad-launch data import npz --from FILE.npz --to {missing}");
    for (key, value, parts) in [
        ("data.extra.fraction", "0", &["data.extra.fraction is 0", "a share between 0 and 1", "next:"][..]),
        ("data.extra.fraction", "1", &["data.extra.fraction is 1", "a share between 0 and 1"]),
        ("data.extra.fraction", "0.01", &["0 of the 16 images of a step", "raise batch.size"]),
        ("data.extra.fraction", "0.99", &["16 of the 16 images of a step", "an image of either kind"]),
        ("batch.size", "1", &["1 of the 1 images of a step"]),
        ("data.extra.factor", "1", &["data.extra.factor", "`fraction`"]),
        ("data.extra.file", &missing, &["edm1m.h5", "data.extra.file is missing", &command]),
        (
            "data.extra.file",
            &larger,
            &["larger.h5", "images of [3, 32, 32]", "images of [3, 16, 16], as in data.train"],
        ),
        ("data.extra.file", &unknown, &["unknown.h5", "class \"cat\"", "pattern 0, pattern 1", "match_classes"]),
        ("data.extra.file", &more, &["more.h5", "images of 5 classes", "at most the 4 classes"]),
    ] {
        let run = world.run("refused");
        Program::alone().train(&config, &run).set(key, value).run()?.expect(2).expect_error(parts);
        assert!(!run.exists(), "{key} = {value}");
    }
    // In batches of each rank, the ranks decide.
    let run = world.run("per-rank");
    let program = || Program::under_mpirun(2).train(&config, &run).set("batch.per", "rank").set("batch.size", 1);
    program().set("data.extra.fraction", "0.9").run()?.expect(2).expect_error(&["2 of the 2 images of a step"]);
    fs::remove_dir_all(&run)?;
    program().set("data.extra.fraction", "0.5").stop_after(1).run()?.expect(85);
    Ok(())
}

#[test]
fn swapped_images_are_refused_and_moved_ones_are_not() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(ORIGINALS))?;
    let (file, run) = (usual(&world)?, world.run("run"));
    let config = world.config("short", &data, &[("data.extra", &extra(&file))])?;
    Program::alone().train(&config, &run).stop_after(1).run()?.expect(85);
    assert!(fs::read_to_string(run.join("inputs.toml"))?.contains("the images of data.extra.file"));

    let moved = world.path("moved.h5");
    fs::rename(&file, &moved)?;
    generated(&world, "generated", GENERATED + 1, [3, 16, 16], &NUMBERS)?;
    let swapped = Program::alone().train(&config, &run).run()?.expect(2);
    swapped.expect_error(&["the images of data.extra.file", "other contents", "put the old file back"]);
    let other = Program::alone().train(&config, &run).set("data.extra.fraction", "0.5").run()?.expect(2);
    other.expect_error(&["data.extra.fraction = 0.7 there, 0.5 now"]);
    Program::alone().train(&config, &run).set("data.extra.file", moved.display()).run()?.expect(0);
    Ok(())
}
