//! Images before and after an attack, with what student and teacher take them for, from a file of adversarial images in the run
//! folder.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use datasets::{AttackedImage, Container, Split, attacked_images};
use trainer::run::folder::RunFolder;
use trainer::system::files::read_regular;

use super::confusion::Confusion;
use super::data::RecordedRun;
use crate::draw::escape;

/// The images of a page.
const MOST: usize = 12;

/// The images of each run that has some; nothing without any.
pub fn gallery(runs: &[RecordedRun]) -> String {
    let of_runs: String = runs.iter().filter_map(of_run).collect();
    if of_runs.is_empty() {
        return of_runs;
    }
    format!(
        "<h2>Images under attack</h2>\n{of_runs}<p class=\"note\">Each row is a test image: as it is, as the attack left it, and what the \
         attack changed, amplified so that the largest change is black or white. Below them stands what a network takes the image \
         for. Images that an attack turned come first.</p>\n"
    )
}

/// The gallery of a run; none where its images, or its file of adversarial images, are missing or do not fit together.
fn of_run(run: &RecordedRun) -> Option<String> {
    let folder = RunFolder::at(&run.folder);
    // Where `eval --save-adversarial` was asked to leave it.
    let file = folder.file("adversarial.h5");
    let config = folder.config().ok()?;
    let source = Container::open(&config.data.test, Split::Test).ok()?;
    let images = attacked_images(&file, &source, MOST).ok()?;
    let names: Vec<String> = run.confusion.as_ref().map(|found: &Confusion| found.classes.clone()).unwrap_or_default();
    let student = predictions(&folder).unwrap_or_default();
    let teachers: Vec<(String, Vec<i64>)> = config
        .teachers
        .iter()
        .filter_map(|(name, teacher)| Some((name.clone(), predictions(&RunFolder::at(&teacher.checkpoint))?)))
        .collect();
    let class = |number: i64| {
        let name = usize::try_from(number).ok().and_then(|number| names.get(number));
        escape(name.map_or(number.to_string(), String::clone).as_str())
    };
    let row = |image: &AttackedImage| {
        let says = |who: &str, of: &[i64]| {
            of.get(image.sample).map_or(String::new(), |found| format!("<br>{}: {}", escape(who), class(*found)))
        };
        let teachers: String = teachers.iter().map(|(name, found)| says(&format!("teacher {name}"), found)).collect();
        let attack =
            image.attack.as_ref().map_or("no attack turned it".to_string(), |name| format!("by {}", escape(name)));
        let largest = f64::from(image.largest) * 255.0;
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}{}{teachers}</td><td>{}<br>student: {}<br>{attack}</td><td>{}<br>at most {largest:.1}/255</td></tr>\n",
            class(image.label),
            picture(&image.natural, &format!("test image {}", image.sample)),
            says("student", &student),
            picture(&image.adversarial, &format!("test image {} under attack", image.sample)),
            class(image.prediction),
            picture(&image.change, &format!("the change of test image {}", image.sample)),
        )
    };
    let rows: String = images.iter().map(row).collect();
    (!images.is_empty()).then(|| {
        let name = escape(&run.name);
        format!(
            "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Images of {name} under attack\"><table class=\"images\">\n<thead><tr>\
             <th scope=\"col\">{name}: label</th><th scope=\"col\">natural</th><th scope=\"col\">adversarial</th><th scope=\"col\">change</th></tr></thead>\n\
             <tbody>\n{rows}</tbody></table></div>\n"
        )
    })
}

/// The natural predictions of a run's final evaluation, by the number of the image.
fn predictions(folder: &RunFolder) -> Option<Vec<i64>> {
    let table = String::from_utf8(read_regular(&folder.file("evaluation.samples.csv")).ok()?).ok()?;
    table.lines().skip(1).map(|line| line.split(',').nth(2)?.parse().ok()).collect()
}

/// A picture within the page.
fn picture(png: &[u8], words: &str) -> String {
    format!(
        "<img width=\"64\" height=\"64\" alt=\"{words}\" src=\"data:image/png;base64,{}\">",
        BASE64_STANDARD.encode(png)
    )
}
