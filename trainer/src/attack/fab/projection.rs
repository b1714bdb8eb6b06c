//! The shortest way to a plane inside the box of images, in the L-infinity norm (fab_projections.py of AutoAttack).

use tch::{Kind, Tensor};

/// The smallest move (by its largest component) from `points` that stays within [0, 1] and takes the linear functions with
/// gradients `slope` from `values [N]` to 0; where no move does, the one that comes nearest. Points, slopes and the result
/// have one shape `[N, ...]`.
///
/// With the shortest move of length l, each component goes l towards the plane, or as far as the box allows if that is less.
/// So the components are sorted by their way to the box: the function falls linearly in l between two of these ways.
pub fn onto_plane(points: &Tensor, slope: &Tensor, values: &Tensor) -> Tensor {
    let (shape, points, slope) = (points.size(), points.flatten(1, -1), slope.flatten(1, -1));
    let need = values.abs().unsqueeze(1);
    let uphill = (&slope * values.unsqueeze(1).sign()).sign();
    // The way of each component to the wall it moves to: 0 when it rises against the function, 1 when it falls with it.
    let room = points.where_self(&uphill.gt(0.0), &(1.0 - &points));
    let (walls, order) = room.sort_stable(true, 1, false);
    let weights = slope.abs().gather(1, &order, false);
    // What components stopped by a wall before this one give, and the weight of those that still move.
    let given = &weights * &walls;
    let stopped = given.cumsum(1, None::<Kind>) - given;
    let moving = weights.flip([1]).cumsum(1, None::<Kind>).flip([1]);
    let reached = &stopped + &walls * &moving;
    let place = reached.lt_tensor(&need).sum_dim_intlist(1i64, true, Kind::Int64).clamp_max(walls.size()[1] - 1);
    // Past the last wall the length only has to be large: every component ends at its wall.
    let length = (need - stopped.gather(1, &place, false)) / moving.gather(1, &place, false).clamp_min(1e-30);
    (-uphill * room.minimum(&length.clamp_min(0.0))).view(shape.as_slice())
}

#[cfg(test)]
mod tests;
