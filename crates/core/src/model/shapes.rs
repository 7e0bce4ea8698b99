//! A model with the sizes of its indices.

use super::{Index, IndexSet, Model, ModelError};

/// A model together with the size of every index: the shape of the data and the ranks.
///
/// ```
/// use nneinfact::model::{Model, Shapes};
///
/// let model = Model::parse("ir,jr->ij")?;
/// let shapes = Shapes::new(&model, &[30, 20], &[('r', 4)])?;
/// assert_eq!(shapes.factor(1), [20, 4]);
/// assert_eq!(shapes.parameters(), 30 * 4 + 20 * 4);
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shapes {
    model: Model,
    sizes: [usize; 52],
}

impl Shapes {
    /// Checks the ranks and the shape of the data against the model.
    ///
    /// # Errors
    /// [`ModelError`] where the number of modes differs, a mode is empty, a rank is missing, zero,
    /// given twice with different values, or given for an index that does not take one.
    pub fn new(
        model: &Model,
        shape: &[usize],
        ranks: &[(char, usize)],
    ) -> Result<Shapes, ModelError> {
        let text = || model.text().to_string();
        if shape.len() != model.output().len() {
            return Err(ModelError::Modes {
                text: text(),
                at: model.output_at(),
                found: shape.len(),
                shape: shape.to_vec(),
            });
        }
        let mut sizes = [0usize; 52];
        for (mode, (&index, &size)) in model.output().iter().zip(shape).enumerate() {
            if size == 0 {
                let at = model.output_at();
                return Err(ModelError::ModeEmpty {
                    text: text(),
                    at,
                    mode: mode + 1,
                    index: index.into(),
                });
            }
            sizes[index.index()] = size;
        }
        let (latent, observed) = (model.latent(), model.observed());
        for &(name, rank) in ranks {
            let index = Index::new(name)
                .filter(|&l| latent.contains(l) || observed.contains(l))
                .ok_or_else(|| ModelError::RankForUnknown {
                    text: text(),
                    index: name,
                    latent: latent.iter().map(char::from).collect(),
                })?;
            let at = model.position(index);
            if observed.contains(index) {
                return Err(ModelError::RankForObserved { text: text(), at, index: name });
            }
            if rank == 0 {
                return Err(ModelError::RankZero { text: text(), at, index: name });
            }
            let known = sizes[index.index()];
            if known != 0 && known != rank {
                return Err(ModelError::RankTwice { index: name, first: known, second: rank });
            }
            sizes[index.index()] = rank;
        }
        if let Some(index) = latent.iter().find(|l| sizes[l.index()] == 0) {
            return Err(ModelError::RankMissing {
                text: text(),
                at: model.position(index),
                index: index.into(),
            });
        }
        let shapes = Shapes { model: model.clone(), sizes };
        let too_large = |what: String| ModelError::TooLarge { what };
        for l in 0..model.factors().len() {
            shapes
                .checked_size(&model.factors()[l])
                .ok_or_else(|| too_large(format!("factor {} ({})", l + 1, model.factor_name(l))))?;
        }
        shapes.checked_size(model.output()).ok_or_else(|| too_large("the data".into()))?;
        Ok(shapes)
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The size of an index; 0 where the model does not have it.
    #[must_use]
    pub fn size(&self, index: Index) -> usize {
        self.sizes[index.index()]
    }

    /// The sizes of some indices, in their order.
    #[must_use]
    pub fn sizes(&self, indices: &[Index]) -> Vec<usize> {
        indices.iter().map(|&l| self.size(l)).collect()
    }

    /// The shape of factor `l` (counted from 0).
    #[must_use]
    pub fn factor(&self, l: usize) -> Vec<usize> {
        self.model.factors().get(l).map_or_else(Vec::new, |f| self.sizes(f))
    }

    /// The shape of the data.
    #[must_use]
    pub fn data(&self) -> Vec<usize> {
        self.sizes(self.model.output())
    }

    /// The number of entries of a tensor over these indices, as a float: products of many sizes
    /// overflow integers, and the planner compares plans that nobody could run.
    #[must_use]
    pub fn volume(&self, indices: IndexSet) -> f64 {
        indices.iter().map(|l| self.size(l) as f64).product()
    }

    /// The number of entries of all factors together; where that is no `u64`, the largest one.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let entries = |l| self.factor(l).iter().fold(1u64, |all, &n| all.saturating_mul(n as u64));
        (0..self.model.factors().len()).map(entries).fold(0, u64::saturating_add)
    }

    /// The union of several models: all their factors, those of the same indices being one, over
    /// all their indices. With each model's factors among those of the union.
    ///
    /// # Errors
    /// [`ModelError::SizesDiffer`] where an index has different sizes.
    pub fn union(parts: &[Shapes]) -> Result<(Shapes, Vec<Vec<usize>>), ModelError> {
        let mut names: Vec<String> = Vec::new();
        let mut places = Vec::new();
        let mut sizes = [0usize; 52];
        let mut observed = IndexSet::EMPTY;
        for shapes in parts {
            let model = &shapes.model;
            observed = observed | model.observed();
            for index in (model.observed() | model.latent()).iter() {
                let (known, size) = (&mut sizes[index.index()], shapes.size(index));
                if *known != 0 && *known != size {
                    return Err(ModelError::SizesDiffer {
                        index: index.into(),
                        first: *known,
                        second: size,
                    });
                }
                *known = size;
            }
            let mut own: Vec<usize> = Vec::new();
            for l in 0..model.factors().len() {
                let name = model.factor_name(l);
                // The second factor of the same indices in a model is the second one everywhere.
                let same = |&i: &usize| names[i] == name && !own.contains(&i);
                let place = (0..names.len()).find(same).unwrap_or_else(|| {
                    names.push(name.clone());
                    names.len() - 1
                });
                own.push(place);
            }
            places.push(own);
        }
        let output: String = observed.iter().map(char::from).collect();
        let model = Model::parse(&format!("{}->{output}", names.join(",")))?;
        Ok((Shapes { model, sizes }, places))
    }

    /// These sizes with a second index of the same size for every latent index, as products of
    /// the model with itself need; `None` where the alphabet has no indices left for that.
    pub fn doubled(&self) -> Option<(Shapes, Vec<(Index, Index)>)> {
        let taken = self.model.latent() | self.model.observed();
        let mut all = ('A'..='Z').chain('a'..='z').filter_map(Index::new);
        let mut shapes = self.clone();
        let mut pairs = Vec::new();
        for index in self.model.latent().iter() {
            let spare = all.find(|&x| !taken.contains(x))?;
            shapes.sizes[spare.index()] = self.size(index);
            pairs.push((index, spare));
        }
        Some((shapes, pairs))
    }

    /// These sizes, and those of indices that the model does not have, as products of several models
    /// need. The model's own indices keep theirs.
    #[must_use]
    pub fn extended(&self, others: impl IntoIterator<Item = (Index, usize)>) -> Shapes {
        let own = self.model.latent() | self.model.observed();
        let mut shapes = self.clone();
        for (index, size) in others.into_iter().filter(|(index, _)| !own.contains(*index)) {
            shapes.sizes[index.index()] = size;
        }
        shapes
    }

    fn checked_size(&self, indices: &[Index]) -> Option<usize> {
        indices
            .iter()
            .try_fold(1usize, |total, &l| total.checked_mul(self.size(l)))
            .filter(|&total| total <= usize::MAX / 2)
    }
}
