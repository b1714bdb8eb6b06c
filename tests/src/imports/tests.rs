//! Small crates made up for each way to use a name.

use std::collections::BTreeSet;
use std::fs;

use anyhow::Result;

use super::{Arrow, arrows, loops, upward};

/// The arrows of a crate made of these files.
fn invented(files: &[(&str, &str)]) -> Result<Vec<Arrow>> {
    let folder = tempfile::tempdir()?;
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(folder.path()))?;
        fs::write(path, text)?;
    }
    arrows(&folder.path().join("lib.rs"))
}

fn pairs(arrows: &[Arrow]) -> BTreeSet<(&str, &str)> {
    arrows.iter().map(|arrow| (arrow.from.as_str(), arrow.to.as_str())).collect()
}

#[test]
fn a_loop_through_a_name_that_the_parent_shows_is_found() -> Result<()> {
    let arrows = invented(&[
        ("lib.rs", "mod suite;"),
        ("suite/mod.rs", "mod method;\nmod round;\npub use method::Method;\npub use self::round::Round;"),
        ("suite/method.rs", "use super::Round;\npub struct Method(Round);"),
        ("suite/round.rs", "pub struct Round;\nfn of(method: &crate::suite::Method) {}"),
    ])?;
    assert_eq!(
        pairs(&arrows),
        BTreeSet::from([("suite/method.rs", "suite/round.rs"), ("suite/round.rs", "suite/method.rs")])
    );
    let found = loops(&arrows);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].len(), 2);
    let back = found[0].iter().find(|arrow| arrow.from == "suite/round.rs");
    let (name, to, line) = ("crate::suite::Method".into(), "suite/method.rs".into(), 2);
    assert_eq!(back, Some(&Arrow { from: "suite/round.rs".into(), to, name, line }));
    Ok(())
}

#[test]
fn a_child_and_its_parent_are_a_loop_where_each_uses_the_other() -> Result<()> {
    let arrows = invented(&[
        ("lib.rs", "mod run;"),
        ("run.rs", "mod settle;\npub struct Run;\nfn go() { settle::settle() }"),
        ("run/settle.rs", "use super::Run;\npub fn settle() { let _: Option<Run> = None; }"),
    ])?;
    assert_eq!(loops(&arrows).len(), 1);
    Ok(())
}

#[test]
fn paths_in_macros_and_through_modules_count_and_tests_do_not() -> Result<()> {
    let arrows = invented(&[
        ("lib.rs", "mod low;\nmod high;\nmod other;"),
        ("low.rs", "pub fn value() -> u8 { 1 }\n#[cfg(test)]\nmod tests { use crate::high::text; }"),
        ("high.rs", "use crate::low;\npub fn text() -> String { format!(\"{}\", low::value()) }"),
        ("other.rs", "#[cfg(test)]\nmod tests;\nuse std::fmt;\nfn own() { fmt::format(format_args!(\"\")); }"),
        ("other/tests.rs", "use crate::high::text;"),
    ])?;
    let found: Vec<_> = arrows.iter().map(|arrow| (arrow.from.as_str(), arrow.to.as_str(), arrow.line)).collect();
    assert_eq!(found, [("high.rs", "low.rs", 2)]);
    Ok(())
}

#[test]
fn an_arrow_against_the_order_is_found_and_a_folder_without_a_place_refused() -> Result<()> {
    let arrows = invented(&[
        ("lib.rs", "mod config;\nmod method;"),
        ("config/mod.rs", "use crate::method::Loss;\npub struct Config(Loss);"),
        ("method/mod.rs", "pub struct Loss;"),
    ])?;
    let up = upward(&arrows, &[&["config"], &["method"]])?;
    assert_eq!(up.iter().map(|arrow| arrow.line).collect::<BTreeSet<_>>(), BTreeSet::from([1, 2]));
    assert!(upward(&arrows, &[&["method"], &["config"]])?.is_empty());
    assert!(upward(&arrows, &[&["config"]]).is_err());
    Ok(())
}

#[test]
fn a_chain_of_reexports_leads_to_the_defining_file() -> Result<()> {
    let arrows = invented(&[
        ("lib.rs", "mod low;\nmod user;\npub use low::Sum as Total;"),
        ("low/mod.rs", "mod inner;\npub use inner::Number as Sum;"),
        ("low/inner/mod.rs", "mod number;\npub use self::number::Number;"),
        ("low/inner/number.rs", "pub struct Number;"),
        ("user.rs", "fn of(total: crate::Total) {}"),
    ])?;
    assert_eq!(pairs(&arrows), BTreeSet::from([("user.rs", "low/inner/number.rs")]));
    Ok(())
}

#[test]
fn a_reexport_of_another_folder_is_a_use_and_one_of_its_own_is_none() -> Result<()> {
    let arrows = invented(&[
        ("lib.rs", "mod low;\nmod high;"),
        ("low.rs", "pub struct Value;"),
        ("high/mod.rs", "mod own;\npub use own::*;\npub use crate::low::Value;"),
        ("high/own.rs", "pub struct Own;"),
    ])?;
    assert_eq!(pairs(&arrows), BTreeSet::from([("high/mod.rs", "low.rs")]));
    Ok(())
}

#[test]
fn a_relative_import_means_the_child_and_not_a_namesake_at_the_root() -> Result<()> {
    let arrows = invented(&[
        ("lib.rs", "mod method;\nmod suite;\nmod user;"),
        ("method.rs", "pub struct Method;"),
        ("suite/mod.rs", "mod method;\npub use method::Method;"),
        ("suite/method.rs", "pub struct Method;"),
        ("user.rs", "use crate::suite::Method;"),
    ])?;
    assert_eq!(pairs(&arrows), BTreeSet::from([("user.rs", "suite/method.rs")]));
    Ok(())
}

#[test]
fn a_function_that_has_the_name_of_its_module_is_found() -> Result<()> {
    let arrows = invented(&[
        ("lib.rs", "mod run;\nmod user;"),
        ("run/mod.rs", "mod settle;\npub use settle::settle;"),
        ("run/settle.rs", "pub fn settle() {}"),
        ("user.rs", "fn go() { crate::run::settle() }"),
    ])?;
    assert_eq!(pairs(&arrows), BTreeSet::from([("user.rs", "run/settle.rs")]));
    Ok(())
}

#[test]
fn names_from_glob_imports_are_uses() -> Result<()> {
    let arrows = invented(&[
        ("lib.rs", "mod low;\nmod user;\nmod other;\nmod only_traits;"),
        ("low/mod.rs", "mod value;\nmod kind;\npub use value::*;\npub use kind::Kind;"),
        ("low/value.rs", "pub fn value() -> u8 { 1 }"),
        ("low/kind.rs", "pub enum Kind { One }"),
        ("user.rs", "use crate::low::*;\nfn go() -> u8 { value() }"),
        ("other.rs", "fn go() { use crate::low::Kind::*; let _ = One; }"),
        ("only_traits.rs", "use crate::low::value::*;"),
    ])?;
    let expected = [
        ("user.rs", "low/mod.rs"),
        ("user.rs", "low/value.rs"),
        ("other.rs", "low/kind.rs"),
        ("only_traits.rs", "low/value.rs"),
    ];
    assert_eq!(pairs(&arrows), BTreeSet::from(expected));
    Ok(())
}

#[test]
fn globs_that_lead_to_each_other_and_to_other_crates_end() -> Result<()> {
    let arrows = invented(&[
        ("lib.rs", "mod one;\nmod two;"),
        ("one.rs", "use anyhow::anyhow;\nuse std::io::*;\npub use crate::two::*;\nfn go() { nowhere(); anyhow!(1); }"),
        ("two.rs", "pub use crate::one::*;\nfn go() { nowhere(); }"),
    ])?;
    assert_eq!(loops(&arrows).len(), 1);
    Ok(())
}

#[test]
fn a_use_within_a_function_counts() -> Result<()> {
    let arrows = invented(&[
        ("lib.rs", "mod low;\nmod high;"),
        ("low.rs", "pub fn value() {}"),
        ("high.rs", "fn go() {\n    use crate::low::value as of_low;\n    of_low()\n}"),
    ])?;
    assert_eq!(arrows.iter().map(|arrow| (arrow.to.as_str(), arrow.line)).collect::<Vec<_>>(), [("low.rs", 2)]);
    Ok(())
}

#[test]
fn calls_of_macros_and_the_paths_in_their_definitions_count() -> Result<()> {
    let arrows = invented(&[
        ("lib.rs", "#[macro_use]\nmod rules;\nmod low;\nmod near;\nmod far;\nmod nested;\nmod namesake;"),
        (
            "rules.rs",
            "macro_rules! value { () => { $crate::low::value() } }\n#[macro_export]\nmacro_rules! far { () => {} }",
        ),
        ("low.rs", "pub fn value() {}"),
        ("near.rs", "fn go() { value!() }"),
        ("far.rs", "fn go() { crate::far!() }"),
        ("nested.rs", "fn go() { println!(\"{}\", value!()) }"),
        ("namesake.rs", "fn go(value: u8) -> u8 { value }"),
    ])?;
    let expected = [("rules.rs", "low.rs"), ("near.rs", "rules.rs"), ("far.rs", "rules.rs"), ("nested.rs", "rules.rs")];
    assert_eq!(pairs(&arrows), BTreeSet::from(expected));
    Ok(())
}

#[test]
fn functions_named_in_attributes_count() -> Result<()> {
    let arrows = invented(&[
        ("lib.rs", "mod low;\nmod high;"),
        ("low.rs", "pub fn number() -> u8 { 1 }"),
        ("high.rs", "struct High {\n    #[serde(default = \"crate::low::number\")]\n    number: u8,\n}"),
    ])?;
    assert_eq!(arrows.iter().map(|arrow| (arrow.to.as_str(), arrow.line)).collect::<Vec<_>>(), [("low.rs", 2)]);
    Ok(())
}

#[test]
fn code_for_tests_alone_is_left_out_and_other_conditions_are_not() -> Result<()> {
    let user = |condition: &str| format!("{condition}\nfn go() {{ crate::low::value() }}");
    let count = |condition: &str| -> Result<usize> {
        let text = user(condition);
        Ok(invented(&[("lib.rs", "mod low;\nmod high;"), ("low.rs", "pub fn value() {}"), ("high.rs", &text)])?.len())
    };
    for condition in ["#[test]", "#[cfg(test)]", "#![cfg(test)]", "#[cfg(all(unix, test))]", "#[cfg(any(test))]"] {
        assert_eq!(count(condition)?, 0, "{condition}");
    }
    for condition in ["", "#[cfg(not(test))]", "#[cfg(any(test, unix))]", "#[cfg(feature = \"test\")]", "#[inline]"] {
        assert_eq!(count(condition)?, 1, "{condition}");
    }
    let within = [
        "struct One { #[cfg(test)] field: crate::low::Value }",
        "struct One;\nimpl One { #[cfg(test)] fn go() { crate::low::value() } }",
        "trait One { #[cfg(test)] fn go() { crate::low::value() } }",
        "fn go() { #[cfg(test)] let _ = crate::low::value(); }",
        "mod inner { #[cfg(test)] mod tests { use crate::low::value; } }",
        "fn go() {\n    #[cfg(test)]\n    use crate::low::value;\n}",
    ];
    for text in within {
        let low = "pub fn value() {}\npub struct Value;";
        let arrows = |text: &str| invented(&[("lib.rs", "mod low;\nmod high;"), ("low.rs", low), ("high.rs", text)]);
        assert!(arrows(text)?.is_empty(), "{text}");
        assert_eq!(arrows(&text.replace("#[cfg(test)]", ""))?.len(), 1, "{text}");
    }
    Ok(())
}

#[test]
fn a_module_in_braces_belongs_to_its_file_and_one_without_a_file_is_refused() -> Result<()> {
    let files = [
        ("lib.rs", "mod low;\nmod high { pub mod inner;\n pub fn go() { super::low::value() } }"),
        ("low.rs", "pub fn value() {}"),
        ("high/inner.rs", "use super::super::low::value;"),
    ];
    assert_eq!(pairs(&invented(&files)?), BTreeSet::from([("lib.rs", "low.rs"), ("high/inner.rs", "low.rs")]));
    let refused = format!("{:#}", invented(&files[..2]).unwrap_err());
    assert!(refused.contains("inner"), "{refused}");
    Ok(())
}
