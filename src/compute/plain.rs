//! The kernels' functions in plain candle operations: what runs on devices that have no kernel of ours, and what the
//! kernels are held against.

use super::Direction;
use super::affine::AffineTransform;
use super::attention::AttentionShape;
use super::bias_activation::Activation;
use super::spline::{MIN_BIN, MIN_SLOPE, SplineKind, SplineTransform};
use candle_core::{D, DType, Result, Tensor};
use std::f64::consts::PI;

pub(super) fn bias_activation(x: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let shifted = x.broadcast_add(bias)?;
    match activation {
        Activation::Identity => Ok(shifted),
        Activation::Relu => shifted.relu(),
        Activation::Silu => shifted.silu(),
        Activation::Tanh => shifted.tanh(),
    }
}

pub(super) fn attention(shape: AttentionShape, projected: &Tensor) -> Result<Tensor> {
    let AttentionShape { tokens, heads } = shape;
    let (rows, columns) = projected.dims2()?;
    let (n, width, of_head) = (rows / tokens, columns / 3, columns / 3 / heads);
    let projected = projected.reshape((n, tokens, 3, heads, of_head))?;
    let part = |k: usize| {
        let part = projected.narrow(2, k, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous()?;
        part.reshape((n * heads, tokens, of_head))
    };
    let (queries, keys, values) = (part(0)?, part(1)?, part(2)?);
    let affinity = (queries.matmul(&keys.transpose(1, 2)?.contiguous()?)? / (of_head as f64).sqrt())?;
    let taken = candle_nn::ops::softmax(&affinity, D::Minus1)?.matmul(&values)?;
    let taken = taken.reshape((n, heads, tokens, of_head))?.transpose(1, 2)?.contiguous()?;
    taken.reshape((rows, width))
}

pub(super) fn features(x: &Tensor, columns: &[(usize, bool)], dtype: DType) -> Result<Tensor> {
    let mut parts = Vec::with_capacity(columns.len());
    for &(j, circular) in columns {
        let column = x.narrow(1, j, 1)?;
        if circular {
            parts.push(column.cos()?);
            parts.push(column.sin()?);
        } else {
            parts.push(column);
        }
    }
    if parts.is_empty() {
        return Tensor::zeros((x.dim(0)?, 0), dtype, x.device());
    }
    Tensor::cat(&parts, 1)?.to_dtype(dtype)
}

pub(super) fn affine(
    transform: &AffineTransform,
    x: &Tensor,
    params: &Tensor,
    direction: Direction,
) -> Result<(Tensor, Tensor)> {
    let m = transform.columns.len();
    let params = params.to_dtype(DType::F64)?;
    let s = ((params.narrow(1, 0, m)? / transform.bound)?.tanh()? * transform.bound)?;
    let t = params.narrow(1, m, m)?;
    let input = select(x, &transform.columns)?;
    let (y, ladj) = match direction {
        Direction::Forward => ((input * s.exp()?)?.add(&t)?, s.sum(1)?),
        Direction::Inverse => (input.sub(&t)?.mul(&s.neg()?.exp()?)?, s.sum(1)?.neg()?),
    };
    Ok((replace(x, &transform.columns, &y)?, ladj))
}

pub(super) fn spline(
    transform: &SplineTransform,
    x: &Tensor,
    params: &Tensor,
    direction: Direction,
) -> Result<(Tensor, Tensor)> {
    let params = params.to_dtype(DType::F64)?;
    let (mut out, mut ladj) = (x.clone(), x.narrow(1, 0, 1)?.squeeze(1)?.zeros_like()?);
    for kind in [SplineKind::Linear, SplineKind::Circular] {
        let group: Vec<_> = transform.columns.iter().filter(|c| c.kind == kind).collect();
        if group.is_empty() {
            continue;
        }
        let width = kind.parameters(transform.bins);
        let columns: Vec<usize> = group.iter().map(|c| c.column).collect();
        let indices: Vec<usize> = group.iter().flat_map(|c| c.offset..c.offset + width).collect();
        let theta = select(&params, &indices)?.reshape((x.dim(0)?, columns.len(), width))?;
        let input = select(x, &columns)?;
        let (y, l) = spline_group(kind, transform.bins, transform.half(kind), &input, &theta, direction)?;
        out = replace(&out, &columns, &y)?;
        ladj = (ladj + l.sum(1)?)?;
    }
    Ok((out, ladj))
}

fn spline_group(
    kind: SplineKind,
    bins: usize,
    half: f64,
    input: &Tensor,
    theta: &Tensor,
    direction: Direction,
) -> Result<(Tensor, Tensor)> {
    let circular = kind == SplineKind::Circular;
    let rotation = if circular { Some(theta.narrow(2, 3 * bins, 1)?.squeeze(2)?) } else { None };
    let value = match (&rotation, direction) {
        (Some(_), Direction::Forward) => wrap(input)?,
        (Some(rotation), Direction::Inverse) => wrap(&input.sub(rotation)?)?,
        (None, _) => input.clone(),
    };
    let inside = (value.ge(-half)? * value.lt(half)?)?;
    let value = inside.where_cond(&value, &value.zeros_like()?)?;

    let widths = sizes(&theta.narrow(2, 0, bins)?, bins, half)?;
    let heights = sizes(&theta.narrow(2, bins, bins)?, bins, half)?;
    let slopes = slopes(kind, bins, theta)?;
    let (xs, ys) = (starts(&widths, bins, half)?, starts(&heights, bins, half)?);
    let searched = if direction == Direction::Forward { &xs } else { &ys };
    let passed = searched.narrow(2, 1, bins - 1)?.broadcast_le(&value.unsqueeze(2)?)?;
    let index = passed.to_dtype(DType::F64)?.sum_keepdim(2)?.to_dtype(DType::U32)?;
    let at = |table: &Tensor| table.contiguous()?.gather(&index, 2)?.squeeze(2);
    let (x0, y0, w, h) = (at(&xs)?, at(&ys)?, at(&widths)?, at(&heights)?);
    let (d0, d1) = (at(&slopes.narrow(2, 0, bins)?)?, at(&slopes.narrow(2, 1, bins)?)?);
    let s = (&h / &w)?;
    let curvature = ((&d0 + &d1)? - (&s * 2.0)?)?;

    let u = match direction {
        Direction::Forward => ((&value - &x0)? / &w)?,
        Direction::Inverse => {
            let rise = (&value - &y0)?;
            let bend = (&rise * &curvature)?;
            let a = ((&h * (&s - &d0)?)? + &bend)?;
            let b = ((&h * &d0)? - &bend)?;
            let c = (&s * &rise)?.neg()?;
            let root = (b.sqr()? - ((&a * &c)? * 4.0)?)?.relu()?.sqrt()?;
            ((&c * 2.0)? / (b.neg()? - root)?)?
        }
    };
    let v = u.affine(-1.0, 1.0)?;
    let uv = (&u * &v)?;
    let den = (&s + (&curvature * &uv)?)?;
    let p = (((&d1 * u.sqr()?)? + ((&s * &uv)? * 2.0)?)? + (&d0 * v.sqr()?)?)?;
    let log_slope = ((s.sqr()? * p)? / den.sqr()?)?.log()?;
    let (y, ladj) = match direction {
        Direction::Forward => {
            let num = ((&s * u.sqr()?)? + (&d0 * &uv)?)?;
            ((&y0 + ((&h * num)? / den)?)?, log_slope)
        }
        Direction::Inverse => ((&x0 + (&u * &w)?)?, log_slope.neg()?),
    };
    let y = match (&rotation, direction) {
        (Some(rotation), Direction::Forward) => wrap(&y.add(rotation)?)?,
        (Some(_), Direction::Inverse) => wrap(&y)?,
        (None, _) => inside.where_cond(&y, input)?,
    };
    let ladj = inside.where_cond(&ladj, &ladj.zeros_like()?)?;
    Ok((y, ladj))
}

/// Widths or heights of the bins, from their logits.
fn sizes(logits: &Tensor, bins: usize, half: f64) -> Result<Tensor> {
    let p = candle_nn::ops::softmax(logits, D::Minus1)?;
    p.affine(2.0 * half * (1.0 - bins as f64 * MIN_BIN), 2.0 * half * MIN_BIN)
}

/// Where each bin begins.
fn starts(sizes: &Tensor, bins: usize, half: f64) -> Result<Tensor> {
    let mut start = sizes.narrow(2, 0, 1)?.zeros_like()?.affine(1.0, -half)?;
    let mut all = vec![start.clone()];
    for k in 0..bins - 1 {
        start = (start + sizes.narrow(2, k, 1)?)?;
        all.push(start.clone());
    }
    Tensor::cat(&all, 2)
}

/// Slopes at the bins + 1 knots.
fn slopes(kind: SplineKind, bins: usize, theta: &Tensor) -> Result<Tensor> {
    let free = if kind == SplineKind::Linear { bins - 1 } else { bins };
    let raw = theta.narrow(2, 2 * bins, free)?;
    let inner = (&raw + raw.sqr()?.affine(1.0, 4.0)?.sqrt()?)?.affine(0.5 * (1.0 - MIN_SLOPE), MIN_SLOPE)?;
    let ends = match kind {
        SplineKind::Linear => inner.narrow(2, 0, 1)?.ones_like()?,
        SplineKind::Circular => inner.narrow(2, 0, 1)?,
    };
    match kind {
        SplineKind::Linear => Tensor::cat(&[&ends, &inner, &ends], 2),
        SplineKind::Circular => Tensor::cat(&[&inner, &ends], 2),
    }
}

fn wrap(angle: &Tensor) -> Result<Tensor> {
    let turns = angle.affine(1.0 / (2.0 * PI), 0.5)?.floor()?;
    angle - (turns * (2.0 * PI))?
}

pub(crate) fn select(x: &Tensor, columns: &[usize]) -> Result<Tensor> {
    let index = Tensor::from_iter(columns.iter().map(|&c| c as u32), x.device())?;
    x.contiguous()?.index_select(&index, 1)
}

/// x with some of its columns replaced.
pub(crate) fn replace(x: &Tensor, columns: &[usize], values: &Tensor) -> Result<Tensor> {
    let d = x.dim(1)?;
    let mut order: Vec<usize> = (0..d).collect();
    for (c, &j) in columns.iter().enumerate() {
        order[j] = d + c;
    }
    select(&Tensor::cat(&[x, values], 1)?, &order)
}
