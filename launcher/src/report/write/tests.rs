//! The report from folders on disk to finished files.

use std::{
    env, process,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::*;

const METRICS: &str = r#"{"event":"started","run":"a<b","steps_per_epoch":2,"epochs":1,"parameters":77850,"timing":{}}
{"event":"step","epoch":0,"step":1,"learning_rate":0.02,"loss":2.0,"terms":{"teach":1.5,"introspect":0.5}}
{"event":"step","epoch":0,"step":2,"learning_rate":0.05,"loss":null,"terms":{"teach":null}}
{"event":"epoch","epoch":0,"step":2,"loss":2.0,"terms":{"teach":1.5,"introspect":0.5},"counts":{"case_a":{"count":3,"of":4},"student_natural":{"count":1,"of":4}},"trust":{"mean":0.9,"of":4},"timing":{"seconds":41.0,"images_per_second":14.0}}
{"event":"evaluated","epoch":0,"step":2,"split":"held_out","best":true,"attacks":[{"name":"natural","correct":9,"of":10}]}
{"event":"warned","message":"<script>"}
{"event":"finished","step":2,"timing":{"seconds":50.0}}
{"event":"st"#;
const EVALUATION: &str = r#"{"run":"a","weights":"best","step":2,"split":"test","images":10000,"eps":0.03137254901960784,
"attacks":[{"name":"natural","correct":8721,"of":10000},{"name":"pgd20","correct":5000,"of":10000}]}"#;

fn folder() -> PathBuf {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let folder = env::temp_dir().join(format!("report-test-{}-{number}", process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn run_folder() -> PathBuf {
    let folder = folder();
    fs::write(folder.join("metrics.jsonl"), METRICS).unwrap();
    fs::write(folder.join("evaluation.json"), EVALUATION).unwrap();
    fs::write(folder.join("run.toml"), "name = \"<x>\"\n").unwrap();
    folder
}

#[test]
fn a_missing_folder_or_metrics_file_is_named() {
    let absent = env::temp_dir().join("report-test-absent");
    let error = table(std::slice::from_ref(&absent)).unwrap_err();
    assert!(error.to_string().contains(&absent.display().to_string()), "{error}");
    let empty = folder();
    let error = write_page(std::slice::from_ref(&empty), &empty.join("page.html")).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&empty.display().to_string()) && text.contains("without metrics.jsonl"), "{text}");
    assert!(table(&[]).is_err());
    fs::remove_dir_all(empty).unwrap();
}

#[test]
fn a_damaged_evaluation_is_named() {
    let folder = run_folder();
    fs::write(folder.join("evaluation.json"), "{").unwrap();
    let error = table(std::slice::from_ref(&folder)).unwrap_err();
    assert!(error.to_string().contains("evaluation.json"), "{error}");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_page_holds_everything_escaped_and_nothing_from_outside() {
    let folder = run_folder();
    let path = folder.join("new/page.html");
    write_page(std::slice::from_ref(&folder), &path).unwrap();
    let page = fs::read_to_string(&path).unwrap();
    let expected = [
        "a&lt;b",
        "&lt;script&gt;",
        "&lt;x&gt;",
        "87.21 ± 0.33",
        "8/255",
        "41.0 s",
        "0.9000",
        "25.0 %",
        "1 of 1 epochs",
        "not a number at 1 logged steps",
        "Accuracy on training images",
        "Learning rate",
        "Training speed",
    ];
    for part in expected {
        assert!(page.contains(part), "{part} is missing");
    }
    for part in ["<script", "NaN", "inf ", "href=", "src="] {
        assert!(!page.contains(part), "{part} must not stand there");
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_figure_is_a_document_of_its_own_and_leaves_out_what_has_no_data() {
    let folder = run_folder();
    let path = folder.join("figure.svg");
    write_figure(std::slice::from_ref(&folder), &path).unwrap();
    let figure = fs::read_to_string(&path).unwrap();
    assert!(figure.starts_with("<svg xmlns=") && figure.ends_with("</svg>\n"));
    assert!(figure.contains("<circle") && !figure.contains("teacher, natural"));
    fs::write(folder.join("metrics.jsonl"), "").unwrap();
    let error = write_figure(std::slice::from_ref(&folder), &path).unwrap_err();
    assert!(error.to_string().contains("no curves"), "{error}");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_table_fits_a_terminal_and_tells_equal_names_apart() {
    let folders = [run_folder(), run_folder()];
    let text = table(&folders).unwrap();
    assert!(text.contains("87.21 ± 0.33") && text.contains("introspect %"));
    assert!(text.contains(&format!("a<b ({})", folders[1].display())));
    let alone = table(&folders[..1]).unwrap();
    assert!(alone.starts_with("run  weights  images  natural       pgd20\na<b  best     10000   87.21 ± 0.33  50.00"));
    assert!(alone.lines().all(|line| line.chars().count() <= 100));
    for folder in folders {
        fs::remove_dir_all(folder).unwrap();
    }
}
