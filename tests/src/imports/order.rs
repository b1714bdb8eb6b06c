//! Loops among arrows, and arrows against the order of the folders.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use super::Arrow;

/// The loops among `arrows`: for each, the arrows of one way round.
pub fn loops(arrows: &[Arrow]) -> Vec<Vec<Arrow>> {
    let mut found: Vec<Vec<Arrow>> = vec![];
    let mut known = BTreeSet::new();
    for first in arrows {
        // The shortest way back, file by file.
        let mut ways = vec![vec![first.clone()]];
        let mut reached = BTreeSet::from([first.to.clone()]);
        while let Some(way) = (!ways.is_empty()).then(|| ways.remove(0)) {
            let last = &way[way.len() - 1];
            if last.to == first.from {
                let files: BTreeSet<String> = way.iter().map(|arrow| arrow.from.clone()).collect();
                if known.insert(files) {
                    found.push(way);
                }
                break;
            }
            for next in arrows.iter().filter(|next| next.from == last.to) {
                if next.to == first.from || reached.insert(next.to.clone()) {
                    ways.push([way.clone(), vec![next.clone()]].concat());
                }
            }
        }
    }
    found
}

/// The arrows that point from a place of `order` to a later one. A place is a folder or a file directly below the sources;
/// `order` names each of them.
///
/// # Errors
/// A place without a rank in `order`.
pub fn upward<'a>(arrows: &'a [Arrow], order: &[&[&str]]) -> Result<Vec<&'a Arrow>> {
    let rank = |file: &str| -> Result<usize> {
        let place = file.split('/').next().unwrap_or(file);
        let rank = order.iter().position(|places| places.contains(&place));
        rank.with_context(|| format!("{place} has no place in the order of the folders"))
    };
    let mut found = vec![];
    for arrow in arrows {
        if rank(&arrow.from)? < rank(&arrow.to)? {
            found.push(arrow);
        }
    }
    Ok(found)
}
