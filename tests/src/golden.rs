//! Golden files: texts that a change may alter only on purpose.

use std::path::Path;
use std::{env, fs};

use anyhow::{Context, Result};

use crate::checkout;

/// Asserts that `now` is the text of the golden file `name` of `tests/fixtures`, byte for byte. With `IAD_BLESS=1` it writes
/// the file instead.
///
/// # Errors
/// The file cannot be read or written.
///
/// # Panics
/// The texts differ; the message names the first line that does.
#[track_caller]
pub fn assert_golden(name: &str, now: &str) -> Result<()> {
    let path = checkout().join("tests/fixtures").join(name);
    if env::var("IAD_BLESS").is_ok_and(|value| value == "1") {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        return fs::write(&path, now).with_context(|| path.display().to_string());
    }
    let golden = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    if golden != now {
        let same = golden.lines().zip(now.lines()).take_while(|(golden, now)| golden == now).count();
        let line = |text: &str| text.lines().nth(same).unwrap_or("(the end of the text)").to_string();
        let (before, after) = (line(&golden), line(now));
        panic!("{name}, line {}:\n  was {before}\n  is  {after}\nIAD_BLESS=1 accepts all changes", same + 1);
    }
    Ok(())
}
