//! The paper's numbers, from comma-separated values: one number a line, with its conditions.

use std::path::{Path, PathBuf};

use anyhow::Result;
use datasets::UserError;
use trainer::system::files::{in_words, read_text};

/// The header of the file.
const HEADER: &str = "table,dataset,model,teacher,method,variant,metric,value";

/// All published numbers.
#[derive(Debug)]
pub(super) struct Published {
    path: PathBuf,
    lines: Vec<(PublishedKey, Number)>,
}

/// The key of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PublishedKey {
    /// The number of the table.
    pub(super) table: u32,
    /// The data set.
    pub(super) dataset: String,
    /// The network.
    pub(super) model: String,
    /// The robust teacher, or `none`.
    pub(super) teacher: String,
    /// The method.
    pub(super) method: String,
    /// The difference from rows of the same method.
    pub(super) variant: String,
}

/// A published number.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Number {
    /// Its metric.
    pub(super) metric: String,
    /// The number as printed.
    pub(super) text: String,
    /// Its value: percent, seconds or MiB.
    pub(super) value: f64,
}

impl Published {
    /// Reads the file.
    ///
    /// # Errors
    /// A [`UserError`] that names the line.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = read_text(path).map_err(|error| {
            UserError::expected("a readable file of published numbers")
                .file(path)
                .key("published")
                .value(in_words(&error))
        })?;
        let mut lines = vec![];
        for (index, line) in text.lines().enumerate() {
            let error = |expected: &str| {
                UserError::expected(expected).file(path).key(format!("line {}", index + 1)).value(format!("{line:?}"))
            };
            if index == 0 {
                if line != HEADER {
                    return Err(error(HEADER).into());
                }
                continue;
            }
            lines.push(parse(line).ok_or_else(|| error(&format!("{HEADER}, two of them numbers")))?);
        }
        Ok(Self { path: path.to_path_buf(), lines })
    }

    /// The numbers of a row, in the order of the file.
    ///
    /// # Errors
    /// A [`UserError`] if there are none, with the nearest ones.
    pub(super) fn row(&self, key: &PublishedKey) -> Result<Vec<Number>, UserError> {
        let numbers: Vec<Number> =
            self.lines.iter().filter(|(own, _)| own == key).map(|(_, number)| number.clone()).collect();
        if !numbers.is_empty() {
            return Ok(numbers);
        }
        let mut near: Vec<String> = vec![];
        for (own, _) in self.lines.iter().filter(|(own, _)| (own.table, &own.dataset) == (key.table, &key.dataset)) {
            let PublishedKey { model, teacher, method, variant, .. } = own;
            let text = format!("{model},{teacher},{method},{variant}");
            if !near.contains(&text) {
                near.push(text);
            }
        }
        let PublishedKey { table, dataset, model, teacher, method, variant } = key;
        let known = if near.is_empty() { "nothing".into() } else { near.join("; ") };
        Err(UserError::expected(format!("a row of {}", self.path.display()))
            .value(format!("{table},{dataset},{model},{teacher},{method},{variant}"))
            .hint(format!("of table {table} and {dataset} it has: {known}")))
    }
}

fn parse(line: &str) -> Option<(PublishedKey, Number)> {
    let [table, dataset, model, teacher, method, variant, metric, text] = line.split(',').collect::<Vec<_>>()[..]
    else {
        return None;
    };
    let [dataset, model, teacher, method, variant, metric] =
        [dataset, model, teacher, method, variant, metric].map(str::to_string);
    let value = text.parse().ok()?;
    let key = PublishedKey { table: table.parse().ok()?, dataset, model, teacher, method, variant };
    Some((key, Number { metric, text: text.to_string(), value }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(text: &str) -> Result<Published> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("published.csv");
        std::fs::write(&path, text)?;
        Published::read(&path)
    }

    fn key(method: &str) -> PublishedKey {
        let [dataset, model, teacher, variant] = ["cifar10", "resnet18", "AT", "main"].map(str::to_string);
        PublishedKey { table: 2, dataset, model, teacher, method: method.into(), variant }
    }

    #[test]
    fn rows_are_found_by_all_that_names_them() {
        let text = format!(
            "{HEADER}\n2,cifar10,resnet18,AT,ARD,main,natural,83.10\n2,cifar10,resnet18,none,ARD,main,natural,1\n\
             2,cifar10,resnet18,AT,ARD,main,aa,48.05\n"
        );
        let published = published(&text).unwrap();
        let found = published.row(&key("ARD")).unwrap();
        let shown: Vec<_> = found.iter().map(|number| (number.metric.as_str(), number.text.as_str())).collect();
        assert_eq!(shown, [("natural", "83.10"), ("aa", "48.05")]);
        let error = published.row(&key("IAD-I")).unwrap_err().to_string();
        assert!(
            error.contains("2,cifar10,resnet18,AT,IAD-I,main") && error.contains("resnet18,AT,ARD,main"),
            "{error}"
        );
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, line) in
            [("table\n", "line 1"), ("2,a,b,c,d,e,natural\n", "line 2"), ("2,a,b,c,d,e,f,x\n", "line 2")]
        {
            let text = if line == "line 1" { text.to_string() } else { format!("{HEADER}\n{text}") };
            let error = published(&text).unwrap_err();
            assert!(error.downcast_ref::<UserError>().is_some());
            assert!(error.to_string().contains(line), "{error}");
        }
    }
}
