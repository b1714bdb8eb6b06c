//! What is said before missing teachers are trained: that they are, and what it costs.

use std::collections::BTreeMap;

use trainer::config::Override;
use trainer::run::cost::{self, Forward, ImageCounts};
use trainer::run::prepare::prepare;

use super::jobs::Job;
use crate::console::{counted, operations, tell};
use crate::draw::grouped;

/// Says in one line for each run before the last `students` that it is a teacher's, and what it costs; and in one that
/// `changes` of the command line do not reach them.
pub(super) fn announce(jobs: &[Job], students: usize, changes: &[Override]) {
    let (teachers, students) = jobs.split_at(jobs.len().saturating_sub(students));
    let Some(student) = students.first() else { return };
    for teacher in teachers {
        let (folder, epochs) = (teacher.folder.path.display(), teacher.config.epochs);
        let from = match teacher.folder.checkpoints().first() {
            Some((step, _)) => format!(", from step {step} on"),
            None => String::new(),
        };
        tell(&format!(
            "teacher missing: {folder} is trained first{from}, {}{}; --no-teachers refuses instead",
            counted(epochs, "epoch"),
            cost_text(teacher)
        ));
    }
    let reaches = |change: &Override| change.key.starts_with("teachers.");
    if !teachers.is_empty() && changes.iter().any(|change| !reaches(change)) {
        let name = student.config.teachers.keys().next().map_or("NAME", String::as_str);
        tell(&format!("--set does not reach a teacher: --set teachers.{name}.set.KEY=VALUE does"));
    }
}

/// ` of 50,000 images, 12.3 PFLOP`; nothing where the images or a teacher's own teacher cannot be opened yet.
fn cost_text(job: &Job) -> String {
    let mut config = job.config.clone();
    config.teachers.clear();
    let Ok(prepared) = prepare(&config, false) else { return String::new() };
    let images = ImageCounts {
        // The ranks are not known yet, and change at most the last step of an epoch.
        train: config.images_of_epoch(prepared.train.len() as u64, 1),
        selection: prepared.selection.as_ref().map_or(0, |(source, _)| source.len() as u64),
        test: prepared.evaluated.len() as u64,
    };
    let cost = cost::of(&job.config, Forward::of(prepared.form), &BTreeMap::new(), images);
    format!(
        " of {} images, {}",
        grouped(images.train as i64),
        operations(2.0 * (cost.training + cost.selection + cost.evaluation) as f64)
    )
}
