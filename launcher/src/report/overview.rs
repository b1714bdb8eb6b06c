//! What a reader should know first: the results in sentences, the student beside its teacher, when and how it was made.

use std::path::Path;

use toml::{Table, Value};
use trainer::evaluate::Accuracy;
use trainer::run::folder::RunFolder;
use trainer::system::files::read_text;

use super::data::{Evaluation, RecordedRun};
use super::percentage::{percentage, wilson};
use super::summary::{attacked_within, budget};
use crate::draw::{Grid, NOTHING, grouped};

/// The start, the program and the command of the run's last session, and what the run computed in, in one line.
pub fn made(run: &RecordedRun) -> Option<String> {
    let environment: Table = run.environment.as_ref()?.parse().ok()?;
    let session = environment.get("session")?.as_array()?.last()?;
    let text = |key: &str| session.get(key).and_then(Value::as_str).unwrap_or(NOTHING);
    let command = without_place(text("command"));
    let known = session.get("precision").and_then(Value::as_str);
    let precision = known.map_or(String::new(), |precision| format!("; precision {precision}"));
    let (name, started, version) = (&run.name, text("started"), text("program"));
    Some(format!("{name}: “{command}”, started {started} by {version}{precision}"))
}

/// A command from the program's name on: where the program stands says nothing to a reader.
fn without_place(command: &str) -> &str {
    let is_program = |(at, name): &(usize, &str)| {
        let (before, behind) = (&command[..*at], &command[at + name.len()..]);
        (before.is_empty() || before.ends_with('/')) && (behind.is_empty() || behind.starts_with(' '))
    };
    command.match_indices("iad-launch").find(is_program).map_or(command, |(at, _)| &command[at..])
}

/// The results of each run in one or two sentences.
pub fn sentences(run: &RecordedRun) -> String {
    let name = &run.name;
    let Some(evaluation) = &run.evaluation else {
        return format!("{name} has no final evaluation yet.");
    };
    let said = |attack: &Accuracy| {
        let (percent, _) = percentage(attack.correct, attack.of)?;
        let (low, high) = wilson(attack.correct, attack.of)?;
        Some(format!("{percent:.2} % (95 % interval {low:.2} to {high:.2})"))
    };
    let natural = evaluation.attacks.iter().find(|attack| attack.name == "natural");
    let strongest = evaluation.attacks.iter().filter(|attack| attack.name != "natural" && attack.of > 0);
    let share = |attack: &Accuracy| attack.correct as f64 / attack.of as f64;
    let strongest = strongest.min_by(|one, other| share(one).total_cmp(&share(other)));
    let split = evaluation.split.as_deref().unwrap_or("test").replace('_', "-");
    let of = natural.or(strongest).map_or(0, |attack| attack.of);
    let mut text = format!("{name}: of {} {split} images", grouped(of as i64));
    match (natural.and_then(said), strongest.and_then(|attack| Some((attack, said(attack)?)))) {
        (natural, Some((attack, under))) => {
            let without = natural.map(|natural| format!(" the network gets {natural} right, and")).unwrap_or_default();
            let within = attacked_within(run).map(|eps| format!(" within {eps}")).unwrap_or_default();
            text += &format!("{without} {under} under {}, the strongest attack of the suite{within}.", attack.name);
        }
        (Some(natural), None) => text += &format!(" the network gets {natural} right. No attack was evaluated."),
        (None, None) => text += " nothing was evaluated.",
    }
    text
}

/// One column for each student, beside its teachers that were evaluated in their own run folders within the same radius.
pub fn beside_teachers(runs: &[RecordedRun]) -> Grid {
    let mut attacks: Vec<String> = vec![];
    let students: Vec<(&RecordedRun, &Evaluation)> =
        runs.iter().filter_map(|run| Some((run, run.evaluation.as_ref()?))).collect();
    for (_, evaluation) in &students {
        super::names::collect(&mut attacks, evaluation.attacks.iter().map(|attack| attack.name.as_str()));
    }
    let mut columns = vec!["number".to_owned()];
    columns.extend(attacks.iter().map(|attack| format!("{attack} %")));
    columns.extend(["eps", "weights' SHA-256", "images' SHA-256"].map(str::to_owned));
    let row = |name: String, evaluation: &Evaluation| {
        let cell = |name: &String| {
            let found = evaluation.attacks.iter().find(|attack| attack.name == *name);
            let known = found.and_then(|attack| {
                Some((percentage(attack.correct, attack.of)?.0, wilson(attack.correct, attack.of)?))
            });
            known.map_or(NOTHING.to_owned(), |(percent, (low, high))| format!("{percent:.2} [{low:.2}, {high:.2}]"))
        };
        let short =
            |hash: &Option<String>| hash.as_deref().and_then(|hash| hash.get(..12)).unwrap_or(NOTHING).to_owned();
        let eps = evaluation.eps.map_or(NOTHING.to_owned(), |eps| budget(evaluation.norm, eps));
        let hashes = [eps, short(&evaluation.weights_sha256), short(&evaluation.data_sha256)];
        std::iter::once(name).chain(attacks.iter().map(cell)).chain(hashes).collect()
    };
    let mut rows = vec![];
    for (run, evaluation) in students {
        rows.push(row(run.name.clone(), evaluation));
        for (name, teacher) in teachers(run) {
            let same = (teacher.norm, teacher.precision, teacher.eps, &teacher.data_sha256)
                == (evaluation.norm, evaluation.precision, evaluation.eps, &evaluation.data_sha256);
            if same {
                rows.push(row(format!("{}, teacher {name}", run.name), &teacher));
            }
        }
    }
    Grid { columns, rows }.turned()
}

/// The evaluations of a run's teachers, from their run folders where they can be found.
fn teachers(run: &RecordedRun) -> Vec<(String, Evaluation)> {
    let config = run.config.as_ref().and_then(|text| text.parse::<Table>().ok());
    let named = config.as_ref().and_then(|config| config.get("teachers")?.as_table());
    let evaluation = |(name, teacher): (&String, &Value)| {
        let folder = RunFolder::at(Path::new(teacher.get("checkpoint")?.as_str()?));
        let text = read_text(&folder.evaluation(None)).ok()?;
        Some((name.clone(), serde_json::from_str(&text).ok()?))
    };
    named.into_iter().flatten().filter_map(evaluation).collect()
}

/// The protocol of the final evaluations, one sentence for each run.
pub fn protocol(run: &RecordedRun) -> Option<String> {
    let evaluation = run.evaluation.as_ref()?;
    let mut parts = vec![];
    parts.extend(attacked_within(run).map(|eps| format!("eps {eps}")));
    parts.extend(evaluation.attack_step.map(|step| format!("step {}", budget(evaluation.norm, step))));
    parts.extend((!evaluation.precision.is_default()).then(|| format!("in {}", evaluation.precision.name())));
    parts.extend(evaluation.seed.map(|seed| format!("seed {seed}")));
    parts.extend(evaluation.selection.as_ref().map(|chosen| match chosen.as_str() {
        "held_out" => "weights chosen on held-out training images".to_owned(),
        "test" => "weights chosen on the test images".to_owned(),
        _ => "weights not chosen by accuracy".to_owned(),
    }));
    (!parts.is_empty()).then(|| format!("{}: {}.", run.name, parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(evaluation: &str) -> RecordedRun {
        RecordedRun { name: "r".into(), evaluation: serde_json::from_str(evaluation).ok(), ..RecordedRun::default() }
    }

    #[test]
    fn the_strongest_attack_is_named_with_its_interval() {
        let run =
            run(r#"{"split":"test","eps":0.03137254901960784,"attacks":[{"name":"natural","correct":87,"of":100},
            {"name":"fgsm","correct":60,"of":100},{"name":"pgd20","correct":50,"of":100}]}"#);
        assert_eq!(
            sentences(&run),
            "r: of 100 test images the network gets 87.00 % (95 % interval 79.02 to 92.24) right, and 50.00 % (95 % interval \
             40.38 to 59.62) under pgd20, the strongest attack of the suite within 8/255."
        );
        assert_eq!(
            sentences(&RecordedRun { name: "r".into(), ..RecordedRun::default() }),
            "r has no final evaluation yet."
        );
    }

    #[test]
    fn the_command_is_shown_without_the_place_of_the_program() {
        let environment = "[[session]]\nstarted = \"now\"\nprogram = \"iad-launch 1 (abc)\"\n\
                           command = \"/home/me/bin/iad-launch a.toml --run /data/a\"\n";
        let run = RecordedRun { name: "r".into(), environment: Some(environment.into()), ..RecordedRun::default() };
        assert_eq!(made(&run).unwrap(), "r: “iad-launch a.toml --run /data/a”, started now by iad-launch 1 (abc)");
        assert_eq!(without_place("/src/iad-launch/my bin/iad-launch a b.toml"), "iad-launch a b.toml");
        assert_eq!(without_place("iad-launch"), "iad-launch");
        assert_eq!(without_place("/bin/own a.toml"), "/bin/own a.toml");
    }

    #[test]
    fn a_teacher_of_the_same_protocol_is_shown_beside_its_student() {
        let folder = tempfile::tempdir().unwrap();
        let evaluation = |eps: f64| {
            format!(
                r#"{{"eps":{eps},"data_sha256":"0123456789abcdef","attacks":[{{"name":"natural","correct":9,"of":10}}]}}"#
            )
        };
        let config = format!("[teachers.robust]\ncheckpoint = {:?}\n", folder.path().display().to_string());
        let student = RecordedRun { config: Some(config), ..run(&evaluation(0.5)) };
        std::fs::write(folder.path().join("evaluation.json"), evaluation(0.5)).unwrap();
        let grid = beside_teachers(std::slice::from_ref(&student));
        assert_eq!(grid.columns, ["number", "r", "r, teacher robust"]);
        assert_eq!(grid.rows[0], ["natural %", "90.00 [59.58, 98.21]", "90.00 [59.58, 98.21]"]);
        assert_eq!(grid.rows.last().unwrap()[2], "0123456789ab");
        std::fs::write(folder.path().join("evaluation.json"), evaluation(0.25)).unwrap();
        assert_eq!(beside_teachers(&[student]).columns, ["number", "r"]);
    }
}
