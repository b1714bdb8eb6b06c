//! What charts draw, and where.

use super::*;

fn chart(ys: &[Option<f64>]) -> Chart {
    let point = |(x, y): (usize, &Option<f64>)| Point { x: x as f64 + 1.0, y: *y, error: 0.0 };
    let points = ys.iter().enumerate().map(point).collect();
    Chart { title: "a<b".to_owned(), lines: vec![Line { points, ..Line::default() }], ..Chart::default() }
}

#[test]
fn a_missing_number_is_a_gap() {
    let svg = chart(&[Some(1.0), Some(2.0), None, Some(1.0), Some(3.0), Some(2.0)]).body(400.0, 0);
    assert_eq!(svg.matches("fill=\"none\" class=\"c0\"").count(), 2);
    assert_eq!(svg.matches("<circle").count(), 5);
    assert!(!svg.contains("NaN") && svg.contains("a&lt;b"));
}

#[test]
fn a_title_takes_the_lines_that_it_needs() {
    let chart = Chart { title: "Accuracy of the guidance on images".into(), ..chart(&[Some(1.0)]) };
    assert_eq!(chart.title_lines(500.0), ["Accuracy of the guidance on images"]);
    assert_eq!(chart.title_lines(240.0), ["Accuracy of the guidance", "on images"]);
    assert_eq!((chart.head_rows(500.0), chart.head_rows(240.0)), (0, 1));
    assert!(chart.body(240.0, 1).contains("y=\"40\""));
}

#[test]
fn a_single_point_is_drawn_and_none_is_no_data() {
    assert!(chart(&[Some(0.5)]).body(400.0, 1).contains("<circle"));
    assert!(!chart(&[None]).has_data());
}

#[test]
fn bounds_hold_the_padding_but_never_the_data() {
    let range = |y| Chart { bounds: Some((0.0, 1.0)), ..chart(&[Some(y)]) }.vertical().0;
    assert_eq!((range(1.0).high, range(0.0).low), (1.0, 0.0));
    assert!(range(1.2).high > 1.2);
}

#[test]
fn lines_that_coincide_are_all_visible_and_others_are_not_widened() {
    let line =
        |ys: [f64; 2], colour| Line { colour, points: chart(&ys.map(Some)).lines.remove(0).points, ..Line::default() };
    let chart =
        Chart { lines: vec![line([1.0, 2.0], 0), line([1.0, 2.0], 1), line([1.0, 3.0], 2)], ..Chart::default() };
    let svg = chart.body(400.0, 0);
    let width = |class: &str| {
        let path = svg.lines().find(|line| line.contains(&format!("fill=\"none\" class=\"{class}\""))).unwrap();
        path.split("stroke-width=\"").nth(1).unwrap().split('"').next().unwrap().parse::<f64>().unwrap()
    };
    assert!(width("c0") > 2.0 * width("c1"), "{svg}");
    assert_eq!(width("c1"), width("c2"));
}

#[test]
fn a_logarithmic_axis_has_no_place_for_0() {
    let svg = Chart { logarithmic: true, ..chart(&[Some(0.0), Some(1e-3), Some(10.0)]) }.body(400.0, 0);
    assert_eq!(svg.matches("<circle").count(), 2);
    assert!(svg.contains(">0.001<") && svg.contains(">10<") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}

#[test]
fn the_table_behind_a_chart_has_its_numbers_and_its_ends() {
    let ys: Vec<Option<f64>> = (0..1000).map(|y| Some(f64::from(y))).collect();
    let (grid, shortened) = chart(&ys).table();
    assert!(shortened && grid.rows.len() <= ROWS + 1);
    assert_eq!((grid.rows[0].join(" "), grid.rows.last().unwrap().join(" ")), ("1 0".into(), "1000 999".into()));
    let (grid, shortened) = chart(&[Some(0.123456), None]).table();
    assert!(!shortened);
    assert_eq!(grid.rows, [["1", "0.12346"], ["2", NOTHING]]);
}
