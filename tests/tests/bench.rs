//! `iad-launch bench`: what it prints and writes is right; how fast it was is nobody's business here.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Program, World, checkout};

fn json(path: &std::path::Path) -> Result<Value> {
    serde_json::from_slice(&fs::read(path)?).with_context(|| path.display().to_string())
}

#[test]
fn sums_of_all_sizes_are_right_and_written_once() -> Result<()> {
    let world = World::new()?;
    let file = world.path("sums.json");
    let wide = checkout().join("configs/paper/runs/cifar10_resnet18_iad1.toml");
    let bench = |ranks: usize| {
        let program =
            Program::under_mpirun(ranks).args(["bench", "comm", "--to", "4096", "--factor", "8", "--seconds", "0.01"]);
        program.args(["--json".as_ref(), file.as_os_str()])
    };
    bench(3).args(["--gradients".as_ref(), wide.as_os_str()]).run()?.expect(0);
    let measured = json(&file)?;
    let sums = measured["sums"].as_array().context("sums")?;
    let bytes: Vec<u64> = sums.iter().filter_map(|sum| sum["bytes"].as_u64()).collect();
    assert_eq!(bytes, [8, 64, 512, 4096, 4 * 11_173_962]);
    assert_eq!((measured["ranks"].as_u64(), sums[4]["gradients"].as_str()), (Some(3), Some("resnet18")));
    for sum in sums {
        assert_eq!(sum["wrong"], 0, "{sum}");
        let number = |key: &str| sum[key].as_f64().unwrap_or(f64::NAN);
        // nccl-tests: the bus carries 2 (n - 1) / n of what the algorithm does.
        let ratio = number("bus_gb_per_s") / number("algorithm_gb_per_s");
        assert!((ratio - 4.0 / 3.0).abs() < 1e-6, "{sum}");
        let rate = number("bytes") / number("microseconds") / 1e3;
        assert!((rate / number("algorithm_gb_per_s") - 1.0).abs() < 1e-6, "{sum}");
        assert!(number("over_plain_mpi") > 0.0, "{sum}");
    }
    bench(2).run()?.expect(2).expect_error(&["--json", "sums.json", "does not exist yet"]);
    Ok(())
}

#[test]
fn a_step_is_timed_on_growing_numbers_of_ranks() -> Result<()> {
    let world = World::new()?;
    let (file, figure) = (world.path("scaling.json"), world.path("scaling.svg"));
    let data = world.path("none.h5");
    let config = world.config("small", &data, &[("batch.size", "8")])?;
    Program::alone()
        .args(["bench".as_ref(), "scaling".as_ref(), config.as_os_str()])
        .args([
            "--ranks",
            "1,2",
            "--mode",
            "both",
            "--steps",
            "2",
            "--independent",
            "--image",
            "3x16x16",
            "--device",
            "cpu",
        ])
        .args(["--json".as_ref(), file.as_os_str(), "--figure".as_ref(), figure.as_os_str()])
        .run()?
        .expect(0);
    let measured = json(&file)?;
    let all = measured.as_array().context("a list")?;
    let of = |key: &str| -> Vec<&Value> { all.iter().map(|scaled| &scaled[key]).collect() };
    assert_eq!(of("mode"), ["weak", "weak", "strong", "strong"]);
    assert_eq!(of("images_per_step"), [8, 16, 8, 8]);
    for scaled in all {
        let number = |key: &str| scaled[key].as_f64().unwrap_or(f64::NAN);
        let rate = number("images_per_step") / number("milliseconds") * 1e3;
        assert!((rate / number("images_per_second") - 1.0).abs() < 1e-9, "{scaled}");
        let several = scaled["ranks"] == 2;
        assert_eq!(scaled.get("of_independent").is_some(), several, "{scaled}");
        assert_eq!(scaled.get("modelled_milliseconds").is_some(), several, "{scaled}");
        assert!((0.0..1.0).contains(&number("exposed")), "{scaled}");
    }
    assert!(fs::read_to_string(figure)?.contains("</svg>"));
    Ok(())
}

#[test]
fn every_cluster_of_the_project_is_foretold() -> Result<()> {
    let world = World::new()?;
    let file = world.path("projected.json");
    let mut program =
        Program::alone().args(["bench".into(), "project".into(), checkout().join("configs/wrn_cifar10.toml")]);
    let mut clusters = 0;
    for entry in fs::read_dir(checkout().join("configs/clusters"))? {
        program = program.args(["--cluster".as_ref(), entry?.path().as_os_str()]);
        clusters += 1;
    }
    program.args(["--gpus", "1,8,4096"]).args(["--json".as_ref(), file.as_os_str()]).run()?.expect(0);
    let projected = json(&file)?;
    assert_eq!(projected.as_array().map(Vec::len), Some(clusters));
    for found in projected.as_array().into_iter().flatten().flat_map(|cluster| cluster.as_array().into_iter().flatten())
    {
        let efficiency = found["efficiency"].as_f64().unwrap_or(f64::NAN);
        // More GPUs never compute more than each by itself; one GPU loses nothing but what its own time varies.
        assert!(efficiency > 0.0 && efficiency < 1.02, "{found}");
        assert!(found["gpus"] != 1 || efficiency > 0.98, "{found}");
    }
    Ok(())
}

#[test]
fn a_cluster_that_cannot_be_is_refused_by_its_key() -> Result<()> {
    let world = World::new()?;
    let good = fs::read_to_string(checkout().join("configs/clusters/dgx_h100_infiniband.toml"))?;
    let config = checkout().join("configs/wrn_cifar10.toml");
    for (from, to, key) in [
        ("utilisation = 0.30", "utilisation = 1.5", "gpu.utilisation"),
        ("gpus_per_node = 8", "gpus_per_node = 0", "gpus_per_node"),
        ("jitter = 0.01", "jitter = -1", "jitter"),
        ("jitter = 0.01", "wobble = 1", "wobble"),
    ] {
        assert!(good.contains(from));
        let file = world.path("cluster.toml");
        fs::write(&file, good.replace(from, to))?;
        let program = Program::alone().args(["bench".as_ref(), "project".as_ref(), config.as_os_str()]);
        program.args(["--cluster".as_ref(), file.as_os_str()]).run()?.expect(2).expect_error(&["cluster.toml", key]);
    }
    Ok(())
}

#[test]
fn saves_are_timed_beside_steps_and_leave_nothing() -> Result<()> {
    let world = World::new()?;
    let (file, folder) = (world.path("saves.json"), world.path("saves"));
    let config = world.config("small", &world.path("none.h5"), &[("batch.size", "4")])?;
    for ranks in [1, 2] {
        let program = Program::on(ranks).args(["bench".as_ref(), "save".as_ref(), config.as_os_str()]);
        let program = program.args(["--every", "2", "--rounds", "3", "--image", "3x16x16"]);
        let program = program.args(["--to".as_ref(), folder.as_os_str(), "--json".as_ref(), file.as_os_str()]);
        let ended = program.run()?.expect(0);
        assert!(ended.said.contains("write, beside the steps"), "{}", ended.said);
        let measured = json(&file)?;
        let times = &measured["times"];
        for of in ["without", "with", "comparisons", "copies", "writes", "waits"] {
            assert_eq!(times[of].as_array().map(Vec::len), Some(3), "{of}: {measured}");
        }
        assert_eq!((measured["ranks"].as_u64(), times["every"].as_u64()), (Some(ranks as u64), Some(2)));
        assert!(times["bytes"].as_u64().is_some_and(|bytes| bytes > 10_000), "{measured}");
        assert!(!folder.exists(), "the checkpoints were not removed");
        fs::remove_file(&file)?;
    }
    Ok(())
}
