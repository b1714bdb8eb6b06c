//! The check of one value.

use datasets::UserError;

/// A value outside its range.
pub(crate) fn must(
    holds: bool,
    key: impl Into<String>,
    value: impl std::fmt::Display,
    expected: &str,
) -> Result<(), UserError> {
    if holds { Ok(()) } else { Err(UserError::expected(expected).key(key).value(value)) }
}
