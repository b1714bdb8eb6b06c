//! Words that parts of the program may not use, searched for in sources and manifests.

use anyhow::Result;
use tests::{Rule, checkout, find, tell};

/// Where rules about the whole program look.
const PROGRAM: &[&str] = &["datasets", "torch-ext", "comm", "trainer", "launcher"];

const SOURCES: &[&str] = &["datasets/src", "torch-ext/src", "comm/src", "trainer/src", "launcher/src"];

const TRANSPORT: Rule = Rule {
    says: "trainer knows ranks, not how they talk",
    words: &["mpi", "cudarc", "rsmpi"],
    within: &["trainer"],
    except: &[],
    spares_tests: false,
};

const GPU: Rule = Rule {
    says: "only comm and torch-ext speak to CUDA themselves",
    words: &["cudarc", "libloading"],
    within: PROGRAM,
    except: &["comm", "torch-ext"],
    spares_tests: false,
};

const TEST_MODE: Rule = Rule {
    says: "one place knows that tests put a stand-in for GPUs in their place",
    words: &["IAD_TEST_NCCL_ON_HOST", "IAD_STAND_IN"],
    within: SOURCES,
    except: &["comm/src/machine.rs"],
    spares_tests: false,
};

const NO_TENSORS_IN_DATA: Rule = Rule {
    says: "datasets is pure Rust",
    words: &["tch", "torch-sys", "torch_sys", "torch_ext"],
    within: &["datasets"],
    except: &[],
    spares_tests: false,
};

const NO_TASK_IN_COMM: Rule = Rule {
    says: "comm knows nothing of models, losses, configurations or data",
    words: &["trainer", "datasets", "launcher"],
    within: &["comm", "torch-ext"],
    except: &[],
    spares_tests: false,
};

const NO_TENSORS_IN_LAUNCHER: Rule = Rule {
    says: "launcher touches no tensor",
    words: &["tch", "torch_ext", "Tensor"],
    within: &["launcher"],
    except: &[],
    spares_tests: false,
};

const ONE_USER_OF_HDF5: Rule = Rule {
    says: "the HDF5 library is used in one place",
    words: &["hdf5::File", "hdf5::Dataset", "hdf5::Group", "hdf5::types", "use ::hdf5", "hdf5_metno", "hdf5_sys"],
    within: SOURCES,
    except: &["datasets/src/hdf5/"],
    spares_tests: false,
};

const ONE_MANIFEST_WITH_HDF5: Rule = Rule {
    says: "only datasets depends on HDF5",
    words: &["hdf5"],
    within: &["torch-ext/Cargo.toml", "comm/Cargo.toml", "trainer/Cargo.toml", "launcher/Cargo.toml"],
    except: &[],
    spares_tests: false,
};

const UNSAFE: Rule = Rule {
    // The tests of the mapping make strings that the library refuses to make.
    says: "unsafe code stands where foreign code is called, and at the one mapping",
    words: &["unsafe"],
    within: PROGRAM,
    except: &["torch-ext", "comm", "datasets/src/hdf5/map.rs", "datasets/src/hdf5/tests.rs"],
    spares_tests: false,
};

const ONE_BUILD: Rule = Rule {
    says: "one program for CPU and GPU",
    words: &["cfg(feature", "cfg!(feature", "cfg_attr(feature"],
    within: PROGRAM,
    except: &[],
    spares_tests: false,
};

const NO_PRINTING: Rule = Rule {
    says: "only the launcher speaks to people",
    words: &["println!", "print!", "eprintln!", "eprint!", "dbg!"],
    within: &["datasets/src", "torch-ext/src", "comm/src", "trainer/src"],
    except: &[],
    spares_tests: false,
};

const LEADER: Rule = Rule {
    says: "the leader is asked for by name",
    words: &["rank() == 0", "rank() != 0", "rank() > 0"],
    within: SOURCES,
    except: &["launcher", "trainer/src/run/training.rs", "comm/src/communicator.rs"],
    spares_tests: true,
};

const RANDOM: Rule = Rule {
    says: "random numbers are functions of their purpose, never of a generator's state",
    words: &["thread_rng", "manual_seed", "Tensor::rand", "Tensor::randn", "Tensor::randint", "Tensor::randperm"],
    within: SOURCES,
    except: &[],
    spares_tests: true,
};

const NO_WAITING: Rule = Rule {
    says: "the numbers of a step reach the host through trainer::system::transfer alone",
    words: &[
        "f64::try_from",
        "f32::try_from",
        "bool::try_from",
        "Vec::try_from",
        "::<f64>::try_from",
        "::<f32>::try_from",
        "::<i64>::try_from",
        "i64::try_from",
        "int64_value",
        "double_value",
        "copy_data",
        "to_device(Device::Cpu",
    ],
    within: &[
        "trainer/src/step/mod.rs",
        "trainer/src/step/ascent.rs",
        "trainer/src/step/remembering.rs",
        "trainer/src/method/views.rs",
        "trainer/src/method/loss.rs",
        "trainer/src/method/memory.rs",
        "trainer/src/method/memory",
        "trainer/src/step/diagnostics.rs",
        "trainer/src/step/optimizer.rs",
        "trainer/src/step/gradients.rs",
        "trainer/src/step/running_statistics.rs",
        "trainer/src/step/weight_perturbation.rs",
        "trainer/src/step/gradient_alignment.rs",
        "trainer/src/step/batch.rs",
        "trainer/src/method/attack/pgd.rs",
        "trainer/src/method/attack/n_fgsm.rs",
        "trainer/src/method/attack/noise.rs",
        "trainer/src/method/precision.rs",
        "trainer/src/model",
    ],
    except: &[],
    spares_tests: true,
};

#[track_caller]
fn holds(rule: &Rule) -> Result<()> {
    let found = find(checkout(), rule)?;
    assert!(found.is_empty(), "{}: {found:#?}", rule.says);
    Ok(())
}

/// The words that `rule` finds in `text`, were it the contents of `file`.
fn words(rule: &Rule, file: &str, text: &str) -> Vec<&'static str> {
    rule.scan(file, text).into_iter().map(|found| found.word).collect()
}

#[test]
fn trainer_does_not_know_the_transport() -> Result<()> {
    assert_eq!(words(&TRANSPORT, "trainer/src/step/mod.rs", "use mpi::traits::*;"), ["mpi"]);
    assert_eq!(words(&TRANSPORT, "trainer/Cargo.toml", "mpi.workspace = true"), ["mpi"]);
    assert!(words(&TRANSPORT, "trainer/src/step/mod.rs", "let simplified = 1; // as mpi does").is_empty());
    holds(&TRANSPORT)
}

#[test]
fn cuda_is_called_by_comm_and_torch_ext_alone() -> Result<()> {
    assert_eq!(words(&GPU, "launcher/src/main.rs", "use cudarc::driver;"), ["cudarc"]);
    assert!(words(&GPU, "comm/src/nccl.rs", "use cudarc::nccl;").is_empty());
    holds(&GPU)
}

#[test]
fn the_stand_in_for_gpus_is_known_in_one_place() -> Result<()> {
    assert_eq!(words(&TEST_MODE, "comm/src/nccl.rs", "env::var(\"IAD_TEST_NCCL_ON_HOST\")"), ["IAD_TEST_NCCL_ON_HOST"]);
    holds(&TEST_MODE)
}

#[test]
fn datasets_does_not_know_tensors() -> Result<()> {
    assert_eq!(words(&NO_TENSORS_IN_DATA, "datasets/Cargo.toml", "tch = { workspace = true }"), ["tch"]);
    assert!(words(&NO_TENSORS_IN_DATA, "datasets/src/batches/loader.rs", "let batch = matched;").is_empty());
    holds(&NO_TENSORS_IN_DATA)
}

#[test]
fn comm_does_not_know_the_task() -> Result<()> {
    assert_eq!(words(&NO_TASK_IN_COMM, "comm/Cargo.toml", "trainer.workspace = true # no"), ["trainer"]);
    assert!(words(&NO_TASK_IN_COMM, "comm/Cargo.toml", "description = \"Not of datasets.\"").is_empty());
    holds(&NO_TASK_IN_COMM)
}

#[test]
fn launcher_touches_no_tensor() -> Result<()> {
    assert_eq!(words(&NO_TENSORS_IN_LAUNCHER, "launcher/src/start/session.rs", "    tch::no_grad(|| 1);"), ["tch"]);
    holds(&NO_TENSORS_IN_LAUNCHER)
}

#[test]
fn hdf5_is_used_in_one_place() -> Result<()> {
    assert_eq!(words(&ONE_USER_OF_HDF5, "datasets/src/container/read.rs", "hdf5::File::open(path)?"), ["hdf5::File"]);
    assert!(words(&ONE_USER_OF_HDF5, "datasets/src/container/read.rs", "use crate::hdf5::read::Pixels;").is_empty());
    assert!(words(&ONE_USER_OF_HDF5, "datasets/src/hdf5/write.rs", "hdf5::File::create(path)?").is_empty());
    assert_eq!(words(&ONE_MANIFEST_WITH_HDF5, "trainer/Cargo.toml", "hdf5.workspace = true"), ["hdf5"]);
    holds(&ONE_USER_OF_HDF5)?;
    holds(&ONE_MANIFEST_WITH_HDF5)
}

#[test]
fn unsafe_code_stands_in_its_places() -> Result<()> {
    assert_eq!(words(&UNSAFE, "trainer/src/step/mod.rs", "let value = unsafe { *pointer };"), ["unsafe"]);
    assert!(words(&UNSAFE, "trainer/src/lib.rs", "#![deny(unsafe_code)]").is_empty());
    assert!(words(&UNSAFE, "comm/src/mpi.rs", "unsafe impl Send for World {}").is_empty());
    assert_eq!(words(&UNSAFE, "datasets/src/hdf5/map.rs.rs", "unsafe {}"), ["unsafe"]);
    holds(&UNSAFE)
}

#[test]
fn there_is_one_build_for_cpu_and_gpu() -> Result<()> {
    assert_eq!(words(&ONE_BUILD, "comm/src/lib.rs", "#[cfg(feature = \"cuda\")]"), ["cfg(feature"]);
    assert!(words(&ONE_BUILD, "comm/src/lib.rs", "#[cfg(test)]").is_empty());
    holds(&ONE_BUILD)
}

#[test]
fn only_the_launcher_prints() -> Result<()> {
    assert_eq!(words(&NO_PRINTING, "trainer/src/run/training.rs", "        println!(\"{loss}\");"), ["println!"]);
    assert_eq!(words(&NO_PRINTING, "trainer/src/run/training.rs", "eprintln!(\"{loss}\");"), ["eprintln!"]);
    holds(&NO_PRINTING)
}

#[test]
fn the_leader_is_asked_for_by_name() -> Result<()> {
    assert_eq!(words(&LEADER, "trainer/src/run/state.rs", "if ranks.rank() == 0 {"), ["rank() == 0"]);
    assert!(words(&LEADER, "comm/src/communicator.rs", "self.rank() == 0").is_empty());
    holds(&LEADER)
}

#[test]
fn nothing_draws_from_a_global_generator() -> Result<()> {
    let draw = "let start = Tensor::rand([3], options);";
    assert_eq!(words(&RANDOM, "trainer/src/method/attack/pgd.rs", draw), ["Tensor::rand"]);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{draw}\n}}");
    assert!(words(&RANDOM, "trainer/src/method/attack/pgd.rs", &tests).is_empty());
    holds(&RANDOM)
}

#[test]
fn nothing_in_a_step_waits_for_its_device() -> Result<()> {
    let read = "let loss = f64::try_from(&total)?;";
    assert_eq!(words(&NO_WAITING, "trainer/src/step/mod.rs", read), ["f64::try_from"]);
    assert_eq!(words(&NO_WAITING, "trainer/src/model/resnet.rs", "bool::try_from(map.any())"), ["bool::try_from"]);
    assert!(words(&NO_WAITING, "trainer/src/system/transfer.rs", read).is_empty());
    assert!(words(&NO_WAITING, "trainer/src/model/tests.rs", read).is_empty());
    holds(&NO_WAITING)
}

/// A rule whose folder was renamed must fail, not pass over nothing.
#[test]
fn a_rule_about_a_place_that_is_gone_fails() {
    assert!(find(checkout(), &Rule { within: &["losses/src"], ..UNSAFE }).is_err());
    let seen = find(checkout(), &Rule { words: &["pub"], except: &[], ..UNSAFE });
    assert!(seen.is_ok_and(|found| PROGRAM.iter().all(|part| found.iter().any(|one| one.file.starts_with(part)))));
}

/// A file that is tracked and ignored gets lost when somebody adds all files anew.
#[test]
fn no_file_of_the_repository_is_ignored() -> Result<()> {
    let git = |arguments: &[&str]| std::process::Command::new("git").current_dir(checkout()).args(arguments).output();
    let Some(tracked) = git(&["ls-files"]).ok().filter(|output| output.status.success()) else {
        tell("skipped: ignored files (not a clone)");
        return Ok(());
    };
    assert!(String::from_utf8_lossy(&tracked.stdout).contains("fixtures/runs/version-1/tiny.h5"));
    let ignored = git(&["ls-files", "--cached", "--ignored", "--exclude-standard"])?;
    assert_eq!(String::from_utf8_lossy(&ignored.stdout), "");
    Ok(())
}
