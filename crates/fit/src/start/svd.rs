//! A start from singular vectors of the data.

use ndarray::{Array2, ArrayView1, Axis};

use super::matrices::{DataMatrices, Unfolded};
use super::random::uniform_at;
use super::refine::refine;
use crate::observe::Cancel;
use nneinfact_core::algebra::eigen::{orthonormal, symmetric_eigen};
use nneinfact_core::algebra::rearrange;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::{Index, Model, Shapes};

/// The stream of random numbers of the first factor; factor l has stream `STREAM + l`.
const STREAM: u32 = 0x5356_4446;
/// The stream of the random matrices that subspace iterations begin with.
const RANGE: u32 = 0x5356_4452;
/// Entries are clamped from below to this share of their factor's mean.
const FILL: f64 = 1e-2;
/// Singular values below this share of the largest are rounding: the squares of the matrix's are
/// what is computed.
const NOISE: f64 = 1e-7;
/// Up to this size all eigenvectors of a Gram matrix are computed.
const ALL: usize = 400;
/// Up to this size a Gram matrix is formed.
const GRAM: usize = 2000;
/// Iterations with a Gram matrix, which cost little, and with passes over the data.
const ITERATIONS: [usize; 2] = [40, 5];
/// Vectors of a subspace iteration beyond those that are asked for.
const OVERSAMPLING: usize = 10;

/// What a start from singular vectors is made for.
pub(crate) struct SvdStart<'a> {
    pub shapes: &'a Shapes,
    pub seed: u64,
    /// Once it is thrown, the start is made with what is there.
    pub cancel: &'a Cancel,
}

/// Factors from the data, each in C order. Once the fit is cancelled, factors not made yet are random.
pub fn start(source: &impl DataMatrices, wanted: &SvdStart<'_>) -> Result<Vec<Vec<f64>>> {
    let &SvdStart { shapes, seed, cancel } = wanted;
    let model = shapes.model();
    if let Some(modes) = two_sides(model).filter(|_| !cancel.is_cancelled()) {
        let mut factors = nndsvd(source, &modes, wanted)?;
        factors.iter_mut().for_each(|factor| fill(factor));
        return Ok(factors);
    }
    let mut factors = Vec::new();
    for l in 0..model.factors().len() {
        let modes = modes(model, l);
        let (columns, stream) = (columns(shapes, l), STREAM + l as u32);
        let mut factor = if cancel.is_cancelled() {
            arranged(shapes, l, with_random(Vec::new(), shapes, l, seed))
        } else if modes.is_empty() {
            // Not all the same: what updates cannot tell apart stays the same.
            (0..columns as u64).map(|i| 0.5 + uniform_at(seed, stream, i)).collect()
        } else {
            let (vectors, _) = left_vectors(source, &modes, columns, wanted)?;
            let parts = vectors.columns().into_iter().map(|v| larger_part(v).0);
            arranged(shapes, l, with_random(parts.collect(), shapes, l, seed))
        };
        fill(&mut factor);
        factors.push(factor);
    }
    let cores: Vec<usize> = (0..factors.len()).filter(|&l| modes(model, l).is_empty()).collect();
    let most = (0..factors.len()).rev().max_by_key(|&l| columns(shapes, l)).unwrap_or(0);
    for l in if cores.is_empty() { vec![most] } else { cores } {
        if !cancel.is_cancelled() {
            refine(shapes, source, &mut factors, l)?;
            fill(&mut factors[l]);
        }
    }
    Ok(factors)
}

/// The modes of the data that a factor has.
fn modes(model: &Model, l: usize) -> Vec<usize> {
    let output = model.output().iter().enumerate();
    output.filter(|(_, x)| model.factors()[l].contains(x)).map(|(mode, _)| mode).collect()
}

/// A factor's latent indices, in the order that columns are counted in: the same for all factors,
/// so that equal columns belong together.
fn latent(model: &Model, l: usize) -> Vec<Index> {
    model.latent().iter().filter(|x| model.factors()[l].contains(x)).collect()
}

fn columns(shapes: &Shapes, l: usize) -> usize {
    shapes.sizes(&latent(shapes.model(), l)).iter().product()
}

/// The modes of the two factors of a matrix product: each has observed indices of its own, and both
/// have the same latent ones.
fn two_sides(model: &Model) -> Option<[Vec<usize>; 2]> {
    if model.factors().len() != 2 || latent(model, 0) != latent(model, 1) {
        return None;
    }
    let sides = [modes(model, 0), modes(model, 1)];
    let apart = sides[0].iter().all(|mode| !sides[1].contains(mode));
    (apart && sides.iter().all(|side| !side.is_empty())).then_some(sides)
}

/// NNDSVD: of each pair of singular vectors the nonnegative parts of both or the nonpositive parts,
/// whichever product is larger.
fn nndsvd(
    source: &impl DataMatrices,
    modes: &[Vec<usize>; 2],
    wanted: &SvdStart<'_>,
) -> Result<Vec<Vec<f64>>> {
    let &SvdStart { shapes, seed, .. } = wanted;
    let rank = columns(shapes, 0);
    let sides = [source.unfold(&modes[0])?, source.unfold(&modes[1])?];
    let short = usize::from(sides[1].rows() < sides[0].rows());
    let (vectors, values) = eigenvectors(&sides[short], rank, wanted)?;
    let long = normalised(sides[1 - short].times(&vectors)?, &values);
    let pair = if short == 0 { [&vectors, &long] } else { [&long, &vectors] };
    let mut chosen: [Vec<Vec<f64>>; 2] = Default::default();
    for (r, &value) in values.iter().enumerate() {
        let [u, v] = pair.map(|side| side.column(r));
        let of_sign = |sign: f64| [part(u, sign), part(v, sign)];
        let product = |parts: &[(Vec<f64>, f64); 2]| parts[0].1 * parts[1].1;
        let (up, down) = (of_sign(1.0), of_sign(-1.0));
        let larger = if product(&up) >= product(&down) { up } else { down };
        let scale = (value * product(&larger)).sqrt();
        for (chosen, (part, length)) in chosen.iter_mut().zip(larger) {
            let scale = if length > 0.0 { scale / length } else { 0.0 };
            chosen.push(part.iter().map(|x| x * scale).collect());
        }
    }
    let whole = chosen.into_iter().enumerate();
    Ok(whole.map(|(l, parts)| arranged(shapes, l, with_random(parts, shapes, l, seed))).collect())
}

/// The entries of a vector that have this sign, and their length.
fn part(vector: ArrayView1<'_, f64>, sign: f64) -> (Vec<f64>, f64) {
    let part: Vec<f64> = vector.iter().map(|x| (x * sign).max(0.0)).collect();
    let length = part.iter().map(|x| x * x).sum::<f64>().sqrt();
    (part, length)
}

/// The larger of a vector's nonnegative and nonpositive part, with length 1; its length before.
fn larger_part(vector: ArrayView1<'_, f64>) -> (Vec<f64>, f64) {
    let (up, down) = (part(vector, 1.0), part(vector, -1.0));
    let (mut part, length) = if up.1 >= down.1 { up } else { down };
    if length > 0.0 {
        part.iter_mut().for_each(|x| *x /= length);
    }
    (part, length)
}

/// The columns of factor `l` with random ones after those that the data gave, as large as the last
/// of them.
fn with_random(mut parts: Vec<Vec<f64>>, shapes: &Shapes, l: usize, seed: u64) -> Vec<Vec<f64>> {
    let observed: Vec<Index> =
        modes(shapes.model(), l).iter().map(|&m| shapes.model().output()[m]).collect();
    let rows: usize = shapes.sizes(&observed).iter().product();
    let size = |part: &Vec<f64>| part.iter().sum::<f64>();
    let last = parts.iter().map(size).rfind(|&size| size > 0.0).unwrap_or(1.0);
    while parts.len() < columns(shapes, l) {
        let from = (parts.len() * rows) as u64;
        let numbers = (0..rows as u64).map(|i| uniform_at(seed, STREAM + l as u32, from + i));
        let mut column: Vec<f64> = numbers.collect();
        let scale = last / size(&column);
        column.iter_mut().for_each(|x| *x *= scale);
        parts.push(column);
    }
    parts
}

/// Columns over the modes of factor `l` in its own order of axes.
fn arranged(shapes: &Shapes, l: usize, columns: Vec<Vec<f64>>) -> Vec<f64> {
    let model = shapes.model();
    let mut indices = latent(model, l);
    indices.extend(modes(model, l).iter().map(|&mode| model.output()[mode]));
    rearrange(shapes, &indices, &columns.concat(), &model.factors()[l])
}

/// Raises what a multiplicative update could hardly bring back.
fn fill(factor: &mut [f64]) {
    let mean = factor.iter().sum::<f64>() / factor.len() as f64;
    if mean > 0.0 && mean.is_finite() {
        factor.iter_mut().for_each(|x| *x = x.max(FILL * mean));
    } else {
        factor.fill(1.0);
    }
}

/// At most `count` left singular vectors of the data with these modes along the rows, with their
/// singular values, largest first; fewer where the data have lower rank.
fn left_vectors(
    source: &impl DataMatrices,
    modes: &[usize],
    count: usize,
    wanted: &SvdStart<'_>,
) -> Result<(Array2<f64>, Vec<f64>)> {
    let matrix = source.unfold(modes)?;
    if matrix.rows() <= matrix.columns() {
        return eigenvectors(&matrix, count, wanted);
    }
    let others: Vec<usize> = (0..source.modes()).filter(|mode| !modes.contains(mode)).collect();
    let (right, values) = eigenvectors(&source.unfold(&others)?, count, wanted)?;
    Ok((normalised(matrix.times(&right)?, &values), values))
}

/// `M V` to singular vectors.
fn normalised(mut vectors: Array2<f64>, values: &[f64]) -> Array2<f64> {
    for (mut vector, &value) in vectors.columns_mut().into_iter().zip(values) {
        vector /= value;
    }
    vectors
}

/// The leading eigenvectors of `M Mᵀ` and the roots of their eigenvalues.
fn eigenvectors(
    matrix: &impl Unfolded,
    count: usize,
    wanted: &SvdStart<'_>,
) -> Result<(Array2<f64>, Vec<f64>)> {
    let rows = matrix.rows();
    let count = count.min(rows);
    let wide = (count + OVERSAMPLING).min(rows);
    if rows <= ALL || (wide == rows && rows <= GRAM) {
        return leading(matrix.gram()?, count);
    }
    let gram = if rows <= GRAM { Some(matrix.gram()?) } else { None };
    let times = |x: &Array2<f64>| match &gram {
        Some(gram) => Ok(gram.dot(x)),
        None => matrix.gram_times(x),
    };
    // Subspace iteration from a random range (Halko, Martinsson & Tropp 2011).
    let random =
        |(i, j): (usize, usize)| uniform_at(wanted.seed, RANGE, (i * wide + j) as u64) - 0.5;
    let mut range = orthonormal(&Array2::from_shape_fn((rows, wide), random));
    for _ in 0..ITERATIONS[usize::from(gram.is_none())] {
        if wanted.cancel.is_cancelled() {
            break;
        }
        range = orthonormal(&times(&range)?);
    }
    let (vectors, values) = leading(range.t().dot(&times(&range)?), count)?;
    Ok((range.dot(&vectors), values))
}

/// All of a small symmetric matrix's eigenvectors that stand out from rounding, `count` at most, and
/// the roots of their eigenvalues.
fn leading(matrix: Array2<f64>, count: usize) -> Result<(Array2<f64>, Vec<f64>)> {
    // Rounding can leave it a little asymmetric.
    let matrix = 0.5 * (&matrix + &matrix.t());
    let Some((eigenvalues, eigenvectors)) = symmetric_eigen(&matrix) else {
        return Err(Error::Numeric(
            "the singular vectors of the data cannot be computed: take another start".into(),
        ));
    };
    let mut order: Vec<usize> = (0..eigenvalues.len()).collect();
    order.sort_by(|&a, &b| eigenvalues[b].total_cmp(&eigenvalues[a]));
    let value = |i: usize| eigenvalues[i].max(0.0).sqrt();
    let least = NOISE * order.first().map_or(0.0, |&i| value(i));
    order.retain(|&i| value(i) > least);
    order.truncate(count);
    let vectors = eigenvectors.select(Axis(1), &order);
    Ok((vectors, order.into_iter().map(value).collect()))
}
