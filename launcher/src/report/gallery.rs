//! Images before and after an attack, with what student and teachers take them for: those that an evaluation saved as
//! adversarial.h5 in the run folder, or else the few that the run kept itself.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use datasets::{AttackPictures, AttackedImage, Container, Split, attacked_images};
use trainer::config::STUDENT;
use trainer::evaluate::examples::{Example, Examples, class_name};
use trainer::run::folder::RunFolder;
use trainer::system::files::read_regular;

use super::confusion::Confusion;
use super::data::RecordedRun;
use crate::draw::escape;

/// The images of a page.
const MOST: usize = 12;

/// The images of each run that has some; nothing without any.
pub fn gallery(runs: &[RecordedRun]) -> String {
    let of_runs: String = runs.iter().filter_map(|run| of_evaluation(run).or_else(|| of_run(run))).collect();
    if of_runs.is_empty() {
        return of_runs;
    }
    format!(
        "<h2>Images under attack</h2>\n{of_runs}<p class=\"note\">Each row is a test image: as it is, as the attack left it, and what the \
         attack changed, amplified so that the largest change is black or white. Below them stands what a network takes the image \
         for.</p>\n"
    )
}

/// A row of the gallery.
struct Row {
    sample: i64,
    label: i64,
    pictures: AttackPictures,
    /// Who takes the natural image for which class.
    natural: Vec<(String, i64)>,
    /// The same of the adversarial image.
    adversarial: Vec<(String, i64)>,
    /// What else is said of the adversarial image.
    attack: String,
}

/// The gallery of a file of adversarial images, those that an attack turned first; none where the images, or the file, are
/// missing or do not fit together.
fn of_evaluation(run: &RecordedRun) -> Option<String> {
    let folder = RunFolder::at(&run.folder);
    // Where `eval --save-adversarial` was asked to leave it.
    let file = folder.file("adversarial.h5");
    let config = folder.config().ok()?;
    let source = Container::open(&config.data.test, Split::Test).ok()?;
    let images = attacked_images(&file, &source, MOST).ok()?;
    let names: Vec<String> = run.confusion.as_ref().map(|found: &Confusion| found.classes.clone()).unwrap_or_default();
    let student = [(STUDENT.to_owned(), predictions(&folder).unwrap_or_default())];
    let teachers = config.teachers.iter().filter_map(|(name, teacher)| {
        Some((format!("teacher {name}"), predictions(&RunFolder::at(&teacher.checkpoint))?))
    });
    let said: Vec<(String, Vec<i64>)> = student.into_iter().chain(teachers).collect();
    let row = |image: AttackedImage| Row {
        sample: image.sample as i64,
        label: image.label,
        pictures: image.pictures,
        natural: said.iter().filter_map(|(who, of)| Some((who.clone(), *of.get(image.sample)?))).collect(),
        adversarial: vec![(STUDENT.to_owned(), image.prediction)],
        attack: image.attack.map_or("no attack changed the prediction".to_owned(), |name| format!("by {name}")),
    };
    table(&run.name, &names, images.into_iter().map(row).collect())
}

/// The gallery of the images that the run kept at its end.
fn of_run(run: &RecordedRun) -> Option<String> {
    let Examples { origin, shape, images } = Examples::read(&RunFolder::at(&run.folder).examples()).ok()?;
    let row = |image: &Example| {
        let who = |name: &str| if name == STUDENT { name.to_owned() } else { format!("teacher {name}") };
        let said = |place: usize| image.predictions.iter().map(|(name, said)| (who(name), said[place])).collect();
        Some(Row {
            sample: image.sample,
            label: image.label,
            pictures: AttackPictures::new(shape, &image.natural, &image.adversarial).ok()?,
            natural: said(0),
            adversarial: said(1),
            attack: format!("by {}", origin.attack),
        })
    };
    table(&run.name, &origin.classes, images.iter().take(MOST).filter_map(row).collect())
}

fn table(run: &str, classes: &[String], rows: Vec<Row>) -> Option<String> {
    let class = |number: i64| class_name(classes, number);
    let said = |predictions: &[(String, i64)]| {
        let line = |(who, number): &(String, i64)| format!("<div>{}: {}</div>", escape(who), escape(&class(*number)));
        predictions.iter().map(line).collect::<String>()
    };
    let row = |Row { sample, label, pictures, natural, adversarial, attack }: &Row| {
        let largest = f64::from(pictures.largest) * 255.0;
        let (label, attack) = (escape(&class(*label)), escape(attack));
        let [first, second, third] = [
            (&pictures.natural, "test image"),
            (&pictures.adversarial, "under attack, test image"),
            (&pictures.change, "the change of test image"),
        ]
        .map(|(png, words)| picture(png, &format!("{words} {sample}")));
        format!(
            "<tr><th scope=\"row\">{label}</th><td>{first}{}</td><td>{second}{}<div>{attack}</div></td><td>{third}<div>at most {largest:.1}/255</div></td></tr>\n",
            said(natural),
            said(adversarial),
        )
    };
    let lines: String = rows.iter().map(row).collect();
    (!rows.is_empty()).then(|| {
        let name = escape(run);
        format!(
            "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Images of {name} under attack\"><table class=\"images\">\n<caption>{name}</caption>\n<thead><tr>\
             <th scope=\"col\">label</th><th scope=\"col\">natural</th><th scope=\"col\">adversarial</th><th scope=\"col\">change</th></tr></thead>\n\
             <tbody>\n{lines}</tbody></table></div>\n"
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
