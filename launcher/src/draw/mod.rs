//! Drawing: line charts as SVG and grids of text. Runs are unknown here.
//!
//! It uses nothing of this crate. Read `grid`, then `axis`, `thin`, `markup` and `line`, then `chart`.

mod axis;
mod chart;
mod grid;
mod line;
mod markup;
mod thin;

pub(crate) use self::axis::grouped;
pub(crate) use self::chart::{Chart, LegendEntry, document};
pub(crate) use self::grid::{Grid, NOTHING, text};
pub(crate) use self::line::{Line, Point};
pub(crate) use self::markup::escape;
