//! An event file of TensorBoard.

use super::histograms::Histogram;
use super::images::Picture;
use super::record::Message;
use super::scalars::Scalar;

/// The file's name; TensorBoard looks for `tfevents`.
pub(super) const NAME: &str = "events.out.tfevents.0.iad-launch";

/// The bytes of a file with these numbers and pictures, at `began` (seconds since 1970). Tags begin with the event, as in `epoch/loss`.
pub(super) fn file(began: f64, scalars: &[Scalar], histograms: &[Histogram], pictures: &[Picture]) -> Vec<u8> {
    let mut bytes = Message::default().double(1, began).bytes(3, b"brain.Event:2").record();
    for Scalar { event, step, name, value } in scalars {
        let value = Message::default().bytes(1, format!("{event}/{name}").as_bytes()).float(2, *value as f32);
        bytes.extend(event_of(began, *step, &value));
    }
    for histogram in histograms {
        let value = Message::default().bytes(1, histogram.name.as_bytes()).message(5, &proto(histogram));
        bytes.extend(event_of(began, histogram.step, &value));
    }
    for picture in pictures {
        let value = Message::default().bytes(1, picture.name.as_bytes()).message(4, &image(&picture.png));
        bytes.extend(event_of(began, picture.step, &value));
    }
    bytes
}

fn event_of(began: f64, step: u64, value: &Message) -> Vec<u8> {
    let summary = Message::default().message(1, value);
    Message::default().double(1, began).whole(2, step).message(5, &summary).record()
}

/// A `Summary.Image` of a PNG picture of three channels.
fn image(png: &[u8]) -> Message {
    // The header of a PNG file has its width at byte 16 and its height after it.
    let size = |place: usize| {
        let bytes = png.get(place..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map_or(0, |bytes| u64::from(u32::from_be_bytes(*bytes)))
    };
    Message::default().whole(1, size(20)).whole(2, size(16)).whole(3, 3).bytes(4, png)
}

/// A `HistogramProto`; its sums are those of the bins' middles.
fn proto(histogram: &Histogram) -> Message {
    let begins = std::iter::once(0.0).chain(histogram.ends.iter().copied());
    let middles: Vec<f64> = begins.zip(&histogram.ends).map(|(begin, end)| (begin + end) / 2.0).collect();
    let sum =
        |power: i32| middles.iter().zip(&histogram.counts).map(|(middle, count)| middle.powi(power) * count).sum();
    Message::default()
        .double(1, 0.0)
        .double(2, 1.0)
        .double(3, sum(0))
        .double(4, sum(1))
        .double(5, sum(2))
        .doubles(6, &histogram.ends)
        .doubles(7, &histogram.counts)
}
