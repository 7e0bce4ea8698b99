//! Smooth modes: a penalty on differences between neighbours.

use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{DifferencedAxis, Differences};
use nneinfact_core::model::Shapes;

/// A penalty μ Σ w (θ_i − θ_j)² on differences between neighbours along a mode of a factor: of all
/// pairs of neighbours, at every value of the factor's other indices, w being 1 unless they are those of
/// a [graph](Smooth::graph).
///
/// As other penalties it adds to the sum of the losses. It costs less the smaller the factor is: what
/// keeps that factor's scale from going over to others is a penalty on them, or
/// [rows that add up to 1](crate::NNEinFact::simplex).
///
/// ```
/// use ndarray::Array2;
/// use nneinfact::fit::Smooth;
/// use nneinfact::{NNEinFact, loss::Penalty};
///
/// let y = Array2::from_shape_fn((24, 10), |(h, i)| 1.0 + ((h * 7 + i * 3) % 5) as f64);
/// let fit = NNEinFact::new("hr,ir->hi")?
///     .ranks([('r', 2)])
///     .smooth("hr", Smooth::circle(0.5))
///     .penalty("ir", Penalty::l2(0.1))
///     .fit(&y)?;
/// // Its penalty is in the history.
/// assert!(fit.history().penalty.last().is_some_and(|&penalty| penalty > 0.0));
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Smooth {
    weight: f64,
    along: Option<String>,
    neighbours: Neighbours,
}

#[derive(Clone, Debug, PartialEq)]
enum Neighbours {
    Line,
    Circle,
    Graph(Vec<(usize, usize, f64)>),
}

impl Smooth {
    /// Between every index and the next one.
    #[must_use]
    pub fn line(weight: f64) -> Smooth {
        Smooth { weight, along: None, neighbours: Neighbours::Line }
    }

    /// As a line, and the last index is a neighbour of the first: hours of a day, days of a week.
    #[must_use]
    pub fn circle(weight: f64) -> Smooth {
        Smooth { weight, along: None, neighbours: Neighbours::Circle }
    }

    /// Between the two indices (from 0) of every edge, with the edge's own weight w ≥ 0: regions with a
    /// border, stations of a line.
    #[must_use]
    pub fn graph(weight: f64, edges: impl IntoIterator<Item = (usize, usize, f64)>) -> Smooth {
        Smooth { weight, along: None, neighbours: Neighbours::Graph(edges.into_iter().collect()) }
    }

    /// Along these of its indices. Default: along all that are modes of the data.
    #[must_use]
    pub fn along(self, letters: &str) -> Smooth {
        Smooth { along: Some(letters.into()), ..self }
    }

    /// μ.
    #[must_use]
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// As it is written on the command line, for a factor.
    pub(crate) fn describe(&self, factor: &str) -> String {
        let along = self.along.as_ref().map(|letters| format!(":{letters}")).unwrap_or_default();
        let kind = match &self.neighbours {
            Neighbours::Line => String::new(),
            Neighbours::Circle => ",cyclic".into(),
            Neighbours::Graph(edges) => format!(",graph of {} edges", edges.len()),
        };
        format!("{factor}{along}={}{kind}", self.weight)
    }

    fn edges(&self, size: usize, what: &str) -> Result<Vec<(usize, usize, f64)>> {
        let line = (1..size).map(|i| (i - 1, i, self.weight));
        match &self.neighbours {
            Neighbours::Line => Ok(line.collect()),
            Neighbours::Circle => {
                Ok(line.chain((size > 2).then(|| (size - 1, 0, self.weight))).collect())
            }
            Neighbours::Graph(edges) => {
                let one = |&(i, j, w): &(usize, usize, f64)| {
                    if i >= size || j >= size {
                        return Err(Error::Setting(format!(
                            "{what}: the edge from {i} to {j} leaves the {size} indices, which count from 0"
                        )));
                    }
                    if !(w >= 0.0 && w.is_finite()) {
                        return Err(Error::Setting(format!(
                            "{what}: the weight of the edge from {i} to {j} must be a finite number of at least 0, not {w}"
                        )));
                    }
                    Ok((i, j, w * self.weight))
                };
                let edges: Result<Vec<_>> = edges.iter().map(one).collect();
                Ok(edges?.into_iter().filter(|&(i, j, w)| i != j && w > 0.0).collect())
            }
        }
    }
}

/// The pairs of neighbours of a factor's entries, and what their differences cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Roughness {
    /// Of each axis with neighbours.
    letters: Vec<char>,
    differences: Differences,
}

impl Roughness {
    /// What was asked for of factor `l`; adds to what there is.
    pub fn add(&mut self, shapes: &Shapes, l: usize, smooth: &Smooth) -> Result<()> {
        let model = shapes.model();
        let name = model.factor_name(l);
        let what = format!("the smoothness of factor {} ({name})", l + 1);
        let refuse = |message: String| Err(Error::Setting(format!("{what}: {message}")));
        if !(smooth.weight >= 0.0 && smooth.weight.is_finite()) {
            return refuse(format!(
                "its weight must be a finite number of at least 0, not {}",
                smooth.weight
            ));
        }
        let modes = || -> String {
            let all = model.factors()[l].iter();
            all.filter(|&&x| model.output().contains(&x)).map(|&x| char::from(x)).collect()
        };
        let letters = smooth.along.clone().unwrap_or_else(modes);
        if letters.is_empty() {
            return refuse(format!(
                "it has no mode of the data: say along which letter, as in {name}:{}",
                name.chars().next().unwrap_or('i')
            ));
        }
        if matches!(smooth.neighbours, Neighbours::Graph(_)) && letters.chars().count() > 1 {
            return refuse(format!("a graph is along one letter, not along {letters}: say which"));
        }
        let sizes = shapes.factor(l);
        for letter in letters.chars() {
            let Some(axis) = name.chars().position(|x| x == letter) else {
                return refuse(format!("{letter} is not one of its letters {name}"));
            };
            if self.letters.contains(&letter) {
                return refuse(format!("it is given twice along {letter}"));
            }
            let size = sizes[axis];
            self.letters.push(letter);
            self.differences.push(DifferencedAxis {
                axis,
                size,
                stride: sizes[axis + 1..].iter().product(),
                edges: smooth.edges(size, &what)?,
            });
        }
        Ok(())
    }

    /// Whether nothing costs anything.
    pub fn is_empty(&self) -> bool {
        self.differences.is_empty()
    }

    /// The same where the objective is divided by this.
    pub fn rescaled(self, scale: f64) -> Roughness {
        Roughness { differences: self.differences.rescaled(1.0, scale), ..self }
    }

    /// What differences cost.
    pub fn differences(&self) -> &Differences {
        &self.differences
    }

    /// In words, for a record.
    pub fn describe(&self) -> String {
        let one = |(letter, axis): (&char, &DifferencedAxis)| {
            let edges: Vec<String> =
                axis.edges.iter().map(|(i, j, w)| format!("{i}-{j}:{w}")).collect();
            format!(", smooth along {letter} ({})", edges.join(" "))
        };
        self.letters.iter().zip(self.differences.axes()).map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nneinfact_core::model::Model;

    fn roughness(model: &str, data: &[usize], l: usize, smooth: &Smooth) -> Result<Differences> {
        let model = Model::parse(model)?;
        let ranks = model.latent().iter().map(|x| (char::from(x), 2)).collect::<Vec<_>>();
        let shapes = Shapes::new(&model, data, &ranks)?;
        let mut roughness = Roughness::default();
        roughness.add(&shapes, l, smooth)?;
        Ok(roughness.differences)
    }

    #[test]
    fn values_are_sums_of_squared_differences() -> Result<()> {
        let theta = [1.0, 2.0, 4.0, 0.0, 3.0, 5.0];
        let of = |smooth: Smooth| roughness("hr,ir->hi", &[3, 4], 0, &smooth);
        let line = 9.0 + 4.0 + 1.0 + 25.0;
        assert_eq!(of(Smooth::line(0.5))?.value(&theta), 0.5 * line);
        assert_eq!(of(Smooth::circle(1.0))?.value(&theta), line + 4.0 + 9.0);
        assert_eq!(of(Smooth::line(1.0).along("r"))?.value(&theta), 1.0 + 16.0 + 4.0);
        let graph = Smooth::graph(2.0, [(0, 2, 3.0), (1, 1, 1.0)]);
        assert_eq!(of(graph)?.value(&theta), 6.0 * (4.0 + 9.0));
        // Two indices are neighbours once.
        let two = roughness("hr,ir->hi", &[2, 4], 0, &Smooth::circle(1.0))?;
        assert_eq!(two.value(&[1.0, 0.0, 3.0, 0.0]), 4.0);
        Ok(())
    }

    #[test]
    fn what_cannot_be_smooth_is_refused() {
        let of = |l, smooth: Smooth| match roughness("hs,is,sr,jr->hij", &[3, 4, 5], l, &smooth) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{smooth:?} is taken"),
        };
        assert!(of(2, Smooth::line(1.0)).contains("no mode of the data"));
        assert!(of(0, Smooth::line(1.0).along("i")).contains("not one of its letters hs"));
        assert!(of(0, Smooth::line(-1.0)).contains("at least 0"));
        assert!(of(0, Smooth::graph(1.0, [(0, 3, 1.0)])).contains("leaves the 3 indices"));
        assert!(of(0, Smooth::graph(1.0, [(0, 2, f64::NAN)])).contains("weight of the edge"));
        assert!(of(0, Smooth::graph(1.0, []).along("hs")).contains("along one letter"));
        assert!(of(0, Smooth::line(1.0).along("hh")).contains("twice"));
    }
}
