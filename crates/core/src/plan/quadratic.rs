//! The exact objective of a group under half the squared distance.

use super::sparse::renamed;
use super::{Contraction, Group};
use crate::model::{Index, IndexSet, Shapes};

/// How half the squared distance depends on the factors of a group, all other factors being fixed:
/// `½⟨U, U Q⟩ − ⟨N, U⟩` and a constant, where U is the product of the group's factors, N the numerator
/// of its pass and Q the other factors' product with itself, summed over the indices that U does not
/// have. Where all entries are observed, Q is one for all rows of U that see the same other factors;
/// where they are not, or have weights, every row has its own.
///
/// In one factor of the group this is a quadratic form that couples the indices of its latent
/// indices only.
#[derive(Clone, Debug, PartialEq)]
pub struct Quadratic {
    /// The sizes, with a second index for every latent index.
    pub shapes: Shapes,
    /// The factors outside the group.
    pub others: Vec<usize>,
    /// Q, from those factors and from the same under their second indices, each entry counted once.
    pub gram: Contraction,
    /// For each factor of the group, its quadratic form.
    pub factors: Vec<Coupling>,
}

/// The quadratic form of one factor.
#[derive(Clone, Debug, PartialEq)]
pub struct Coupling {
    /// From Q, the other factors of the group and the same under their second indices, onto
    /// `batch`, `latent` and the second indices of `latent`.
    pub contraction: Contraction,
    /// The factor's observed indices that the form depends on.
    pub batch: Vec<Index>,
    /// Its other observed indices.
    pub rows: Vec<Index>,
    /// Its latent indices.
    pub latent: Vec<Index>,
}

/// Entries that Q and the forms may have.
const MOST: f64 = 4_194_304.0;

impl Quadratic {
    /// The objective of a group; `None` where it would be large (a core tensor with large ranks),
    /// or where there are not enough indices to write it with.
    #[must_use]
    pub fn new(shapes: &Shapes, group: &Group) -> Option<Quadratic> {
        Quadratic::along(shapes, group, IndexSet::EMPTY, MOST)
    }

    /// The objective of a group where entries differ in what they count: every row of the output has
    /// a Q of its own, `Σ W V Vᵀ`, so that Q has all observed indices of the group. `None` where Q or
    /// a form would have more than `most` entries, or where there are not enough indices to write it
    /// with.
    #[must_use]
    pub fn by_rows(shapes: &Shapes, group: &Group, most: f64) -> Option<Quadratic> {
        Quadratic::along(shapes, group, shapes.model().observed(), most)
    }

    /// The objective where Q has these observed indices besides those of the other factors.
    fn along(shapes: &Shapes, group: &Group, rows: IndexSet, most: f64) -> Option<Quadratic> {
        let (doubled, pairs) = shapes.doubled()?;
        let factors = shapes.model().factors();
        let rename = |indices: &[Index]| renamed(indices, &pairs);
        let observed = shapes.model().observed();
        let union =
            |list: &[usize]| -> IndexSet { list.iter().flat_map(|&l| &factors[l]).collect() };

        let others: Vec<usize> =
            (0..factors.len()).filter(|l| !group.factors.contains(l)).collect();
        let shared = (union(&others) | rows) & union(&group.factors);
        let batch: Vec<Index> = (shared & observed).iter().collect();
        let contracted: Vec<Index> = (shared - observed).iter().collect();
        let mut indices = batch;
        indices.extend(&contracted);
        indices.extend(rename(&contracted));
        let contraction = |first: Option<&[Index]>, list: &[usize], onto: &[Index]| {
            let plain = list.iter().map(|&l| factors[l].clone());
            let again = list.iter().map(|&l| rename(&factors[l]));
            let inputs: Vec<Vec<Index>> =
                first.map(<[Index]>::to_vec).into_iter().chain(plain).chain(again).collect();
            let views: Vec<&[Index]> = inputs.iter().map(Vec::as_slice).collect();
            Contraction::new(&doubled, &views, onto)
        };
        let small = |form: &Contraction| {
            doubled.volume(form.output().iter().collect()) <= most && form.peak() <= 4.0 * most
        };
        let gram = contraction(None, &others, &indices);
        if !small(&gram) {
            return None;
        }
        let mut forms = Vec::new();
        for &l in &group.factors {
            let co_operands: Vec<usize> =
                group.factors.iter().copied().filter(|&m| m != l).collect();
            let elsewhere = union(&co_operands) | indices.iter().collect();
            let (mut batch, mut rows, mut latent) = (Vec::new(), Vec::new(), Vec::new());
            for &x in &factors[l] {
                match (observed.contains(x), elsewhere.contains(x)) {
                    (true, true) => batch.push(x),
                    (true, false) => rows.push(x),
                    (false, _) => latent.push(x),
                }
            }
            let onto = [batch.as_slice(), &latent, &rename(&latent)].concat();
            let form = contraction(Some(&indices), &co_operands, &onto);
            if !small(&form) {
                return None;
            }
            forms.push(Coupling { contraction: form, batch, rows, latent });
        }
        Some(Quadratic { shapes: doubled, others, gram, factors: forms })
    }
}
