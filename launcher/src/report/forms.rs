//! The final evaluations in forms for other programs and for papers: CSV, JSON and LaTeX.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Map, Value, json};
use trainer::evaluate::Accuracy;

use super::data::{Evaluation, RecordedRun, read};
use super::names::collect;
use super::percentage::percentage;
use super::seeds::{OverSeeds, over_seeds};
use crate::command::Form;

/// The results of the runs in `folders`, one row for each weights that were evaluated, and after them mean and sample standard
/// deviation over the seeds of runs that differ in these alone.
///
/// # Errors
/// A folder has no readable `metrics.jsonl`, or a file in it is damaged.
pub fn results_as(folders: &[PathBuf], form: Form) -> Result<String> {
    let runs = read(folders)?;
    let evaluations: Vec<(&RecordedRun, &Evaluation)> =
        runs.iter().flat_map(|run| run.evaluation.iter().chain(&run.others).map(move |found| (run, found))).collect();
    let mut attacks = vec![];
    for (_, evaluation) in &evaluations {
        collect(&mut attacks, evaluation.attacks.iter().map(|attack| attack.name.as_str()));
    }
    let seeds = over_seeds(&runs);
    Ok(match form {
        Form::Csv => csv(&evaluations, &attacks, &seeds),
        Form::Json => {
            let rows = evaluations.iter().map(|(run, evaluation)| row(run, evaluation));
            serde_json::to_string_pretty(&rows.chain(seeds.iter().map(row_of_seeds)).collect::<Vec<_>>())? + "\n"
        }
        Form::Latex => latex(&evaluations, &attacks, &seeds),
    })
}

fn found<'a>(evaluation: &'a Evaluation, name: &str) -> Option<&'a Accuracy> {
    evaluation.attacks.iter().find(|attack| attack.name == name)
}

fn weights(evaluation: &Evaluation) -> &str {
    evaluation.weights.as_deref().unwrap_or("best")
}

fn csv(evaluations: &[(&RecordedRun, &Evaluation)], attacks: &[String], seeds: &[OverSeeds]) -> String {
    let mut text = "run,weights,step,split,norm,eps".to_string();
    for name in attacks {
        text += &format!(",{name}_correct,{name}_of,{name}_percent,{name}_error");
    }
    text += ",statistic,seeds\n";
    let number = |value: Option<String>| value.unwrap_or_default();
    for (run, evaluation) in evaluations {
        text += &[
            quoted(&run.name),
            quoted(weights(evaluation)),
            number(evaluation.step.map(|step| step.to_string())),
            quoted(evaluation.split.as_deref().unwrap_or("test")),
            evaluation.norm.to_string(),
            number(evaluation.eps.map(|eps| eps.to_string())),
        ]
        .join(",");
        for name in attacks {
            let attack = found(evaluation, name);
            let percent = attack.and_then(|attack| percentage(attack.correct, attack.of));
            match (attack, percent) {
                (Some(Accuracy { correct, of, .. }), Some((percent, error))) => {
                    text += &format!(",{correct},{of},{percent:.4},{error:.4}");
                }
                _ => text += ",,,,",
            }
        }
        text += ",run,\n";
    }
    for one in seeds {
        let split = one.split.as_deref().unwrap_or("test");
        let begin = [quoted(&one.name), quoted(&one.weights), String::new(), quoted(split), one.norm.to_string()];
        let begin = format!("{},{}", begin.join(","), number(one.eps.map(|eps| eps.to_string())));
        let all: Vec<String> = one.seeds.iter().map(u64::to_string).collect();
        for statistic in ["mean", "standard_deviation"] {
            let cell = |name: &String| {
                let figure = one.attacks.iter().find(|(known, _)| known == name);
                let value = figure.and_then(|(_, figure)| match statistic {
                    "mean" => Some(figure.value),
                    _ => figure.spread,
                });
                format!(",,,{},", number(value.map(|value| format!("{value:.4}"))))
            };
            let cells: String = attacks.iter().map(cell).collect();
            text += &format!("{begin}{cells},{statistic},{}\n", all.join(" "));
        }
    }
    text
}

/// A cell of CSV, in quotes where it needs them.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_string() }
}

fn row(run: &RecordedRun, evaluation: &Evaluation) -> Value {
    let attack = |attack: &Accuracy| {
        let (percent, error) = percentage(attack.correct, attack.of).unzip();
        json!({ "correct": attack.correct, "of": attack.of, "percent": percent, "error": error })
    };
    let attacks: Map<String, Value> =
        evaluation.attacks.iter().map(|found| (found.name.clone(), attack(found))).collect();
    json!({
        "run": run.name, "folder": run.folder, "weights": weights(evaluation), "step": evaluation.step,
        "split": evaluation.split, "norm": evaluation.norm, "eps": evaluation.eps, "attacks": attacks,
    })
}

/// Mean and deviation over seeds.
fn row_of_seeds(one: &OverSeeds) -> Value {
    let mut row = one.json();
    row["run"] = one.name.clone().into();
    row
}

/// A table for the package booktabs.
fn latex(evaluations: &[(&RecordedRun, &Evaluation)], attacks: &[String], seeds: &[OverSeeds]) -> String {
    let heads: Vec<String> = attacks.iter().map(|name| escaped(name)).collect();
    let mut text = format!(
        "% accuracy in % with its binomial standard error; needs \\usepackage{{booktabs}}\n\
         \\begin{{tabular}}{{ll{}}}\n\\toprule\nrun & weights & {} \\\\\n\\midrule\n",
        "r".repeat(attacks.len()),
        heads.join(" & ")
    );
    for (run, evaluation) in evaluations {
        let cells = attacks.iter().map(|name| {
            let percent = found(evaluation, name).and_then(|attack| percentage(attack.correct, attack.of));
            percent.map_or("--".to_string(), |(percent, error)| format!("${percent:.2} \\pm {error:.2}$"))
        });
        let cells: Vec<String> = [escaped(&run.name), escaped(weights(evaluation))].into_iter().chain(cells).collect();
        text += &format!("{} \\\\\n", cells.join(" & "));
    }
    if !seeds.is_empty() {
        text += "\\midrule\n% mean over seeds and sample standard deviation\n";
    }
    for one in seeds {
        let cell = |name: &String| {
            let figure = one.attacks.iter().find(|(known, _)| known == name);
            let numbers = figure.and_then(|(_, figure)| Some((figure.value, figure.spread?)));
            numbers.map_or("--".to_string(), |(mean, spread)| format!("${mean:.2} \\pm {spread:.2}$"))
        };
        let name = format!("{}, {} seeds", escaped(&one.name), one.seeds.len());
        let cells: Vec<String> = [name, escaped(&one.weights)].into_iter().chain(attacks.iter().map(cell)).collect();
        text += &format!("{} \\\\\n", cells.join(" & "));
    }
    text + "\\bottomrule\n\\end{tabular}\n"
}

/// Text that LaTeX shows as it is.
fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for letter in text.chars() {
        match letter {
            '_' | '%' | '&' | '#' | '$' | '{' | '}' => safe.extend(['\\', letter]),
            '\\' => safe += "\\textbackslash{}",
            '~' => safe += "\\textasciitilde{}",
            '^' => safe += "\\textasciicircum{}",
            plain => safe.push(plain),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use trainer::config::Norm;

    use super::super::spread::Figure;
    use super::*;

    fn run(name: &str) -> RecordedRun {
        let evaluation = r#"{"weights":"best","step":7,"eps":0.5,"attacks":[{"name":"natural","correct":87,"of":100},
            {"name":"fgsm_rs","correct":50,"of":100}]}"#;
        let evaluation = Some(serde_json::from_str(evaluation).unwrap());
        RecordedRun { name: name.into(), evaluation, ..RecordedRun::default() }
    }

    #[test]
    fn all_forms_hold_the_same_numbers() {
        let run = run("a_run, \"mine\"");
        let evaluations = [(&run, run.evaluation.as_ref().unwrap())];
        let attacks = ["natural", "fgsm_rs", "pgd20"].map(String::from);
        let figure = Figure { value: 86.5, spread: Some(0.72), runs: 2 };
        let seeds = OverSeeds {
            name: "a_run".into(),
            weights: "best".into(),
            split: None,
            norm: Norm::Linf,
            eps: Some(0.5),
            seeds: vec![1, 2],
            attacks: vec![("natural".into(), figure)],
        };
        let lines = csv(&evaluations, &attacks, std::slice::from_ref(&seeds));
        let width = |line: &str| line.replace("a_run, \"\"mine", "").split(',').count();
        assert!(lines.lines().all(|line| width(line) == 6 + 4 * 3 + 2), "{lines}");
        assert!(
            lines.ends_with(
                "\"a_run, \"\"mine\"\"\",best,7,test,linf,0.5,87,100,87.0000,3.3630,50,100,50.0000,5.0000,,,,,run,\n\
                 a_run,best,,test,linf,0.5,,,86.5000,,,,,,,,,,mean,1 2\n\
                 a_run,best,,test,linf,0.5,,,0.7200,,,,,,,,,,standard_deviation,1 2\n"
            ),
            "{lines}"
        );
        let json = row(&run, evaluations[0].1);
        assert_eq!((json["attacks"]["natural"]["correct"].as_u64(), json["step"].as_u64()), (Some(87), Some(7)));
        let averaged = row_of_seeds(&seeds);
        assert_eq!((&averaged["attacks"]["natural"]["mean"], &averaged["seeds"]), (&json!(86.5), &json!([1, 2])));
        let table = latex(&evaluations, &attacks, &[seeds]);
        assert!(table.contains("a\\_run, 2 seeds & best & $86.50 \\pm 0.72$ & -- & --"), "{table}");
        assert!(
            table.contains("fgsm\\_rs & pgd20") && table.contains("$87.00 \\pm 3.36$ & $50.00 \\pm 5.00$ & --"),
            "{table}"
        );
    }

    #[test]
    fn names_cannot_break_a_table() {
        assert_eq!(escaped(r"50%_a\b"), r"50\%\_a\textbackslash{}b");
    }
}
