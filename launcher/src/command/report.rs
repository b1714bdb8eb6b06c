//! `iad-launch report RUN ...`.

use std::path::PathBuf;

use clap::Args;

/// `iad-launch report RUN ...`
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Run folders. A folder with the runs of several seeds stands for all of them.
    #[arg(required = true)]
    pub(crate) runs: Vec<PathBuf>,
    /// HTML page to write (default: report.html in the last folder).
    #[arg(long, value_name = "FILE.html")]
    pub(crate) page: Option<PathBuf>,
    /// Print the results as comma-separated values; a page is then written only with --page.
    #[arg(long, group = "form")]
    pub(crate) csv: bool,
    /// Print the results as JSON instead.
    #[arg(long, group = "form")]
    pub(crate) json: bool,
    /// Print the results as a LaTeX table instead.
    #[arg(long, group = "form")]
    pub(crate) latex: bool,
    /// Also write the main curves as an SVG figure.
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) figure: Option<PathBuf>,
}

/// A form of the results for other programs and for papers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Comma-separated values.
    Csv,
    /// JSON.
    Json,
    /// A LaTeX table.
    Latex,
}

impl Report {
    /// The form that was asked for.
    pub(crate) fn form(&self) -> Option<Form> {
        let forms = [(self.csv, Form::Csv), (self.json, Form::Json), (self.latex, Form::Latex)];
        forms.into_iter().find(|(asked, _)| *asked).map(|(_, form)| form)
    }
}
