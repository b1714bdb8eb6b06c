//! Which folders of an image tree are its training and its test split.

use std::path::Path;
use std::str::FromStr;

use super::tree::Tree;
use crate::ground::error::UserError;

/// Names that training, test and validation folders usually have, in any case.
const TRAIN: [&str; 2] = ["train", "training"];
const TEST: [&str; 2] = ["test", "testing"];
const VALIDATION: [&str; 4] = ["val", "valid", "validation", "dev"];

/// The folders that become the splits of a container; `.` is the root itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitNames {
    /// The folder of the training images.
    pub train: String,
    /// The folder of the test images; none for a training split alone.
    pub test: Option<String>,
}

impl FromStr for SplitNames {
    type Err = String;

    /// Reads `train=FOLDER` or `train=FOLDER,test=FOLDER`.
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("{text:?} is not of the form train=FOLDER or train=FOLDER,test=FOLDER");
        let (mut train, mut test) = (None, None);
        for part in text.split(',') {
            let (name, folder) = part.split_once('=').ok_or_else(expected)?;
            let place = match name.trim() {
                "train" => &mut train,
                "test" => &mut test,
                _ => return Err(expected()),
            };
            let folder = folder.trim().trim_end_matches('/');
            if folder.is_empty() || place.replace(folder.to_owned()).is_some() {
                return Err(expected());
            }
        }
        let train = train.ok_or_else(expected)?;
        if test.as_ref() == Some(&train) {
            return Err(format!("{text:?} names one folder for both splits"));
        }
        Ok(Self { train, test })
    }
}

impl SplitNames {
    /// The beginning of the paths of all files in `folder`.
    pub(super) fn prefix(folder: &str) -> String {
        if folder == "." { String::new() } else { format!("{folder}/") }
    }

    /// The splits of `tree` by the names of its folders.
    ///
    /// # Errors
    /// Several folders that could be the same split, or a test split without a training split.
    pub(super) fn of(tree: &Tree, from: &Path) -> Result<Self, UserError> {
        let called = |names: &[&str]| -> Vec<&str> {
            let outer = tree.folders.iter().filter(|folder| !folder.contains('/'));
            outer.filter(|folder| names.contains(&&folder.to_lowercase()[..])).map(String::as_str).collect()
        };
        let (train, test, validation) = (called(&TRAIN), called(&TEST), called(&VALIDATION));
        let ambiguous = |found: &[&str], expected: &str, hint: String| {
            Err(UserError::expected(expected).file(from).key("its folders").value(found.join(", ")).hint(hint))
        };
        let say = |what: &str| format!("say which is which: --split-names {what}");
        match (&train[..], &test[..], &validation[..]) {
            ([], [], []) => Ok(Self { train: ".".into(), test: None }),
            ([], test, validation) => {
                let first = test.iter().chain(validation).next().unwrap_or(&"");
                let hint =
                    format!("{}, or --split-names train=. where these are classes", say(&format!("train={first}")));
                ambiguous(
                    &[test, validation].concat(),
                    "a folder train/ beside them, or classes with other names",
                    hint,
                )
            }
            ([one, other, ..], ..) => {
                ambiguous(&[one, other], "one folder of training images", say(&format!("train={one},test={other}")))
            }
            ([train], [test], _) => Ok(Self { train: (*train).into(), test: Some((*test).into()) }),
            ([train], [], []) => Ok(Self { train: (*train).into(), test: None }),
            ([train], [], [validation]) => Ok(Self { train: (*train).into(), test: Some((*validation).into()) }),
            ([train], [one, ..], _) | ([train], [], [one, ..]) => {
                let found = [&test[..], &validation[..]].concat();
                ambiguous(&found, "one folder of test images", say(&format!("train={train},test={one}")))
            }
        }
    }
}
