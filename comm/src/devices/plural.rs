//! Numbers in words.

/// The ending of a noun after `count`.
pub(super) fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
