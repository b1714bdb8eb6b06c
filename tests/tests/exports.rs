//! Exported networks: what PyTorch and this program make of them again, with their normalisation and their classes' names.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Images, Program, World, header, python, student, tell};

/// A data set, and a run of a normalising network on it that was evaluated at its end.
fn trained(world: &World) -> Result<(PathBuf, PathBuf)> {
    let data = world.images("data", Images { test: 50, ..Images::colour(64) })?;
    let changes = [
        ("student.architecture", "\"wrn-10-1\""),
        ("student.normalize", "{ mean = [0.5, 0.25, 0.5], std = [0.25, 0.5, 0.25] }"),
        ("evaluation.suite", "[\"natural\", \"pgd2\"]"),
    ];
    let run = world.run("exported");
    Program::alone().train(&world.config("exported", &data, &changes)?, &run).run()?.expect(0);
    Ok((data, run))
}

fn export(from: &Path, to: &Path, more: &[&str]) -> Result<tests::Ended> {
    let arguments = ["weights".as_ref(), "export".as_ref(), from.as_os_str(), "--to".as_ref(), to.as_os_str()];
    Program::alone().args(arguments).args(more).run()
}

fn import(from: &Path, to: &Path, more: &[&str]) -> Result<tests::Ended> {
    let arguments = ["weights".as_ref(), "import".as_ref(), from.as_os_str(), "--to".as_ref(), to.as_os_str()];
    Program::alone().args(arguments).args(["--image", "3x16x16"]).args(more).run()
}

/// The table of samples of an evaluation of `network` on `data`, natural and under PGD.
fn samples(network: &Path, data: &Path) -> Result<(Value, String)> {
    let arguments = ["eval".as_ref(), network.as_os_str(), "--data".as_ref(), data.as_os_str()];
    let ended = Program::alone().args(arguments).args(["--suite", "natural,pgd5", "--batch", "16"]).run()?.expect(0);
    assert!(!ended.said.contains("do not name"), "{}", ended.said);
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = format!("{}-evaluation-natural+pgd5-{}-batch16", stem(network), stem(data));
    let found = fs::read_to_string(network.with_file_name(format!("{name}.json")))?;
    Ok((serde_json::from_str(&found)?, fs::read_to_string(network.with_file_name(format!("{name}.samples.csv")))?))
}

/// Runs the program of a model card in the folder of its file.
fn run_card(card: &Path, imports: &str) -> Result<Option<String>> {
    let text = fs::read_to_string(card)?;
    let program = text.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).context("a program")?;
    let Some(python) = python(imports) else {
        tell(&format!("skipped: the program of a model card (no python for {imports:?})"));
        return Ok(None);
    };
    let script = card.with_extension("py");
    fs::write(&script, program)?;
    python.within(card.parent().context("a folder")?).run(&script, &[]).map(Some)
}

#[test]
fn a_traced_network_is_the_network() -> Result<()> {
    let world = World::new()?;
    let (data, run) = trained(&world)?;
    let (script, weights) = (world.path("new/network.ts"), run.join("checkpoints/final.safetensors"));
    let said = export(&run, &script, &[])?.expect(0).said;
    assert!(said.contains("(torchscript), with the model card"), "{said}");
    export(&run, &script, &[])?.expect(2).expect_error(&["network.ts.md", "does not exist yet"]);

    // The evaluator reads it as any TorchScript network, with the names of its classes.
    let (found, table) = samples(&script, &data)?;
    assert_eq!(found["network"]["architecture"], "torchscript");
    let (_, expected) = samples(&weights, &data)?;
    let natural = |table: &str| -> Vec<String> {
        table.lines().map(|line| line.split(',').take(4).collect::<Vec<_>>().join(",")).collect()
    };
    assert_eq!(natural(&table), natural(&expected));
    let three = world.images("three", Images { classes: 3, ..Images::colour(8) })?;
    assert_eq!(samples(&script, &three)?.0["outputs"], serde_json::json!([0, 1, 2]));

    let card = fs::read_to_string(world.path("new/network.ts.md"))?;
    let facts =
        ["wrn-10-1", "pattern 0, pattern 1", "mean [0.5, 0.25, 0.5]", "| pgd2 |", "architecture = \"wrn-10-1\""];
    for fact in facts {
        assert!(card.contains(fact), "{fact} is missing in the card:\n{card}");
    }
    if let Some(printed) = run_card(&world.path("new/network.ts.md"), "import torch")? {
        assert!(printed.starts_with("tensor(["), "{printed}");
    }
    let again = world.path("again.ts");
    export(&run, &again, &[])?.expect(0);
    assert!(fs::read(&again)? == fs::read(&script)?, "exporting twice gives other bytes");
    Ok(())
}

#[test]
fn a_module_for_robustbench_predicts_what_the_network_does() -> Result<()> {
    let world = World::new()?;
    let (data, run) = trained(&world)?;
    let (script, module) = (world.path("iad_1.ts"), world.path("iad_1.py"));
    export(&run, &world.path("iad-1.ts"), &["--robustbench"])?.expect(2).expect_error(&["--to is \"iad-1\"", "Python"]);
    export(&run, &world.path("iad_1.pth"), &["--robustbench"])?
        .expect(2)
        .expect_error(&["given with torch", "torchscript"]);
    export(&run, &script, &["--robustbench"])?.expect(0);
    let Some(python) = python("import torch, h5py") else {
        tell("skipped: the module for RobustBench (no python with torch and h5py)");
        return Ok(());
    };
    let (_, table) = samples(&script, &data)?;
    let expected: Vec<i64> = table.lines().skip(1).filter_map(|line| line.split(',').nth(2)?.parse().ok()).collect();
    // RobustBench moves the network and calls it as a module.
    let program = "import h5py, torch\nfrom iad_1 import CLASSES, load_model\nfile = h5py.File('data.h5')\n\
                   images = torch.from_numpy(file['test']['images'][:]).float() / 255\n\
                   network = load_model().to(torch.device('cpu')).eval()\n\
                   print(network(images).argmax(1).tolist())\nassert CLASSES[0] == 'pattern 0' and len(CLASSES) == 4\n";
    let judge = world.path("judge.py");
    fs::write(&judge, program)?;
    let printed = python.within(module.parent().context("a folder")?).run(&judge, &[])?;
    assert_eq!(serde_json::from_str::<Vec<i64>>(&printed)?, expected);
    Ok(())
}

#[test]
fn class_names_come_back_from_every_format() -> Result<()> {
    let world = World::new()?;
    let (_, run) = trained(&world)?;
    let weights = run.join("checkpoints/final.safetensors");
    let names = header(&weights)?["class_names"].clone();
    assert_eq!(names.as_array().map(Vec::len), Some(4));
    for name in ["plain.pth", "plain.safetensors"] {
        let (file, made) = (world.path(name), world.path(&format!("{name}.imported")));
        export(&weights, &file, &[])?.expect(0);
        import(&file, &made, &[])?.expect(0);
        assert_eq!((student(&made)?, &header(&made)?["class_names"]), (student(&weights)?, &names));
        let other = world.path(&format!("{name}.other"));
        import(&file, &other, &["--classes", "a,b,c,d"])?
            .expect(2)
            .expect_error(&["class_names", "leave --classes out"]);
    }
    for file in [&weights, &world.path("plain.pth"), &world.path("plain.safetensors")] {
        let said = Program::alone().args(["weights".as_ref(), "info".as_ref(), file.as_os_str()]).run()?.expect(0).said;
        assert!(said.contains("classes: pattern 0, pattern 1, pattern 2, pattern 3"), "{said}");
    }
    if let Some(printed) = run_card(&world.path("plain.pth.md"), "import torch")? {
        assert!(printed.contains("tensors"), "{printed}");
    }

    // A file without names takes those that are stated.
    let nameless = world.path("nameless.safetensors");
    let bytes = fs::read(world.path("plain.safetensors"))?;
    let at = bytes.windows(11).position(|window| window == b"class_names").context("names")?;
    let renamed = [&bytes[..at], b"other_names", &bytes[at + 11..]].concat();
    fs::write(&nameless, renamed)?;
    let made = world.path("stated.safetensors");
    import(&nameless, &made, &["--classes", "ant,bee"])?.expect(2).expect_error(&["--classes is 2 names", "4 names"]);
    import(&nameless, &made, &["--classes", "ant,bee,ant,elk"])?.expect(2).expect_error(&["\"ant\" twice"]);
    import(&nameless, &made, &["--classes", "ant,bee,cow,elk"])?.expect(0);
    assert_eq!(header(&made)?["class_names"], serde_json::json!(["ant", "bee", "cow", "elk"]));
    Ok(())
}

#[test]
fn onnx_is_written_by_a_python_that_can_or_refused_with_the_way_out() -> Result<()> {
    let world = World::new()?;
    let (_, run) = trained(&world)?;
    let file = world.path("network.onnx");
    let to = ["weights".as_ref(), "export".as_ref(), run.as_os_str(), "--to".as_ref(), file.as_os_str()];
    let ended = Program::alone().args(to).variable("IAD_PYTHON", "/nowhere/python").run()?.expect(2);
    ended.expect_error(&["/nowhere/python", "pip install onnx", "IAD_PYTHON"]);
    assert!(!file.exists() && !world.path("network.traced").exists());
    let imports = "import torch, onnx, onnxruntime";
    let Some(python) = python(imports) else {
        tell("skipped: ONNX (no python with torch, onnx and onnxruntime)");
        return Ok(());
    };
    Program::alone().args(to).variable("IAD_PYTHON", &python.path().display().to_string()).run()?.expect(0);
    assert!(file.is_file());
    let printed = run_card(&world.path("network.onnx.md"), imports)?.context("a python")?;
    assert!(printed.starts_with('['), "{printed}");
    Ok(())
}
