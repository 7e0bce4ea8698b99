//! New data of the kind that a fit was made of, in the order of its labels.

use crate::saved::Saved;
use nneinfact_core::data::{LabelKind, Labels, Observations, printable};
use nneinfact_core::error::{Error, Result};

/// Labels that are named in a message, at most.
const NAMED: usize = 4;

impl Saved {
    /// Brings data to the labels that the fit has in some of its modes (letters of the data, as in `"hp"`), so
    /// that an index means there what it means in the fit. Labels may come in another order, and some of the
    /// fit's may lack: entries there are zeros of lists (nothing where
    /// [`unlisted_missing`](Observations::unlisted_missing) says so), and missing of all else. Data without
    /// labels are taken in the order of the fit, and get its labels. Returns the data, and what was done in a
    /// sentence each.
    ///
    /// ```
    /// use ndarray::array;
    /// use nneinfact::data::Labels;
    /// use nneinfact::fit::Saved;
    /// use nneinfact::{NNEinFact, Observations};
    ///
    /// let named = |labels: &[&str]| vec![Labels::new(labels.iter().copied()), Labels::default()];
    /// let y = Observations::new(&array![[4.0, 2.0], [2.0, 1.0]]).with_labels(named(&["a", "b"]))?;
    /// let model = || NNEinFact::new("ir,jr->ij").map(|all| all.ranks([('r', 1)]));
    /// let saved = Saved::new(&model()?.fit(&y)?);
    ///
    /// let new = Observations::new(&array![[3.0], [6.0]]).with_labels(named(&["b", "a"]))?;
    /// let (new, told) = saved.relabeled(new, "i")?;
    /// assert_eq!(new.value(&[0, 0]), Some(6.0));
    /// assert!(told[0].contains("another order"));
    /// let fit = model()?.transform(&saved, "j")?.fit(&new)?;
    /// assert!((fit.predict(&[0, 0])? - 6.0).abs() < 1e-3);
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Setting`] where the data have a label that the fit does not know, or other bins, or a label
    /// twice; [`Error::Memory`] where the data do not fit in memory with all labels.
    pub fn relabeled(
        &self,
        mut data: Observations,
        modes: &str,
    ) -> Result<(Observations, Vec<String>)> {
        let mut notes = Vec::new();
        for (mode, &index) in self.model().output().iter().enumerate() {
            let letter = char::from(index);
            let labels = self.labels(letter).filter(|labels| labels.indices().is_some());
            let (Some(known), true) = (labels, modes.contains(letter)) else { continue };
            // What is wrong with the number of modes is said where the data are fitted.
            let Some(&size) = data.shape().get(mode) else { continue };
            let own = data.labels().get(mode).cloned().unwrap_or_default();
            if own.indices().is_none() {
                data = unlabelled(data, mode, known, size)?;
                continue;
            }
            if own.indices() == known.indices() {
                continue;
            }
            refuse_unknown(letter, &own, known)?;
            notes.push(told(letter, &own, known, &data));
            data = data.relabeled(mode, known)?;
        }
        Ok((data, notes))
    }
}

/// Gives a mode without labels those of the fit, where there are as many.
fn unlabelled(
    data: Observations,
    mode: usize,
    known: &Labels,
    size: usize,
) -> Result<Observations> {
    if known.indices().map_or(0, <[String]>::len) != size {
        return Ok(data);
    }
    let mut all = data.labels().to_vec();
    all.resize(data.shape().len(), Labels::default());
    all[mode] = all[mode].or(known);
    data.with_labels(all)
}

fn refuse_unknown(letter: char, own: &Labels, known: &Labels) -> Result<()> {
    let (labels, of_fit) = (own.indices().unwrap_or(&[]), known.indices().unwrap_or(&[]));
    let Some(unknown) = labels.iter().find(|label| known.index_of(label).is_none()) else {
        return Ok(());
    };
    let named: Vec<String> = of_fit.iter().take(NAMED).map(|label| printable(label)).collect();
    let more = if of_fit.len() > NAMED { ", …" } else { "" };
    let bins = matches!(own.kind(), LabelKind::Bins { .. });
    let what = if bins { "the bin" } else { "the label" };
    Err(Error::Setting(format!(
        "{what} '{}' of {letter} is not one of those that the fit knows: {}{more}. Its factors say nothing about it: \
         leave such entries out, or fit again",
        printable(unknown),
        named.join(", ")
    )))
}

/// How the labels of the data differ from those of the fit, all of which the fit knows.
fn told(letter: char, own: &Labels, known: &Labels, data: &Observations) -> String {
    let all = known.indices().unwrap_or(&[]);
    let mut lacking = all.iter().filter(|label| own.index_of(label).is_none());
    let Some(first) = lacking.next() else {
        return format!(
            "the labels of {letter} are in another order than in the fit: taken label by label"
        );
    };
    let count = 1 + lacking.count();
    let zeros = data.coordinates().is_some() && !data.is_unlisted_missing();
    format!(
        "the data have {} of the {} labels of {letter} that the fit has: entries at the other {count}, '{}' for example, are {}",
        all.len() - count,
        all.len(),
        printable(first),
        if zeros { "zeros" } else { "missing" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::NNEinFact;
    use ndarray::array;
    use nneinfact_core::data::CooTensor;

    fn labels(all: &[&str]) -> Labels {
        Labels::new(all.iter().copied())
    }

    fn saved() -> Result<Saved> {
        let y = Observations::new(&array![[4.0, 2.0, 6.0], [2.0, 1.0, 3.0]])
            .with_labels(vec![labels(&["a", "b"]), labels(&["x", "y", "z"]).with_name("place")])?;
        let model = NNEinFact::new("ir,jr->ij")?.ranks([('r', 1)]);
        Ok(Saved::new(&model.fit(&y)?))
    }

    #[test]
    fn lists_get_zeros_and_arrays_gaps_where_labels_lack() -> Result<()> {
        let list = CooTensor::new(&[2, 2], &[vec![0, 1], vec![0, 1]], &[7.0, 8.0])?;
        let both = || vec![labels(&["b", "a"]), labels(&["z", "x"])];
        let (found, told) =
            saved()?.relabeled(Observations::new(list).with_labels(both())?, "j")?;
        assert_eq!(found.shape(), [2, 3]);
        // The first mode is not asked for, and stays.
        assert_eq!([found.value(&[0, 2]), found.value(&[1, 0])], [Some(7.0), Some(8.0)]);
        assert_eq!(found.labels()[1].indices(), labels(&["x", "y", "z"]).indices());
        assert!(told.len() == 1 && told[0].contains("2 of the 3") && told[0].contains("'y'"));
        assert!(told[0].ends_with("zeros"), "{told:?}");

        let dense = Observations::new(&array![[1.0, 2.0], [3.0, 4.0]]).with_labels(both())?;
        let (found, told) = saved()?.relabeled(dense, "ij")?;
        assert_eq!([found.value(&[0, 0]), found.value(&[1, 2])], [Some(4.0), Some(1.0)]);
        assert!(told[0].contains("another order") && told[1].ends_with("missing"), "{told:?}");
        let train = found.prepare()?.count(nneinfact_core::data::Role::Train);
        assert_eq!(train, 4);
        Ok(())
    }

    #[test]
    fn data_without_labels_get_those_of_the_fit_and_unknown_ones_are_refused() -> Result<()> {
        let plain = Observations::new(&array![[1.0, 2.0, 3.0]]);
        let (found, told) = saved()?.relabeled(plain, "j")?;
        assert_eq!(
            (found.labels()[1].get(2), found.labels()[1].name()),
            (Some("z"), Some("place"))
        );
        assert!(told.is_empty() && found.labels()[0].is_empty());
        let other = Observations::new(&array![[1.0, 2.0]])
            .with_labels(vec![Labels::default(), labels(&["x", "w"])])?;
        let error = saved()?.relabeled(other, "j").err().map(|e| e.to_string()).unwrap_or_default();
        for part in ["'w'", "of j", "x, y, z", "leave such entries out"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        Ok(())
    }
}
