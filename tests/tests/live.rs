//! The live view on a terminal: it shows a run, gives way to lines that stay, and leaves the terminal as it was, however the run
//! ends. `script` of util-linux makes the terminal.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use tests::{Images, Program, World, tell};

/// The lines of a terminal of so many columns after `bytes`: carriage returns, line feeds, moves up and erasure, the only
/// controls that the program may use.
fn screen(text: &str, columns: usize) -> Vec<String> {
    let (mut lines, mut row, mut column) = (vec![vec![]], 0usize, 0usize);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\r' => column = 0,
            '\n' => row += 1,
            '\u{1b}' => {
                assert_eq!(letters.next(), Some('['), "a control of another kind in {text:?}");
                let mut number = String::new();
                while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                    number.push(digit);
                }
                match letters.next() {
                    Some('A') => row = row.saturating_sub(number.parse().unwrap_or(1)),
                    Some('J') => {
                        lines.truncate(row + 1);
                        lines[row].truncate(column);
                    }
                    other => panic!("the control {other:?} would have to be undone at the end: {text:?}"),
                }
            }
            letter => {
                if column == columns {
                    (row, column) = (row + 1, 0);
                }
                while lines.len() <= row {
                    lines.push(vec![]);
                }
                let length = lines[row].len().max(column + 1);
                lines[row].resize(length, ' ');
                lines[row][column] = letter;
                column += 1;
            }
        }
        while lines.len() <= row {
            lines.push(vec![]);
        }
    }
    lines.into_iter().map(|line| line.into_iter().collect::<String>().trim_end().to_string()).collect()
}

/// A terminal of so many columns in which `words` are typed; what it has received goes to `record`.
fn on_a_terminal(columns: usize, words: &[&str], record: &Path) -> Result<Program> {
    let quoted = |word: &&str| format!("'{word}'");
    let program = std::env::current_exe()?.parent().and_then(Path::parent).context("a folder")?.join("iad-launch");
    let words = words.iter().map(quoted).collect::<Vec<_>>().join(" ");
    let line = format!("stty cols {columns} rows 30; exec {} {words}", program.display());
    Ok(Program::other("script").args(["-q", "-e", "-f", "-c", &line]).args([record]).variable("TERM", "xterm"))
}

fn there_is_script() -> bool {
    let there = Command::new("script").arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        tell("skipped: there is no script(1) of util-linux to make a terminal");
    }
    there
}

/// What the terminal received, without the lines that `script` adds.
fn received(record: &Path) -> Result<String> {
    let text = String::from_utf8_lossy(&fs::read(record)?).into_owned();
    let text = text.split_once('\n').map_or("", |(_, rest)| rest).to_string();
    Ok(text.split("\nScript done").next().unwrap_or_default().to_string())
}

#[test]
fn a_run_in_view_leaves_lines_alone_behind() -> Result<()> {
    if !there_is_script() {
        return Ok(());
    }
    let world = World::new()?;
    let data = world.images("data", Images::colour(64))?;
    let changes = [("epochs", "3"), ("evaluation.selection", "\"held_out\""), ("evaluation.held_out", "0.25")];
    let config = world.config("short", &data, &changes)?.display().to_string();
    let (run, record) = (world.run("seen"), world.path("record"));
    let words = [config.as_str(), "--run", &run.display().to_string()];
    on_a_terminal(60, &words, &record)?.run()?.expect(0);
    let text = received(&record)?;
    assert!(text.contains("epoch      [") && text.contains("loss       ") && text.contains("time       "), "{text:?}");
    assert!(text.contains("\u{1b}[4A\u{1b}[J") || text.contains("\u{1b}[5A\u{1b}[J"), "nothing is replaced: {text:?}");
    let left = screen(&text, 60).join("\n");
    assert!(!left.contains("run        [") && !left.contains("loss       "), "the view stayed:\n{left}");
    for part in ["epoch 3/3: loss", "  on held_out: natural", "trained 9 steps", "report: "] {
        assert!(left.contains(part), "{part} is missing in\n{left}");
    }

    let plain = world.path("record-plain");
    let words = [config.as_str(), "--plain", "--run", &world.run("plain").display().to_string()];
    on_a_terminal(60, &words, &plain)?.run()?.expect(0);
    let text = received(&plain)?;
    assert!(!text.contains('\u{1b}') && text.contains("epoch 3/3: loss"), "{text:?}");
    Ok(())
}

#[test]
fn a_run_that_is_interrupted_leaves_the_terminal_clean_and_can_be_resumed() -> Result<()> {
    if !there_is_script() {
        return Ok(());
    }
    let world = World::new()?;
    let data = world.images("data", Images::colour(64))?;
    let config = world.config("long", &data, &[("epochs", "3000")])?.display().to_string();
    let (run, record) = (world.run("long"), world.path("record"));
    let folder = run.display().to_string();
    let mut running = on_a_terminal(70, &[&config, "--run", &folder], &record)?.start()?;
    let seen = || received(&record).is_ok_and(|text| text.matches("run        [").count() > 3);
    running.wait_until("the view", seen)?;
    running.signal("INT", &running.processes("iad-launch"));
    running.wait()?.expect(85);
    let left = screen(&received(&record)?, 70);
    assert!(left.iter().all(|line| !line.contains("run        [")), "the view stayed: {left:#?}");
    assert!(left.iter().any(|line| line.contains("the same command goes on from here")), "{left:#?}");
    let ended = Program::alone().args([&config, "--run", &folder]).set("epochs", 3000).stop_after(1).run()?.expect(85);
    assert!(ended.said.contains("going on from step"), "{}", ended.said);

    // An error of the program ends in one message, and nothing of the view is left around it.
    let failed = world.path("record-failed");
    let fault = ["--inject", "rank=0,step=4,phase=attack,kind=panic", "--allow-fault-injection"];
    let other = world.run("failed").display().to_string();
    let words = [&[config.as_str(), "--run", &other][..], &fault].concat();
    on_a_terminal(70, &words, &failed)?.run()?.expect(1);
    let text = received(&failed)?;
    assert!(text.contains("run        ["), "there was no view: {text:?}");
    let left = screen(&text, 70);
    assert!(left.iter().all(|line| !line.contains("run        [")), "the view stayed: {left:#?}");
    assert!(left.join("").contains("error: "), "{left:#?}");
    Ok(())
}

#[test]
fn the_stand_in_for_a_terminal_erases_and_wraps() {
    assert_eq!(screen("one\r\ntwo\r\nthree\r\u{1b}[1A\u{1b}[Jfour\r\n", 10), ["one", "four", ""]);
    assert_eq!(screen("12345", 3), ["123", "45"]);
}
