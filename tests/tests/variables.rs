//! What a run folder says of the environment of its run: listed variables, and no secret.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tests::{Images, Program, World};
use toml::Table;

/// Variables as people have them, each with a value that stands nowhere else.
const SECRETS: [(&str, &str); 8] = [
    ("AWS_SECRET_ACCESS_KEY", "hidden-aws"),
    ("SLURM_JWT", "hidden-jwt"),
    ("IAD_TOKEN", "hidden-iad"),
    ("NCCL_AUTH_TOKEN", "hidden-nccl"),
    ("OMP_SECRET", "hidden-omp"),
    ("HF_TOKEN", "hidden-hf"),
    ("HTTPS_PROXY", "http://user:hidden-proxy@proxy.example:8080"),
    ("NCCL_SOCKET_IFNAME", "tcp://user:hidden-address@eth9"),
];

fn files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { files(&path, found)? } else { found.push(path) }
    }
    Ok(())
}

#[track_caller]
fn assert_no_secret(place: &str, bytes: &[u8]) {
    let at = bytes.windows(7).position(|window| window == b"hidden-");
    assert_eq!(at.map(|at| String::from_utf8_lossy(&bytes[at..(at + 20).min(bytes.len())])), None, "in {place}");
}

#[test]
fn a_run_folder_holds_listed_variables_and_no_secret() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(32))?;
    let config = world.config("run", &data, &[("evaluation.suite", "[\"natural\"]")])?;
    for ranks in [1, 2] {
        let run = world.run(&format!("on-{ranks}"));
        let start = |broken: bool| {
            let program = if ranks == 1 { Program::alone() } else { Program::alone().starting_ranks(ranks) };
            // The second start fails after its first lines are written.
            let program = program.train(&config, &run).set("optimizer.lr", if broken { "1e30" } else { "0.05" });
            let program = SECRETS.iter().fold(program, |program, (name, value)| program.variable(name, value));
            program.variable("SLURM_JOB_ID", "4711").run()
        };
        let ended = start(false)?.expect(0);
        assert_no_secret("what was said", ended.said.as_bytes());
        let failed = start(true)?.expect(2);
        assert_no_secret("what was said of a failure", failed.said.as_bytes());

        let mut found = vec![];
        files(&run, &mut found)?;
        assert!(found.iter().any(|path| path.ends_with("console.log")), "{found:?}");
        for path in &found {
            assert_no_secret(&path.display().to_string(), &fs::read(path)?);
        }
        let environment: Table = fs::read_to_string(run.join("environment.toml"))?.parse()?;
        let variables = environment["session"][0].get("variables").and_then(|table| table.as_table());
        let variables = variables.context("variables")?;
        let text = |name: &str| variables.get(name).and_then(|value| value.as_str());
        assert_eq!((text("OMP_NUM_THREADS"), text("SLURM_JOB_ID")), (Some("1"), Some("4711")));
        assert_eq!((text("CUDA_VISIBLE_DEVICES"), text("PATH")), (Some("-1"), None));
        assert_eq!(text("NCCL_SOCKET_IFNAME"), Some("tcp://***@eth9"));
    }
    Ok(())
}
