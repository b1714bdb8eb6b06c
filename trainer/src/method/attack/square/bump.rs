//! The changes of Square in L2: bumps, and the exchange that moves one window's part of the radius to another window.

use tch::{Kind, Tensor};

/// Rows and columns of bumps at the start.
const TILES: i64 = 5;
/// Keeps the direction of a zero vector at 0, as in AutoAttack.
const TINY: f64 = 1e-12;

/// `[N, C, H, W]` of images.
pub(super) fn shape(images: &Tensor) -> [i64; 4] {
    images.size4().map(|(count, channels, height, width)| [count, channels, height, width]).unwrap_or_default()
}

/// A bump of length 1: a positive pyramid above a negative one.
pub(super) struct Bump {
    /// Rows and columns.
    pub(super) side: i64,
    /// `[2, side * side]`: the bump, and its transpose.
    both: Tensor,
}

impl Bump {
    /// The bump of this side, on the device and in the type of `like`.
    pub(super) fn new(side: i64, like: &Tensor) -> Self {
        let upper = pyramid(side / 2, side);
        let lower = pyramid(side - side / 2, side);
        let values: Vec<f64> = upper.into_iter().chain(lower.into_iter().map(|value| -value)).collect();
        let bump = Tensor::from_slice(&of_length_1(values)).view([side, side]);
        let both = Tensor::stack(&[bump.flatten(0, -1), bump.tr().flatten(0, -1)], 0);
        Self { side, both: both.to_device(like.device()).to_kind(like.kind()) }
    }

    /// One bump for each number of `[N]`: upright up to 0.5, else transposed. `[N, 1, side * side]`.
    pub(super) fn turned(&self, uniform: &Tensor) -> Tensor {
        self.both.index_select(0, &uniform.gt(0.5).to_kind(Kind::Int64)).unsqueeze(1)
    }

    /// New `moves [N, C, H, W]` within `eps`. In a first window a bump is added to the direction of the move; in a
    /// second window the move becomes 0. The first window gets the length of both and the unused part of the radius.
    /// The numbers `[N, 5 + C]`, uniform in [0, 1), choose the corners of both windows, the orientation of the bump and
    /// its sign in each channel.
    pub(super) fn exchange(&self, moves: &Tensor, eps: f64, uniform: &Tensor) -> Tensor {
        let [_, channels, height, width] = shape(moves);
        let side = self.side;
        let lines = |column: i64, length: i64| lines(&uniform.narrow(1, column, 1), side, length);
        // The indices of a window's pixels in each channel, row after row.
        let window = |row: i64, column: i64| {
            let places = lines(row, height).unsqueeze(2) * width + lines(column, width).unsqueeze(1);
            places.view([-1, 1, side * side]).expand([-1, channels, side * side], false)
        };
        let (first, second) = (window(0, 1), window(2, 3));

        let flat = moves.flatten(2, -1);
        let either = flat.zeros_like().scatter_value(2, &first, 1.0).scatter_value(2, &second, 1.0);
        let unused = (eps * eps - squares(&flat, &[1, 2])).clamp_min(0.0) / channels as f64;
        let length = (unused + squares(&(&flat * either), &[2])).sqrt();
        let there = flat.gather(2, &first, false);
        let direction = &there / (squares(&there, &[2]).sqrt() + TINY);
        let bump = self.turned(&uniform.select(1, 4)) * signs(&uniform.narrow(1, 5, channels)).to_kind(moves.kind());
        let changed = bump + direction;
        let changed = &changed / (squares(&changed, &[2]).sqrt() + TINY) * length;
        flat.scatter_value(2, &second, 0.0).scatter(2, &first, &changed).view_as(moves)
    }
}

/// The lines of windows of `side` lines within `length`, `[N, side]`, from one number in [0, 1) for each, `[N, 1]`, float64.
pub(super) fn lines(uniform: &Tensor, side: i64, length: i64) -> Tensor {
    let corner = (uniform * (length - side) as f64).floor().to_kind(Kind::Int64);
    corner + Tensor::arange(side, (Kind::Int64, uniform.device()))
}

/// The number of random numbers for the first moves of `images [N, C, H, W]`: an orientation for each bump, and a sign
/// in each channel.
pub(super) fn numbers_of_first_moves(images: &Tensor) -> i64 {
    let [_, channels, height, width] = shape(images);
    let (side, _) = tiles(height, width);
    TILES.min(height / side) * TILES.min(width / side) * (1 + channels)
}

/// The moves at the start, in the shape of `images [N, C, H, W]` and of any length: five by five bumps side by side in
/// the middle, fewer in small images. `uniform` holds the numbers of [`numbers_of_first_moves`] for each image.
pub(super) fn first_moves(images: &Tensor, uniform: &Tensor) -> Tensor {
    let [count, channels, height, width] = shape(images);
    let (side, [rows, columns]) = tiles(height, width);
    let bump = Bump::new(side, images);
    let moves = images.zeros_like();
    for tile in 0..rows * columns {
        let first = tile * (1 + channels);
        let bumps = bump.turned(&uniform.select(1, first)).view([count, 1, side, side]);
        let signs = signs(&uniform.narrow(1, first + 1, channels)).view([count, channels, 1, 1]);
        let top = (height - rows * side) / 2 + tile / columns * side;
        let left = (width - columns * side) / 2 + tile % columns * side;
        moves.narrow(2, top, side).narrow(3, left, side).copy_(&(bumps * signs.to_kind(images.kind())));
    }
    moves
}

/// The side of the first bumps, and the numbers of their rows and columns.
fn tiles(height: i64, width: i64) -> (i64, [i64; 2]) {
    let side = (height.min(width) / TILES).max(1);
    (side, [height, width].map(|length| TILES.min(length / side)))
}

/// A pyramid of rings around the middle of `rows` by `columns` pixels, of length 1. The height of ring d, counted from
/// the middle, is the sum of 1 / (k + 1)^2 over k from d to the outermost ring.
fn pyramid(rows: i64, columns: i64) -> Vec<f64> {
    let rings = (rows / 2 + 1).max(columns / 2 + 1);
    let height = |ring: i64| -> f64 { (ring..rings).map(|k| ((k + 1) * (k + 1)) as f64).map(f64::recip).sum() };
    let pixels = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    of_length_1(pixels.map(|(row, column)| height((row - rows / 2).abs().max((column - columns / 2).abs()))).collect())
}

fn of_length_1(values: Vec<f64>) -> Vec<f64> {
    let length = values.iter().map(|value| value * value).sum::<f64>().sqrt();
    values.into_iter().map(|value| value / length).collect()
}

/// 1 for the upper half of [0, 1), -1 for the lower, `[N, C, 1]`.
fn signs(uniform: &Tensor) -> Tensor {
    (uniform.gt(0.5).to_kind(uniform.kind()) * 2.0 - 1.0).unsqueeze(2)
}

/// The sum of squares over `dims`, which keep size 1.
fn squares(values: &Tensor, dims: &[i64]) -> Tensor {
    values.square().sum_dim_intlist(dims, true, Kind::Double).to_kind(values.kind())
}
