//! The pages of the documentation: all are in the book, say what they are for, and lead where they say; their examples work;
//! every command is shown on one and run by a test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tests::{Images, Program, World, checkout, files_below, python, tell};

/// README, the pages of docs/, and the pages beside them, with their text.
fn pages() -> Result<BTreeMap<PathBuf, String>> {
    let mut files: Vec<PathBuf> = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "configs/README.md"]
        .iter()
        .map(PathBuf::from)
        .collect();
    for folder in ["docs", "docs/gpu"] {
        for entry in fs::read_dir(checkout().join(folder))? {
            files.push(Path::new(folder).join(entry?.file_name()));
        }
    }
    files.retain(|file| file.extension().is_some_and(|ending| ending == "md"));
    files.into_iter().map(|file| Ok((file.clone(), fs::read_to_string(checkout().join(&file))?))).collect()
}

/// The text without what stands in blocks of code.
fn prose(page: &str) -> String {
    let mut code = false;
    let mut lines = vec![];
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        } else if !code {
            lines.push(line);
        }
    }
    lines.join("\n")
}

/// The blocks of code in `language`.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let mut found = vec![];
    let mut rest = page;
    while let Some((_, after)) = rest.split_once("\n```") {
        let Some((head, body)) = after.split_once('\n') else { break };
        let Some((block, after)) = body.split_once("\n```").or_else(|| Some(("", body.strip_prefix("```")?))) else {
            break;
        };
        if head == language {
            found.push(block);
        }
        rest = after;
    }
    found
}

/// The targets of the links of a page, without those that leave the checkout.
fn links(page: &str) -> Vec<String> {
    let text = prose(page);
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let inside =
        targets.map(|(target, _)| target).filter(|target| !target.contains("://") && !target.starts_with("mailto:"));
    inside.map(str::to_string).collect()
}

/// The places that a page can be linked to at, as GitHub and mdBook name them.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for heading in prose(page).lines().filter(|line| line.starts_with('#')) {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let letters = words.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        let name: String = letters.map(|letter| if letter == ' ' { '-' } else { letter }).collect();
        let free = (0..).map(|count| if count == 0 { name.clone() } else { format!("{name}-{count}") });
        if let Some(free) = free.into_iter().find(|name| !all.contains(name)) {
            all.insert(free);
        }
    }
    all
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() -> Result<()> {
    let pages = pages()?;
    let (mut count, mut broken) = (0, vec![]);
    for (file, text) in &pages {
        for link in links(text) {
            count += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() {
                checkout().join(file)
            } else {
                checkout().join(file.parent().unwrap_or(Path::new(""))).join(path)
            };
            let there = target.exists()
                && (anchor.is_empty() || anchors(&fs::read_to_string(&target).unwrap_or_default()).contains(anchor));
            if !there {
                broken.push(format!("{}: {link}", file.display()));
            }
        }
    }
    assert!(count > 100, "{count} links were found");
    assert!(broken.is_empty(), "{broken:#?}");
    Ok(())
}

#[test]
fn links_and_headings_are_found() {
    let page =
        "# A: b-c `d`\n[x](y.md#z) and [w](https://w.w)\n```\n# no heading, [no](link)\n```\n## Twice\n## Twice\n";
    assert_eq!(links(page), ["y.md#z"]);
    assert_eq!(anchors(page).into_iter().collect::<Vec<_>>(), ["a-b-c-d", "twice", "twice-1"]);
    assert_eq!(blocks("a\n```rust\nx\ny\n```\nb\n```\nz\n```\n", "rust"), ["x\ny"]);
    assert_eq!(blocks("a\n```rust\nx\ny\n```\nb\n```\nz\n```\n", ""), ["z"]);
}

#[test]
fn the_book_has_every_page_once() -> Result<()> {
    let summary = fs::read_to_string(checkout().join("docs/SUMMARY.md"))?;
    let mut listed = links(&summary);
    listed.sort();
    let pages = pages()?;
    let inside =
        pages.keys().filter_map(|file| file.strip_prefix("docs").ok()).filter(|file| *file != Path::new("SUMMARY.md"));
    let mut expected: Vec<String> = inside.map(|file| file.display().to_string()).collect();
    expected.sort();
    assert_eq!(listed, expected, "docs/SUMMARY.md lists other pages than there are in docs/");
    // One that reads on paper, too, finds them.
    let readme = links(&pages[Path::new("README.md")]);
    let missing: Vec<_> = ["tutorial", "install", "extend", "evaluate-your-model", "cluster", "configuration"]
        .iter()
        .filter(|page| !readme.contains(&format!("docs/{page}.md")))
        .collect();
    assert!(
        missing.is_empty() && readme.contains(&"configs/README.md".into()),
        "README.md does not lead to {missing:?}"
    );
    Ok(())
}

#[test]
fn every_page_begins_with_what_its_reader_can_do_after_it() -> Result<()> {
    for (file, text) in pages()?.iter().filter(|(file, _)| file.starts_with("docs") && !file.ends_with("SUMMARY.md")) {
        let (title, rest) = text.split_once("\n\n").context("a title")?;
        assert!(title.starts_with("# ") && !title.contains('\n'), "{}: {title}", file.display());
        assert!(rest.starts_with("After this page you "), "{}: {}", file.display(), rest.lines().next().unwrap_or(""));
    }
    Ok(())
}

/// What a page's blocks of code do, in its order, in the folder of a world.
fn follow(page: &str, world: &World) -> Result<usize> {
    let text = fs::read_to_string(checkout().join("docs").join(page))?;
    let python = python("import torch, h5py, numpy").context("a python")?.within(&world.path(""));
    fs::create_dir_all(world.path("data"))?;
    let mut count = 0;
    for part in text.split("\n```").skip(1).step_by(2) {
        let (language, block) = part.split_once('\n').unwrap_or_default();
        // A block begins with the name of the file that it is, if other blocks need it.
        let named = block.lines().next().and_then(|line| line.strip_prefix("# "));
        if let Some(name) = named.filter(|name| name.contains('.') && !name.contains(' ')) {
            fs::write(world.path(name), block)?;
        }
        match language {
            "python" if named.is_none() => {
                fs::write(world.path("block.py"), block)?;
                python.run(&world.path("block.py"), &[])?;
                count += 1;
            }
            "" => {
                for line in block.lines() {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    match words.split_first() {
                        Some((&"iad-launch", rest)) => {
                            Program::alone().within(&world.path("")).args(rest).run()?.expect(0);
                        }
                        Some((&"python3", [script])) => drop(python.run(&world.path(script), &[])?),
                        _ => anyhow::bail!("{page}: {line:?} is no command that can be run here"),
                    }
                    count += 1;
                }
            }
            _ => {}
        }
    }
    Ok(count)
}

#[test]
fn a_network_of_pytorch_is_evaluated_as_its_page_says() -> Result<()> {
    if python("import torch, h5py, numpy").is_none() {
        tell("skipped: docs/evaluate-your-model.md (no python with torch and h5py)");
        return Ok(());
    }
    let world = World::new()?;
    assert!(follow("evaluate-your-model.md", &world)? >= 6);
    assert!(world.path("adversarial.h5").is_file());
    Ok(())
}

/// The loss comes before its data set on the page, and is trained after it.
#[test]
fn the_loss_and_the_data_set_of_the_page_on_extending_work() -> Result<()> {
    let Some(python) = python("import numpy") else {
        tell("skipped: docs/extend.md (no python with numpy)");
        return Ok(());
    };
    let world = World::new()?;
    fs::create_dir_all(world.path("data"))?;
    let page = fs::read_to_string(checkout().join("docs/extend.md"))?;
    let (loss, data) = (blocks(&page, "toml"), blocks(&page, "python"));
    fs::write(world.path("my-loss.toml"), loss.first().context("a loss")?)?;
    fs::write(world.path("own.py"), data.first().context("a data set")?)?;
    python.within(&world.path("")).run(&world.path("own.py"), &[])?;
    let mut commands: Vec<&str> = blocks(&page, "").into_iter().flat_map(str::lines).collect();
    commands.retain(|line| line.starts_with("iad-launch "));
    // Data first.
    commands.sort_by_key(|line| !line.starts_with("iad-launch data"));
    assert_eq!(commands.len(), 4, "{commands:?}");
    for command in commands {
        Program::alone().within(&world.path("")).args(command.split(' ').skip(1)).run()?.expect(0);
    }
    let metrics = fs::read_to_string(world.path("runs/my-loss/metrics.jsonl"))?;
    assert!(metrics.contains("\"steady\":") && metrics.contains("\"label\":"), "{metrics}");
    Ok(())
}

#[test]
fn the_rust_of_the_page_on_extending_stands_in_the_program() -> Result<()> {
    let page = fs::read_to_string(checkout().join("docs/extend.md"))?;
    let parts: Vec<&str> = page.split("\n```rust\n").collect();
    assert!(parts.len() > 8, "{} excerpts", parts.len() - 1);
    for pair in parts.windows(2) {
        let file = pair[0].trim_end().rsplit_once("In `").and_then(|(_, rest)| rest.strip_suffix("`:"));
        let file = file.with_context(|| format!("no file is named above {}", pair[1]))?;
        let excerpt = pair[1].split("\n```").next().unwrap_or_default();
        let source = fs::read_to_string(checkout().join(file)).with_context(|| file.to_string())?;
        assert!(source.contains(excerpt), "docs/extend.md shows what does not stand in {file} any more:\n{excerpt}");
    }
    Ok(())
}

/// The first cells of the tables in configs/README.md, and the commands beside them.
fn listed_configurations(page: &str) -> Vec<(String, String)> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let file = |row: &str| row.split_once('`').map(|(file, _)| file.to_string());
    let command = |row: &str| row.rsplit("| `").next().and_then(|cell| cell.strip_suffix("` |")).map(str::to_string);
    rows.filter_map(|row| Some((file(row)?, command(row).unwrap_or_default()))).collect()
}

#[test]
fn every_configuration_is_listed_by_its_purpose() -> Result<()> {
    let folder = checkout().join("configs");
    let page = fs::read_to_string(folder.join("README.md"))?;
    let lines: Vec<&str> = page.lines().collect();
    for pair in lines.windows(2).filter(|pair| pair[1].starts_with("| `")) {
        assert!(pair[0].starts_with('|'), "this row stands outside its table: {}", pair[1]);
    }
    let listed = listed_configurations(&page);
    let files = files_below(&folder)?;
    let inside = files.iter().filter_map(|path| path.strip_prefix(&folder).ok()).map(|path| path.display().to_string());
    let mut expected: Vec<String> = inside.filter(|name| name.ends_with(".toml")).collect();
    expected.sort();
    let mut found: Vec<String> = listed.iter().map(|(file, _)| file.clone()).collect();
    found.sort();
    assert_eq!(found, expected, "configs/README.md lists other files than there are");
    for (file, command) in &listed {
        let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str()).context("a name")?;
        let preset = file.starts_with("losses/");
        assert!(
            command.contains(file.as_str()) || command.contains(stem) || preset || file == "paper/datasets.toml",
            "{file}: {command}"
        );
        // A preset fits the configuration beside it; the other commands are parsed by a test of the launcher.
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        if let Some(at) = words.iter().position(|word| *word == "--set") {
            let resolved = Program::alone().within(checkout()).args(["config"]).args(&words[..at + 2]);
            resolved.run()?.expect(0);
        }
    }
    Ok(())
}

/// Each command of the program, the file of tests that runs it, and the words by which it does. None is left out: those that
/// need GPUs, several nodes or a network run in small form, on the CPU, in namespaces, or against a mirror of this machine.
const PROOFS: &[(&str, &str, &str)] = &[
    ("train", "tutorial", "docs/tutorial.md"),
    ("init", "init", "\"init\""),
    ("plan", "plan", "\"plan\""),
    ("doctor", "doctor", "\"doctor\""),
    ("sbatch", "manage", "\"sbatch\""),
    ("eval", "evaluation", "\"eval\""),
    ("replay", "replay", "\"replay\""),
    ("weights import", "weights", "\"import\""),
    ("weights export", "exports", "\"export\""),
    ("weights info", "exports", "\"info\""),
    ("data fetch", "fetch", "\"fetch\""),
    ("data import", "data", "\"import\""),
    ("data info", "data", "\"info\""),
    ("data verify", "data", "\"verify\""),
    ("report", "report", "\"report\""),
    ("metrics", "metrics", "\"metrics\""),
    ("runs", "manage", "\"runs\""),
    ("compare", "manage", "\"compare\""),
    ("config", "manage", "\"config\""),
    ("bench step", "pages", "\"step\""),
    ("bench save", "bench", "\"save\""),
    ("bench comm", "bench", "\"comm\""),
    ("bench scaling", "bench", "\"scaling\""),
    ("bench project", "bench", "\"project\""),
    ("paper", "paper", "\"paper\""),
    ("completions", "manage", "\"completions\""),
    ("man", "manage", "\"man\""),
];

/// The names of the commands in a help text.
fn commands_in(help: &str) -> Vec<String> {
    let list = help.split("Commands:\n").nth(1).unwrap_or("").split("\n\n").next().unwrap_or("");
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_string).collect()
}

#[test]
fn every_command_is_run_by_a_test_and_shown_on_a_page() -> Result<()> {
    let mut commands = vec![];
    for name in commands_in(&Program::alone().args(["--help"]).run()?.expect(0).said) {
        let inner = commands_in(&Program::alone().args([&name, "--help"]).run()?.expect(0).said);
        if inner.is_empty() {
            commands.push(name);
        } else {
            commands.extend(inner.iter().map(|inner| format!("{name} {inner}")));
        }
    }
    commands.sort();
    let mut proven: Vec<String> = PROOFS.iter().map(|(name, ..)| (*name).to_string()).collect();
    proven.sort();
    assert_eq!(commands, proven, "the commands of the program and those that this table knows");
    let shown: String = pages()?.into_values().collect::<Vec<_>>().join("\n");
    for (name, tests, words) in PROOFS {
        assert!(*name == "train" || shown.contains(&format!("iad-launch {name}")), "no page shows {name}");
        let text = fs::read_to_string(checkout().join(format!("tests/tests/{tests}.rs"))).with_context(|| *tests)?;
        assert!(text.contains(words) && text.contains("#[test]"), "{tests}.rs does not run {name}: {words} is missing");
    }
    Ok(())
}

#[test]
fn a_step_is_timed_in_small() -> Result<()> {
    let world = World::new()?;
    let config = world.config("short", &world.images("data", Images::colour(40))?, &[])?;
    let timed = Program::alone().args(["bench".as_ref(), "step".as_ref(), config.as_os_str()]).args(["--steps", "1"]);
    let said = timed.run()?.expect(0).said;
    assert!(said.lines().any(|line| line.starts_with('{') && line.contains("seconds")), "{said}");
    Ok(())
}

/// Lines of the pages' blocks of code that begin with `first`, as words.
fn lines_of(first: &str) -> Result<Vec<(PathBuf, Vec<String>)>> {
    let mut found = vec![];
    for (file, text) in pages()? {
        let code = text.split("\n```").skip(1).step_by(2).flat_map(str::lines).map(str::to_string);
        // Indented code, and commands within backquotes.
        let indented = text.lines().filter_map(|line| line.strip_prefix("    ")).map(str::to_string);
        let quoted: Vec<String> = prose(&text).split('`').skip(1).step_by(2).map(str::to_string).collect();
        for line in code.chain(indented).chain(quoted) {
            let words: Vec<String> =
                line.split('#').next().unwrap_or("").split_whitespace().map(str::to_string).collect();
            if words.first().is_some_and(|word| word == first || word.starts_with(first) && first.ends_with('/')) {
                found.push((file.clone(), words));
            }
        }
    }
    Ok(found)
}

#[test]
fn every_target_and_script_that_is_shown_exists() -> Result<()> {
    let makefile = fs::read_to_string(checkout().join("Makefile"))?;
    let made = lines_of("make")?;
    ensure!(made.len() > 20, "{} calls of make", made.len());
    for (file, words) in made {
        for target in words[1..]
            .iter()
            .filter(|word| !word.starts_with('-') && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'))
        {
            assert!(makefile.contains(&format!("\n{target}:")), "{}: make {target}", file.display());
        }
    }
    let scripts = lines_of("scripts/")?;
    ensure!(scripts.len() > 10, "{} calls of scripts", scripts.len());
    for (file, words) in scripts {
        let script = checkout().join(&words[0]);
        assert!(script.exists(), "{}: {}", file.display(), words[0]);
        let text = if script.is_file() { fs::read_to_string(&script)? } else { continue };
        for option in words[1..].iter().filter(|word| word.starts_with("--")) {
            let name = option.split('=').next().unwrap_or(option);
            assert!(text.contains(name), "{}: {} has no {name}", file.display(), words[0]);
        }
    }
    Ok(())
}
