//! Mistakes in a command, a configuration or the data: exit code 2 and one message with a way out, before any rank trains.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use datasets::{Container, Source, Split};
use tests::{Images, Program, World, assert_same_run, checkout, metrics};

/// A world with a data set and a configuration that is right.
struct Right {
    world: World,
    data: PathBuf,
    config: PathBuf,
}

impl Right {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let data = world.images("data", Images::colour(40))?;
        let config = world.config("right", &data, &[])?;
        Ok(Self { world, data, config })
    }

    /// Asserts that training `config` with `arguments` is refused with one message that holds `parts`, whether the program
    /// is started alone or is asked to start two ranks.
    #[track_caller]
    fn refuses(&self, config: &Path, arguments: &[&str], parts: &[&str]) -> Result<()> {
        self.refuses_by(Program::alone(), config, arguments, parts)?;
        self.refuses_by(Program::alone().starting_ranks(2), config, arguments, parts)
    }

    /// The same on two ranks that mpirun has started: one of them speaks.
    #[track_caller]
    fn refuses_under_mpirun(&self, config: &Path, arguments: &[&str], parts: &[&str]) -> Result<()> {
        self.refuses_by(Program::under_mpirun(2), config, arguments, parts)
    }

    #[track_caller]
    fn refuses_by(&self, program: Program, config: &Path, arguments: &[&str], parts: &[&str]) -> Result<()> {
        let run = self.world.run("refused");
        let ended = program.args([config]).args(arguments).args([OsString::from("--run"), run.clone().into()]).run()?;
        ended.expect(2).expect_error(parts);
        assert!(!run.exists(), "a run folder was made");
        Ok(())
    }

    /// The configuration with `line` added to it, or put in the place of `old`.
    fn edited(&self, old: &str, line: &str) -> Result<PathBuf> {
        let text = fs::read_to_string(&self.config)?;
        assert!(text.contains(old), "{old:?} does not stand in\n{text}");
        let path = self.world.path("wrong.toml");
        fs::write(&path, text.replacen(old, line, 1))?;
        Ok(path)
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_known_ones() -> Result<()> {
    let right = Right::new()?;
    let config = right.edited("[optimizer]\n", "[optimizer]\nlearning_rate = 0.1\n")?;
    let line = fs::read_to_string(&config)?.lines().position(|line| line.starts_with("learning_rate")).context("it")?;
    let line = format!("(line {})", line + 1);
    let parts = ["wrong.toml", "optimizer.learning_rate", &line, "`lr`", "`momentum`", "docs/configuration.md"];
    right.refuses(&config, &[], &parts)?;
    right.refuses_under_mpirun(&config, &[], &parts)
}

#[test]
fn what_is_not_toml_is_named_with_its_line() -> Result<()> {
    let right = Right::new()?;
    let config = right.edited("[optimizer]\n", "[optimizer\n")?;
    right.refuses(&config, &[], &["wrong.toml", "line ", "valid TOML"])
}

#[test]
fn a_value_of_another_type_is_named() -> Result<()> {
    let right = Right::new()?;
    let config = right.edited("epochs = 1\n", "epochs = \"two\"\n")?;
    right.refuses(&config, &[], &["wrong.toml", "epochs", "two", "expected", "docs/configuration.md"])
}

#[test]
fn a_value_out_of_range_is_named_with_its_range() -> Result<()> {
    let right = Right::new()?;
    for (key, value, expected) in [
        ("attack.eps", "9", "up to 1"),
        ("attack.eps", "-0.1", "above 0"),
        ("attack.steps", "0", "1 to 10,000"),
        ("optimizer.momentum", "1.5", "below 1"),
        ("optimizer.lr", "-0.1", "a positive number"),
        ("optimizer.lr", "inf", "a positive number"),
        ("batch.size", "0", "1 to 1,048,576"),
        ("batch.accumulate", "0", "1 to batch.size"),
        ("batch.accumulate", "100000", "1 to batch.size"),
        ("comm.bucket_mib", "0", "above 0"),
        ("optimizer.lr_base_batch", "0", "1 to 1,048,576"),
        ("optimizer.lr_warmup_epochs", "999", "0 (none) to epochs"),
        ("optimizer.lr_scale", "cubic", "linear"),
        ("epochs", "0", "1 to 1,000,000"),
        ("evaluation.batch", "17", "a multiple of 16"),
        ("evaluation.images", "0", "1 or more"),
        ("checkpoint.keep_last", "0", "at least 1"),
    ] {
        let change = format!("{key}={value}");
        right.refuses(&right.config, &["--set", &change], &["right.toml", key, value, expected])?;
    }
    right.refuses_under_mpirun(&right.config, &["--set", "attack.eps=9"], &["right.toml", "attack.eps is 9", "8/255"])
}

#[test]
fn an_unknown_name_is_answered_with_the_known_ones() -> Result<()> {
    let right = Right::new()?;
    for (change, parts) in [
        ("attack.kind=square", ["attack.kind", "`pgd`"]),
        ("evaluation.suite=[\"natural\", \"cw\"]", ["evaluation.suite[1] is \"cw\"", "fgsm_rs"]),
        ("student.architecture=resnet51", ["student.architecture", "wrn-DEPTH-WIDTH"]),
        ("optimizer.lr_policy=polynomial", ["optimizer.lr_policy", "`one_cycle`"]),
        (
            "attack.towards={ network = \"robust\", images = \"natural\" }",
            ["attack.towards.network", "[teachers.robust]"],
        ),
    ] {
        right.refuses(&right.config, &["--set", change], &parts)?;
    }
    let config = right.edited("preset = \"at\"", "preset = \"trade\"")?;
    right.refuses(&config, &[], &["wrong.toml", "loss.preset", "trade", "iad-1"])
}

#[test]
fn a_mistyped_name_is_answered_with_the_nearest() -> Result<()> {
    let right = Right::new()?;
    for (change, meant) in [
        ("optimiser.lr=0.1", "did you mean `optimizer.lr`?"),
        ("lr=0.1", "did you mean `optimizer.lr`?"),
        ("attack.stpes=3", "did you mean `attack.steps`?"),
        ("attack.start=uniforn", "did you mean `uniform`?"),
        ("student.architecture=resent18", "did you mean `resnet18`?"),
        ("loss.preset=iad1", "did you mean iad-1?"),
        ("evaluation.suite=natural,pdg20", "did you mean pgd20?"),
        ("loss.terms.lable.weight=1", "did you mean label?"),
        ("data.subset.count=many", "`data.subset.count` is of type integer"),
    ] {
        right.refuses(&right.config, &["--set", change], &[meant])?;
    }
    right.refuses_under_mpirun(&right.config, &["--set", "optimiser.lr=0.1"], &["did you mean `optimizer.lr`?"])?;
    for (arguments, meant) in [
        (&["evla", "runs/x"][..], "'eval'"),
        (&["data", "fetch", "cifar01", "--to", "x.h5"], "did you mean cifar10?"),
        (&["data", "import", "cifar01", "--from", ".", "--to", "x.h5"], "did you mean cifar10?"),
        (&["paper", "tabel2", "--dry-run"], "did you mean table2?"),
    ] {
        let ended = Program::alone().within(checkout()).args(arguments).run()?.expect(2);
        assert!(ended.said.contains(meant), "{arguments:?}: {}", ended.said);
    }
    Ok(())
}

/// A suite is written as `eval --suite` takes it, or as a list.
#[test]
fn a_suite_may_be_names_with_commas() -> Result<()> {
    let right = Right::new()?;
    let (by_text, by_list) = (right.world.run("by-text"), right.world.run("by-list"));
    let train = |run| Program::alone().train(&right.config, run).stop_after(1);
    train(&by_text).set("evaluation.suite", "natural,pgd2").run()?.expect(85);
    train(&by_list).set("evaluation.suite", "[\"natural\", \"pgd2\"]").run()?.expect(85);
    assert_eq!(fs::read_to_string(by_text.join("run.toml"))?, fs::read_to_string(by_list.join("run.toml"))?);
    Ok(())
}

#[test]
fn a_run_folder_in_the_place_of_a_configuration_is_resumed() -> Result<()> {
    let right = Right::new()?;
    let run = right.world.run("begun");
    Program::alone().train(&right.config, &run).stop_after(1).run()?.expect(85);
    for command in ["plan", "config"] {
        Program::alone().args([OsStr::new(command), run.as_os_str()]).run()?.expect(0);
    }
    let ended = Program::alone().args([&run]).run()?.expect(0);
    assert!(ended.said.contains("going on from step 1"), "{}", ended.said);
    let folder = right.world.path("");
    let ended = Program::alone().args([folder]).run()?.expect(2);
    ended.expect_error(&["a folder", "a run folder with its run.toml", "name a file"]);
    right.refuses(&run.join("nowhere"), &[], &["nowhere", "nothing there", "configs/ has examples"])?;
    let near = right.world.path("rigth.toml");
    right.refuses(&near, &[], &["rigth.toml", "did you mean", "right.toml"])
}

#[test]
fn a_step_longer_than_the_radius_is_warned_of() -> Result<()> {
    let right = Right::new()?;
    let run = right.world.run("long");
    let train = Program::alone().train(&right.config, &run).set("attack.step", "9/255").set("attack.steps", 2);
    let ended = train.stop_after(1).run()?.expect(85);
    assert!(ended.said.contains("warning: attack.step is 9/255, more than the radius"), "{}", ended.said);
    Ok(())
}

/// The first command of README, started without images, prints one message with the command that fetches them.
#[test]
fn the_first_command_of_the_readme_asks_for_the_data_alone() -> Result<()> {
    let readme = fs::read_to_string(checkout().join("README.md"))?;
    assert!(readme.contains("    mpirun -n 8 iad-launch configs/wrn_cifar10.toml\n"));
    let world = World::new()?;
    let missing = world.path("cifar10.h5");
    // The same file with other data paths, which no test may expect in the checkout.
    let text = fs::read_to_string(checkout().join("configs/wrn_cifar10.toml"))?;
    let config = world.path("wrn_cifar10.toml");
    let teacher = checkout().join("configs/wrn_cifar10_at.toml");
    let text = text.replace("data/cifar10.h5", &missing.display().to_string());
    fs::write(&config, text.replace("configs/wrn_cifar10_at.toml", &teacher.display().to_string()))?;
    let run = world.run("first");
    let data = missing.display().to_string();
    let mut program = Program::under_mpirun(2).train(&config, &run);
    for key in ["teachers.robust.set.data.train", "teachers.robust.set.data.test"] {
        program = program.set(key, &data);
    }
    let folder = world.run("teacher");
    let ended = program.set("teachers.robust.checkpoint", folder.display()).run()?.expect(2);
    ended.expect_error(&[&format!("`iad-launch data fetch cifar10 --to {data}`")]);
    Ok(())
}

#[test]
fn a_change_that_is_none_is_refused() -> Result<()> {
    let right = Right::new()?;
    right.refuses(&right.config, &["--set", "lr"], &["key=value", "\"lr\""])?;
    right.refuses(&right.config, &["--set", "optimizer.speed=3"], &["optimizer.speed", "from --set", "`lr`"])?;
    right.refuses(&right.config, &["--set", "epochs.number=3"], &["right.toml", "--set epochs.number"])?;
    right.refuses(&right.config, &["--set", "epochs=many"], &["epochs", "from --set", "many"])
}

#[test]
fn a_missing_configuration_is_named() -> Result<()> {
    let right = Right::new()?;
    let missing = right.world.path("missing.toml");
    right.refuses(&missing, &[], &["missing.toml", "readable configuration file", "configs/"])?;
    right.refuses_under_mpirun(&missing, &[], &["missing.toml", "readable configuration file", "configs/"])
}

#[test]
fn a_missing_data_set_is_answered_with_the_command_that_makes_it() -> Result<()> {
    let right = Right::new()?;
    for (name, command) in
        [("cifar10", "fetch cifar10"), ("fashion_mnist", "fetch fashion-mnist"), ("mnist", "import mnist --from PATH")]
    {
        let missing = right.world.path(&format!("{name}.h5"));
        let config = right.world.config("missing-data", &missing, &[])?;
        let command = format!("`iad-launch data {command} --to {}`", missing.display());
        let parts = ["data.train", &text(&missing), &command];
        right.refuses(&config, &[], &parts)?;
        right.refuses_under_mpirun(&config, &[], &parts)?;
    }
    Ok(())
}

#[test]
fn a_truncated_data_set_is_named() -> Result<()> {
    let right = Right::new()?;
    let bytes = fs::read(&right.data)?;
    fs::write(&right.data, &bytes[..bytes.len() / 2])?;
    right.refuses(&right.config, &[], &["data.h5", "expected", "iad-launch data import"])
}

#[test]
fn a_label_without_a_class_is_named() -> Result<()> {
    let right = Right::new()?;
    let container = Container::open(&right.data, Split::Train)?;
    let labels: Vec<u8> = (0..container.len()).flat_map(|sample| container.label(sample).to_le_bytes()).collect();
    drop(container);
    let mut bytes = fs::read(&right.data)?;
    let at = bytes.windows(labels.len()).position(|window| window == labels).context("the labels in the file")?;
    bytes[at + 17 * 8] = 12;
    fs::write(&right.data, bytes)?;
    let parts = ["data.h5", "train/labels[17] is 12", "0..=3", "iad-launch data import"];
    right.refuses(&right.config, &[], &parts)
}

/// A flipped pixel is found by its checksum when the ranks start.
#[test]
fn a_changed_image_is_found() -> Result<()> {
    let right = Right::new()?;
    let container = Container::open(&right.data, Split::Train)?;
    let mut image = vec![0; container.shape().iter().product()];
    container.read(7, &mut image)?;
    drop(container);
    let mut bytes = fs::read(&right.data)?;
    let at = bytes.windows(image.len()).position(|window| window == image).context("the image in the file")?;
    bytes[at] ^= 1;
    fs::write(&right.data, bytes)?;
    let parts = ["data.h5", "train/images", "damaged", "SHA-256", "iad-launch data import"];
    right.refuses_by(Program::alone(), &right.config, &[], &parts)?;
    right.refuses_under_mpirun(&right.config, &[], &parts)
}

#[test]
fn data_of_more_classes_than_the_student_is_refused() -> Result<()> {
    let right = Right::new()?;
    let parts = ["student.classes is 3", "at least the 4 classes", "data.h5", "leave the key out"];
    right.refuses(&right.config, &["--set", "student.classes=3"], &parts)
}

#[test]
fn a_run_folder_of_another_configuration_stays_as_it_is() -> Result<()> {
    let right = Right::new()?;
    let run = right.world.run("taken");
    Program::alone().train(&right.config, &run).run()?.expect(0);
    let before = contents(&run)?;
    for program in [Program::alone(), Program::alone().starting_ranks(2), Program::under_mpirun(2)] {
        let ended = program.train(&right.config, &run).set("seed", 7).run()?.expect(2);
        ended.expect_error(&["taken/run", "seed = 1 there, 7 now", "--run"]);
        assert_eq!(before, contents(&run)?);
    }
    Ok(())
}

#[test]
fn a_folder_with_other_files_stays_as_it_is() -> Result<()> {
    let right = Right::new()?;
    let folder = right.world.path("thesis");
    fs::create_dir(&folder)?;
    fs::write(folder.join("chapter.txt"), "important")?;
    let before = contents(&folder)?;
    for program in [Program::alone(), Program::alone().starting_ranks(2), Program::under_mpirun(2)] {
        let ended = program.train(&right.config, &folder).run()?.expect(2);
        ended.expect_error(&["thesis", "chapter.txt", "an empty or new folder", "--run"]);
        assert_eq!(before, contents(&folder)?);
    }
    Ok(())
}

/// Every file of a folder with its bytes.
fn contents(folder: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let (mut waiting, mut found) = (vec![folder.to_path_buf()], vec![]);
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries: std::io::Result<Vec<_>> = fs::read_dir(&path)?.collect();
            waiting.extend(entries?.iter().map(fs::DirEntry::path));
        } else {
            let bytes = fs::read(&path)?;
            found.push((path, bytes));
        }
    }
    found.sort();
    Ok(found)
}

#[test]
fn a_missing_run_to_evaluate_is_named() -> Result<()> {
    let world = World::new()?;
    let run = world.path("nothing");
    let ended = Program::alone().args(["eval".as_ref(), run.as_os_str()]).run()?.expect(2);
    ended.expect_error(&["nothing", "a run folder", "iad-launch CONFIG"]);
    Ok(())
}

#[test]
fn a_container_is_never_overwritten() -> Result<()> {
    let right = Right::new()?;
    let before = fs::read(&right.data)?;
    let import = Program::alone().args(["data", "import", "cifar10", "--from", ".", "--to"]).args([&right.data]);
    let ended = import.run()?.expect(2);
    ended.expect_error(&["data.h5", "does not exist yet"]);
    assert_eq!(before, fs::read(&right.data)?);
    Ok(())
}

#[test]
fn a_change_on_the_command_line_is_a_change_of_the_file() -> Result<()> {
    let right = Right::new()?;
    let (by_key, by_file) = (right.world.run("by-key"), right.world.run("by-file"));
    Program::alone().train(&right.config, &by_key).set("seed", 5).set("attack.eps", "4/255").run()?.expect(0);
    let config = right.world.config("changed", &right.data, &[("seed", "5"), ("attack.eps", "\"4/255\"")])?;
    Program::alone().train(&config, &by_file).run()?.expect(0);
    assert!(!metrics(&by_key)?.is_empty());
    assert_same_run(&by_key, &by_file, "changed by --set and in the file")
}

#[test]
fn ranks_that_were_not_made_as_meant_are_refused() -> Result<()> {
    let right = Right::new()?;
    // srun without MPI starts copies that know nothing of each other.
    let srun = [("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "4"), ("SLURM_PROCID", "0")];
    let copies = |device: &[&str]| {
        let program = srun.iter().fold(Program::alone(), |program, (name, value)| program.variable(name, value));
        right.refuses_by(program, &right.config, device, &["4 copies", "srun --mpi=pmix"])
    };
    copies(&["--device", "cpu"])?;
    // Each copy would start an mpirun of its own.
    copies(&["--ranks", "2"])?;
    // As an mpirun of another MPI leaves its processes: each believes that it is alone.
    for (size, rank) in [("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"), ("PMI_SIZE", "PMI_RANK")] {
        let program = Program::alone().variable(size, "2").variable(rank, "0");
        right.refuses_by(program, &right.config, &[], &["2 copies", size, "/mpirun", "srun --mpi=list"])?;
        let other = Program::alone().variable(size, "2").variable(rank, "1").args([&right.config]).run()?.expect(2);
        assert!(!other.said.contains("error"), "the second copy speaks too: {}", other.said);
    }
    // In a batch script, nothing but the job's number of tasks is known, and mpirun may follow.
    let batch = Program::alone().variable("SLURM_NTASKS", "4").variable("SLURM_PROCID", "0");
    batch.train(&right.config, &right.world.run("batch")).stop_after(1).run()?.expect(85);
    let parts = ["--ranks is 3", "2, the number of ranks", "leave --ranks out"];
    right.refuses_by(Program::under_mpirun(2), &right.config, &["--ranks", "3"], &parts)
}
