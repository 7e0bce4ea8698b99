//! Sums over the entries of each role, in closed form.
//!
//! Where the factors are fitted to some entries only, a closed form `Σ V` over all entries becomes
//! `Σ W V`, W being 1 at those entries and 0 elsewhere. Along a cut of the modes into *rows* and
//! *columns* that is a matrix of zeros and ones times a small one: no ŷ is formed, and what is
//! summed for each row are the columns of whichever roles have fewer entries there; the sum over
//! the role with most entries is what they leave of the sum over all.

use super::cost;
use super::sparse::renamed;
use super::{Contraction, Group};
use crate::model::{Index, IndexSet, Shapes};

/// What is summed over the entries of each role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleTerm {
    /// `Σ W V`: a denominator whose terms do not depend on ŷ.
    Linear,
    /// `Σ W V Vᵀ`: the quadratic form of exact steps.
    Pairs,
}

/// The sums over the entries of each role for one group of factors.
///
/// The columns' product is that of all factors that have an index of a column; the other factors
/// outside the group multiply the sums afterwards.
#[derive(Clone, Debug, PartialEq)]
pub struct RolePass {
    /// What is summed.
    pub term: RoleTerm,
    /// Observed indices of the rows that the columns' product has, too.
    pub batch: Vec<Index>,
    /// The other observed indices of the rows.
    pub rows: Vec<Index>,
    /// The observed indices that are summed over.
    pub columns: Vec<Index>,
    /// The latent indices that the columns' product shares with the other factors.
    pub latent: Vec<Index>,
    /// The factors of the columns' product.
    pub column_factors: Vec<usize>,
    /// Their product onto `batch`, `columns` and `latent`.
    pub column_product: Contraction,
    /// All other factors.
    pub row_factors: Vec<usize>,
    /// Their product onto `batch`, `rows` and `latent`: its inner product with a role's sums is `Σ ŷ`
    /// over the entries of the role.
    pub row_product: Contraction,
    /// The factors outside the group that the sums are multiplied with.
    pub fold_factors: Vec<usize>,
    /// From the sums (input 0, with `batch`, `rows`, `latent` and for pairs the second names of
    /// `latent`) and those factors, for pairs also under their second indices, to the group's sums.
    pub fold: Contraction,
    /// The sizes that `fold` goes by: for pairs with a second index for every latent one.
    pub shapes: Shapes,
    /// Predicted seconds of a nominal core.
    pub cost: f64,
    /// Bytes that it keeps or needs at once.
    pub bytes: f64,
    /// Numbers of the largest tensor.
    pub words: f64,
}

/// Columns that a place in a row's list is counted in, in one byte.
pub const ROLE_BLOCK: usize = 256;

/// Cuts that are compared where there are many modes; a model has at most 52 of them.
const CUTS: usize = 8;

impl RolePass {
    /// The cheapest pass for a group whose rows list so many entries in all, from passes in elements
    /// of so many bytes. `None` where there are not enough indices to write it with.
    #[must_use]
    pub fn new(
        shapes: &Shapes,
        group: &Group,
        term: RoleTerm,
        listed: u64,
        element_bytes: usize,
    ) -> Option<RolePass> {
        let factors = shapes.model().factors();
        let union =
            |list: &[usize]| -> IndexSet { list.iter().flat_map(|&l| &factors[l]).collect() };
        let own = union(&group.factors) & shapes.model().observed();
        let free: Vec<Index> =
            shapes.model().output().iter().copied().filter(|&x| !own.contains(x)).collect();
        // Few modes: all ways to cut them. Many: some that cut between neighbours.
        let ways: Vec<u64> = match free.len() {
            n @ 0..=6 => (0..1 << n).collect(),
            n => (0..CUTS).map(|cut| (1 << (n * cut / CUTS)) - 1).collect(),
        };
        let mut best: Option<RolePass> = None;
        for way in ways {
            let more = (0..free.len()).filter(|at| way >> at & 1 == 1).map(|at| free[at]);
            let rows = own | more.collect();
            let Some(pass) = RolePass::along(shapes, group, term, rows, listed, element_bytes)
            else {
                continue;
            };
            if best.as_ref().is_none_or(|best| pass.cost < best.cost) {
                best = Some(pass);
            }
        }
        best
    }

    /// The pass with these observed indices in rows.
    fn along(
        shapes: &Shapes,
        group: &Group,
        term: RoleTerm,
        rows: IndexSet,
        listed: u64,
        element_bytes: usize,
    ) -> Option<RolePass> {
        let model = shapes.model();
        let (factors, observed) = (model.factors(), model.observed());
        let union =
            |list: &[usize]| -> IndexSet { list.iter().flat_map(|&l| &factors[l]).collect() };
        let in_order = |set: IndexSet| -> Vec<Index> {
            model.output().iter().copied().filter(|&x| set.contains(x)).collect()
        };
        let columns = observed - rows;
        let (mut column_factors, mut row_factors) = (Vec::new(), Vec::new());
        for (l, indices) in factors.iter().enumerate() {
            let has = !group.factors.contains(&l) && indices.iter().any(|&x| columns.contains(x));
            if has { column_factors.push(l) } else { row_factors.push(l) }
        }
        let fold_factors: Vec<usize> =
            row_factors.iter().copied().filter(|l| !group.factors.contains(l)).collect();
        let inside = union(&column_factors);
        let latent: Vec<Index> = ((inside & union(&row_factors)) - observed).iter().collect();
        let batch = inside & rows;
        let (batch, rows) = (in_order(batch), in_order(rows - batch));
        let columns = in_order(columns);
        let product = |list: &[usize], onto: &[&[Index]]| {
            let views: Vec<&[Index]> = list.iter().map(|&l| factors[l].as_slice()).collect();
            Contraction::new(shapes, &views, &onto.concat())
        };
        let column_product = product(&column_factors, &[&batch, &columns, &latent]);
        let row_product = product(&row_factors, &[&batch, &rows, &latent]);

        let group_indices = union(&group.factors);
        let others: Vec<usize> =
            (0..factors.len()).filter(|l| !group.factors.contains(l)).collect();
        let kept: Vec<Index> = ((union(&others) & group_indices) - observed).iter().collect();
        let own = in_order(group_indices & observed);
        let plain: Vec<Vec<Index>> = fold_factors.iter().map(|&l| factors[l].clone()).collect();
        let (fold_shapes, inputs, onto) = match term {
            RoleTerm::Linear => {
                let sums = [batch.as_slice(), &rows, &latent].concat();
                let inputs: Vec<_> = std::iter::once(sums).chain(plain).collect();
                (shapes.clone(), inputs, [own.as_slice(), &kept].concat())
            }
            RoleTerm::Pairs => {
                let (doubled, pairs) = shapes.doubled()?;
                let again: Vec<_> = plain.iter().map(|indices| renamed(indices, &pairs)).collect();
                let sums = [batch.as_slice(), &rows, &latent, &renamed(&latent, &pairs)].concat();
                let inputs: Vec<_> = std::iter::once(sums).chain(plain).chain(again).collect();
                (doubled, inputs, [own.as_slice(), &kept, &renamed(&kept, &pairs)].concat())
            }
        };
        let views: Vec<&[Index]> = inputs.iter().map(Vec::as_slice).collect();
        let fold = Contraction::new(&fold_shapes, &views, &onto);

        let pass = RolePass {
            term,
            batch,
            rows,
            columns,
            latent,
            column_factors,
            column_product,
            row_factors,
            row_product,
            fold_factors,
            fold,
            shapes: fold_shapes,
            cost: 0.0,
            bytes: 0.0,
            words: 0.0,
        };
        Some(pass.with_costs(shapes, listed as f64, element_bytes as f64))
    }

    /// The same with what it takes where rows list so many entries in all.
    fn with_costs(self, shapes: &Shapes, listed: f64, element_bytes: f64) -> RolePass {
        let size =
            |indices: &[Index]| -> f64 { indices.iter().map(|&x| shapes.size(x) as f64).product() };
        let (k, width) = (size(&self.latent), self.width(shapes));
        let lines = size(&self.batch) * size(&self.rows);
        let wide = size(&self.batch) * size(&self.columns);
        let blocks = lines * (size(&self.columns) / ROLE_BLOCK as f64).ceil();
        let units = (width * element_bytes / 64.0).ceil();
        let products = [&self.column_product, &self.row_product, &self.fold];
        let flops = products.iter().map(|product| product.flops()).sum();
        let peaks = products.iter().map(|product| product.peak()).sum::<f64>();
        let cost = cost::role_sums(listed, blocks, units)
            + cost::contraction(flops)
            + cost::tables((wide * 2.0 + lines * 4.0) * units * 64.0);
        let whole = match self.term {
            RoleTerm::Linear => lines * k,
            RoleTerm::Pairs => lines * k * k,
        };
        let bytes = listed
            + blocks * 8.0
            + wide * (8.0 * k + units * 64.0)
            + 8.0 * (lines * width + whole + peaks);
        let peak = products.iter().map(|product| product.peak()).fold(whole, f64::max);
        RolePass { cost, bytes, words: peak.max(wide * k), ..self }
    }

    /// The numbers of a sum: latent indices, or pairs of them.
    #[must_use]
    pub fn width(&self, shapes: &Shapes) -> f64 {
        let k: f64 = self.latent.iter().map(|&x| shapes.size(x) as f64).product();
        match self.term {
            RoleTerm::Linear => k,
            RoleTerm::Pairs => k * (k + 1.0) / 2.0,
        }
    }

    /// The indices of the group's sums, in order: its observed ones, the latent ones that it shares
    /// with other factors, and for pairs their second names.
    #[must_use]
    pub fn indices(&self) -> &[Index] {
        self.fold.output()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    fn shapes(text: &str, data: &[usize], ranks: &[(char, usize)]) -> Shapes {
        Shapes::new(&Model::parse(text).unwrap(), data, ranks).unwrap()
    }

    fn names(indices: &[Index]) -> String {
        indices.iter().map(|&x| char::from(x)).collect()
    }

    #[test]
    fn rows_of_a_short_mode_are_cut_further() {
        let shapes =
            shapes("wr,dr,hr,irk,jrk->wdhij", &[27, 7, 24, 100, 100], &[('r', 10), ('k', 6)]);
        let pass = |factors: &[usize]| {
            let group = Group { factors: factors.to_vec(), updates: Vec::new() };
            RolePass::new(&shapes, &group, RoleTerm::Linear, 6_000_000, 4).unwrap()
        };
        let front = pass(&[0, 1, 2]);
        assert_eq!((names(&front.rows), names(&front.columns)), ("wdh".into(), "ij".into()));
        assert_eq!((names(&front.latent), front.batch.len()), ("r".into(), 0));
        assert_eq!((front.column_factors, front.fold_factors.len()), (vec![3, 4], 0));
        // Seven rows of 6.5 million columns would be a product of that size.
        let one = pass(&[1]);
        assert_eq!((names(&one.rows), names(&one.columns)), ("wdh".into(), "ij".into()));
        assert_eq!(one.fold_factors, [0, 2]);
        assert_eq!(names(one.indices()), "dr");
    }

    #[test]
    fn what_rows_and_columns_share_is_a_batch() {
        let shapes = shapes("ijr,ikr->ijk", &[5, 6, 700], &[('r', 3)]);
        let group = Group { factors: vec![0], updates: Vec::new() };
        let pass = RolePass::new(&shapes, &group, RoleTerm::Pairs, 1000, 8).unwrap();
        assert_eq!((names(&pass.batch), names(&pass.rows)), ("i".into(), "j".into()));
        assert_eq!(names(&pass.columns), "k");
        assert_eq!(pass.indices().len(), 4);
    }
}
