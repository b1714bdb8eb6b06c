//! Every message that docs/troubleshooting.md quotes stands in the sources, word for word.

use std::fs;
use std::path::Path;

/// The text of all sources in and below `folder`, as the compiler reads their strings.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|ending| ending == "rs")
            && path.file_name() != Some("quoted.rs".as_ref())
        {
            let mut lines = fs::read_to_string(&path).unwrap();
            // A backslash at the end of a line joins it to the next one, without its indentation.
            while let Some(at) = lines.find("\\\n") {
                let rest = lines[at + 2..].trim_start().to_string();
                lines.truncate(at);
                lines += &rest;
            }
            *text += &lines.replace("\\\"", "\"");
        }
    }
}

/// The quoted messages of the page.
fn quoted(page: &str) -> Vec<&str> {
    page.lines().filter_map(|line| line.strip_prefix("#### `")?.strip_suffix('`')).collect()
}

#[test]
fn every_message_of_the_troubleshooting_page_stands_in_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut text = String::new();
    for part in ["datasets", "comm", "trainer", "launcher"] {
        sources(&root.join(part).join("src"), &mut text);
    }
    let page = fs::read_to_string(root.join("docs/troubleshooting.md")).unwrap();
    let messages = quoted(&page);
    assert!(messages.len() >= 25, "{} messages", messages.len());
    let gone: Vec<_> = messages.iter().filter(|message| !text.contains(**message)).collect();
    assert!(gone.is_empty(), "no source says {gone:#?}");
    // Each is followed by its way out, and stands once.
    for (index, message) in messages.iter().enumerate() {
        assert!(!messages[..index].contains(message), "{message} stands twice");
        let after = page.split(&format!("#### `{message}`\n")).nth(1).unwrap_or_default();
        assert!(after.trim_start().len() > 40 && !after.trim_start().starts_with('#'), "{message} has no way out");
    }
    assert!(!text.contains(&["a message that no source", "has"].join(" ")));
}
