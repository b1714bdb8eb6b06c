//! The natural predictions of a run's final evaluation by class, and who withstands each attack.

use trainer::run::folder::RunFolder;
use trainer::system::files::read_regular;
use trainer::weights::checkpoint::read_header;

use crate::draw::Grid;

/// More classes than these make a matrix that no page shows.
const MOST_SHOWN: usize = 20;

/// A label beyond these is damage, and a matrix of so many classes would fill the memory.
const MOST_CLASSES: usize = 1000;

/// Counts over the test images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    /// The names of the classes, or their numbers.
    pub classes: Vec<String>,
    /// Images by label and prediction.
    pub counts: Vec<Vec<u64>>,
    /// For each attack its name, and by label the images that are right under it.
    pub right: Vec<(String, Vec<u64>)>,
}

impl Confusion {
    /// Reads `evaluation.samples.csv`, and the names of the classes from the weights; nothing if the table is missing or
    /// damaged.
    pub fn read(folder: &RunFolder) -> Option<Self> {
        let table = String::from_utf8(read_regular(&folder.file("evaluation.samples.csv")).ok()?).ok()?;
        let weights = ["best", "final"].map(|name| folder.weights(name));
        let names = weights.iter().find(|file| file.is_file()).and_then(|file| read_header(file).ok());
        let names = names.map(|header| header.class_names).filter(|names| names.len() <= MOST_CLASSES);
        Self::parse(&table, names.unwrap_or_default())
    }

    fn parse(table: &str, names: Vec<String>) -> Option<Self> {
        let mut lines = table.lines();
        let attacks: Vec<String> = lines.next()?.split(',').skip(3).map(str::to_owned).collect();
        let rows = lines.map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            let (label, prediction) = (cells.get(1)?.parse::<usize>().ok()?, cells.get(2)?.parse::<usize>().ok()?);
            // An image that is wrong without an attack is not tried by every attack.
            let right = |cell: &str| cell == "stands" && label == prediction;
            Some((label, prediction, cells[3..].iter().map(|cell| right(cell)).collect::<Vec<_>>()))
        });
        let rows: Vec<_> = rows.collect::<Option<_>>()?;
        let last = rows.iter().map(|(label, ..)| *label).max().filter(|label| *label < MOST_CLASSES)?;
        let classes = names.len().max(last + 1);
        let mut counts = vec![vec![0; classes]; classes];
        let mut right: Vec<(String, Vec<u64>)> = attacks.into_iter().map(|name| (name, vec![0; classes])).collect();
        for (label, prediction, stands) in rows {
            // Logits that are not finite are predicted as the class after the last.
            if let Some(count) = counts[label].get_mut(prediction) {
                *count += 1;
            }
            for ((_, by_class), stands) in right.iter_mut().zip(stands) {
                by_class[label] += u64::from(stands);
            }
        }
        let names = if names.len() == classes { names } else { (0..classes).map(|class| class.to_string()).collect() };
        Some(Self { classes: names, counts, right })
    }

    /// The matrix of label and prediction, with each cell's share of its label; nothing for many classes.
    pub fn matrix(&self) -> Option<(Grid, Vec<Vec<f64>>)> {
        if self.classes.len() > MOST_SHOWN {
            return None;
        }
        let columns = std::iter::once("label \\ prediction".to_owned()).chain(self.classes.iter().cloned()).collect();
        let row = |(name, counts): (&String, &Vec<u64>)| {
            std::iter::once(name.clone()).chain(counts.iter().map(u64::to_string)).collect()
        };
        let share = |counts: &Vec<u64>| {
            let all = counts.iter().sum::<u64>().max(1) as f64;
            counts.iter().map(|count| *count as f64 / all).collect()
        };
        let rows = self.classes.iter().zip(&self.counts).map(row).collect();
        Some((Grid { columns, rows }, self.counts.iter().map(share).collect()))
    }

    /// The accuracy of each class under each attack, in percent.
    pub fn by_class(&self) -> Grid {
        let columns = ["class", "images"].map(str::to_owned).into_iter();
        let columns = columns.chain(self.right.iter().map(|(name, _)| format!("{name} %"))).collect();
        let row = |(class, name): (usize, &String)| {
            let images: u64 = self.counts[class].iter().sum();
            let cell =
                |(_, right): &(String, Vec<u64>)| format!("{:.1}", 100.0 * right[class] as f64 / images.max(1) as f64);
            [name.clone(), images.to_string()].into_iter().chain(self.right.iter().map(cell)).collect()
        };
        Grid { columns, rows: self.classes.iter().enumerate().map(row).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "index,label,prediction,natural,pgd20\n0,0,0,stands,fell\n1,0,1,fell,-\n2,1,1,stands,stands\n";

    #[test]
    fn predictions_are_counted_by_label_and_attacks_by_class() {
        let found = Confusion::parse(TABLE, vec!["cat".into(), "dog".into()]).unwrap();
        assert_eq!(found.counts, [[1, 1], [0, 1]]);
        assert_eq!(found.by_class().rows, [["cat", "2", "50.0", "0.0"], ["dog", "1", "100.0", "100.0"]]);
        let (grid, shares) = found.matrix().unwrap();
        assert_eq!((grid.rows[0].join(" "), shares[0][1]), ("cat 1 1".into(), 0.5));
    }

    #[test]
    fn a_damaged_table_is_no_table() {
        assert_eq!(Confusion::parse("index,label,prediction,natural\n0,0,\n", vec![]), None);
        assert_eq!(Confusion::parse("", vec![]), None);
        for label in ["1000", "999999999999", "18446744073709551615"] {
            let damaged = format!("index,label,prediction,natural\n0,{label},0,fell\n");
            assert_eq!(Confusion::parse(&damaged, vec![]), None);
        }
        assert_eq!(Confusion::parse(TABLE, vec![]).unwrap().classes, ["0", "1"]);
    }
}
