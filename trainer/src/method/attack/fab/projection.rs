//! The shortest move to a plane inside the box of images (fab_projections.py of AutoAttack).

use tch::{Kind, Tensor};

use crate::config::Norm;

/// The move of the smallest `norm` from `points` that stays within [0, 1] and takes the linear functions with gradients
/// `slope` from `values [N]` to 0. If no move reaches 0, the one that comes nearest. Points, slopes and the result
/// share one shape `[N, ...]`.
pub fn onto_plane(norm: Norm, points: &Tensor, slope: &Tensor, values: &Tensor) -> Tensor {
    let (shape, points, slope) = (points.size(), points.flatten(1, -1), slope.flatten(1, -1));
    let need = values.abs().unsqueeze(1);
    let uphill = (&slope * values.unsqueeze(1).sign()).sign();
    // The distance of each component to the wall it moves towards: 0 if it rises against the function, 1 if it falls
    // with it.
    let room = points.where_self(&uphill.gt(0.0), &(1.0 - &points));
    let way = match norm {
        Norm::Linf => equal_ways(&room, &slope.abs(), &need),
        Norm::L2 => proportional_ways(&room, &slope.abs(), &need),
    };
    (-uphill * way).view(shape.as_slice())
}

/// The move with the smallest largest component l moves each component by l towards the plane, or to the wall if that
/// is nearer. So the components are sorted by their distance to the wall: between two of these distances the function
/// is linear in l.
fn equal_ways(room: &Tensor, steepness: &Tensor, need: &Tensor) -> Tensor {
    let (walls, order) = room.sort_stable(true, 1, false);
    let weights = steepness.gather(1, &order, false);
    // The contribution of the components that stopped at an earlier wall, and the weight of those that still move.
    let given = &weights * &walls;
    let stopped = given.cumsum(1, None::<Kind>) - given;
    let moving = weights.flip([1]).cumsum(1, None::<Kind>).flip([1]);
    let reached = &stopped + &walls * &moving;
    let place = reached.lt_tensor(need).sum_dim_intlist(1i64, true, Kind::Int64).clamp_max(walls.size()[1] - 1);
    // Past the last wall any large length will do: every component ends at its wall.
    let length = (need - stopped.gather(1, &place, false)) / moving.gather(1, &place, false).clamp_min(1e-30);
    room.minimum(&length.clamp_min(0.0))
}

/// The shortest move moves each component by l times its slope, or to the wall if that is nearer. So the components are
/// sorted by the l at which they meet the wall.
fn proportional_ways(room: &Tensor, steepness: &Tensor, need: &Tensor) -> Tensor {
    /// Components of a smaller slope do not move.
    const FLAT: f64 = 1e-8;
    let moves = steepness.ge(FLAT);
    // Components that do not move come last.
    let factor = (room / steepness).where_scalarother(&moves, f64::INFINITY);
    let (walls, order) = factor.sort_stable(true, 1, false);
    let steepness = steepness.where_scalarother(&moves, 0.0);
    let given = (&steepness * room).gather(1, &order, false);
    let stopped = given.cumsum(1, None::<Kind>) - given;
    let moving = steepness.square().gather(1, &order, false).flip([1]).cumsum(1, None::<Kind>).flip([1]);
    let reached = &stopped + walls * &moving;
    let last = moves.sum_dim_intlist(1i64, true, Kind::Int64) - 1;
    let place = reached.lt_tensor(need).sum_dim_intlist(1i64, true, Kind::Int64).minimum(&last).clamp_min(0);
    // Past the last wall this factor exceeds that of every component, and each ends at its wall.
    let length = (need - stopped.gather(1, &place, false)) / moving.gather(1, &place, false).clamp_min(1e-30);
    (steepness * length.clamp_min(0.0)).minimum(room).where_scalarother(&moves, 0.0)
}

#[cfg(test)]
mod tests;
