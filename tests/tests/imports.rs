//! The folders of each crate have an order, and no file imports itself through others.

use anyhow::Result;
use tests::{Arrow, arrows, checkout, loops, upward};

/// The crates by their root files, and the order of their folders: each may use its own and those before it.
const CRATES: &[(&str, &[&[&str]])] = &[
    (
        "datasets/src/lib.rs",
        &[
            &["ground"],
            &["formats"],
            &["schema"],
            &["hdf5"],
            &["container"],
            &["fetch"],
            &["import"],
            &["sheet"],
            &["batches"],
            &["lib.rs"],
        ],
    ),
    (
        "trainer/src/lib.rs",
        &[
            &["system"],
            &["config"],
            &["model"],
            &["method"],
            &["step"],
            &["weights"],
            &["evaluate"],
            &["run"],
            &["bench"],
            &["lib.rs"],
        ],
    ),
    (
        "launcher/src/main.rs",
        &[
            &["exit.rs"],
            &["command"],
            &["console"],
            &["draw"],
            &["start"],
            &["report"],
            &["train"],
            &["evaluate"],
            &["weights", "data.rs"],
            &["paper"],
            &["bench"],
            &["machine.rs"],
            &["plan"],
            &["doctor"],
            &["runs"],
            &["metrics"],
            &["sbatch"],
            &["init"],
            &["settings.rs"],
            &["main.rs"],
        ],
    ),
];

/// Crates without folders to order.
const FLAT: &[&str] = &["torch-ext/src/lib.rs", "comm/src/lib.rs"];

fn told(arrows: &[Arrow]) -> String {
    let line = |arrow: &Arrow| format!("  {}:{} uses {} of {}", arrow.from, arrow.line, arrow.name, arrow.to);
    arrows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn no_files_import_each_other() -> Result<()> {
    for root in CRATES.iter().map(|(root, _)| root).chain(FLAT) {
        let arrows = arrows(&checkout().join(root))?;
        assert!(!arrows.is_empty(), "{root}: no arrow was found");
        let found: Vec<String> = loops(&arrows).iter().map(|way| told(way)).collect();
        assert!(found.is_empty(), "{root}: {} loops\n{}", found.len(), found.join("\n\n"));
    }
    Ok(())
}

#[test]
fn every_folder_uses_only_those_before_it() -> Result<()> {
    for (root, order) in CRATES {
        let arrows = arrows(&checkout().join(root))?;
        let found: Vec<Arrow> = upward(&arrows, order)?.into_iter().cloned().collect();
        assert!(found.is_empty(), "{root}: against the order of its folders\n{}", told(&found));
    }
    Ok(())
}
