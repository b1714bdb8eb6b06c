//! Several seeds: a run for each, in a folder of its own below the run folder of the configuration.

use std::path::{Path, PathBuf};

use anyhow::Result;
use datasets::UserError;
use trainer::config::RunConfig;
use trainer::run::folder::RunFolder;

use super::jobs::Job;

/// The runs that a command asks for, the last of its jobs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Students {
    /// How many there are.
    pub(super) count: usize,
    /// The folder around them, where they have seeds.
    pub(super) together: Option<PathBuf>,
}

/// The seeds of the runs that a command asks for: its own, else those of the configuration; none for one run of its `seed`.
///
/// # Errors
/// The same seed twice.
pub(crate) fn seeds_of(config: &RunConfig, seeds: &[u64]) -> Result<Vec<u64>, UserError> {
    if let Some(twice) =
        seeds.iter().enumerate().find_map(|(index, seed)| seeds[..index].contains(seed).then_some(seed))
    {
        return Err(UserError::expected("different seeds").key("--seeds").value(format!("{twice}, twice")));
    }
    Ok(if seeds.is_empty() { config.seeds.clone() } else { seeds.to_vec() })
}

/// Refuses a folder that is a run itself: the runs of several seeds have no place in it.
///
/// # Errors
/// The [`UserError`] that says so.
pub(crate) fn refuse_run(folder: &Path) -> Result<(), UserError> {
    if folder.join("run.toml").exists() {
        return Err(UserError::expected("a folder for the runs of several seeds").file(folder).value("a run").hint(
            "choose another folder with --run; a run of another seed fits beside it: --set seed=2 --run runs/OTHER",
        ));
    }
    Ok(())
}

/// Adds the run of `config` in `folder` to `jobs`, or one for each seed that the command or the configuration names.
///
/// # Errors
/// The same seed twice; a run in the folder that would hold the others.
pub(super) fn add_students(
    config: RunConfig,
    folder: &Path,
    seeds: &[u64],
    jobs: &mut Vec<Job>,
) -> Result<Students, UserError> {
    let seeds = seeds_of(&config, seeds)?;
    if seeds.is_empty() {
        jobs.push(Job { config, folder: RunFolder::at(folder) });
        return Ok(Students { count: 1, together: None });
    }
    refuse_run(folder)?;
    let run = |seed: &u64| {
        let folder = RunFolder::at(&folder.join(format!("seed-{seed}")));
        Job { config: config.of_seed(*seed), folder }
    };
    jobs.extend(seeds.iter().map(run));
    Ok(Students { count: seeds.len(), together: Some(folder.to_path_buf()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(seeds: &str) -> RunConfig {
        let text = format!(
            r#"
seed = 5
{seeds}
epochs = 2
batch = {{ size = 8 }}
data = {{ train = "a.h5", test = "a.h5" }}
student = {{ architecture = "resnet8" }}
loss = {{ preset = "at" }}
optimizer = {{ lr = 0.1, lr_policy = "constant" }}
"#
        );
        RunConfig::parse(&text, Path::new("a.toml"), &[]).unwrap()
    }

    fn runs(seeds: &str, command: &[u64], folder: &Path) -> Result<Vec<Job>, UserError> {
        let mut jobs = vec![];
        add_students(config(seeds), folder, command, &mut jobs).map(|_| jobs)
    }

    #[test]
    fn a_run_of_a_seed_is_the_run_of_that_seed_alone() {
        let folder = Path::new("runs/none");
        let alone = runs("", &[], folder).unwrap();
        assert_eq!((alone.len(), alone[0].folder.path.as_path()), (1, folder));
        for (file, command) in [("seeds = [5, 7]", &[][..]), ("", &[5, 7]), ("seeds = [1, 2, 3]", &[5, 7])] {
            let found = runs(file, command, folder).unwrap();
            assert_eq!((found.len(), found[1].folder.path.clone()), (2, folder.join("seed-7")), "{file} {command:?}");
            assert_eq!(found[0].config.resolved(), alone[0].config.resolved());
            assert_eq!((found[1].config.seed, found[1].config.seeds.len()), (7, 0));
        }
    }

    #[test]
    fn a_seed_twice_and_a_run_in_their_folder_are_refused() {
        let message = runs("", &[1, 2, 1], Path::new("runs/none")).unwrap_err().to_string();
        assert!(message.contains("--seeds is 1, twice"), "{message}");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("run.toml"), "").unwrap();
        let message = runs("seeds = [1]", &[], folder.path()).unwrap_err().to_string();
        assert!(message.contains("a folder for the runs of several seeds"), "{message}");
        assert!(runs("", &[], folder.path()).is_ok());
    }
}
