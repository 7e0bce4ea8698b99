//! Grids of ranks, and ranks that give a model a number of parameters.

use std::collections::BTreeMap;

use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::{Index, Model};

/// The ranks that a latent index takes in a study.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RankGrid {
    pub letter: char,
    pub ranks: Vec<usize>,
    /// Whether [`matched`] leaves them as they are.
    pub fixed: bool,
}

/// Every combination of the ranks of all indices, the last index running fastest.
pub(super) fn combinations(grids: &[RankGrid]) -> Vec<Vec<(char, usize)>> {
    let mut all: Vec<Vec<(char, usize)>> = vec![Vec::new()];
    for grid in grids {
        all = all
            .iter()
            .flat_map(|some| {
                grid.ranks.iter().map(|&rank| {
                    let mut more = some.clone();
                    more.push((grid.letter, rank));
                    more
                })
            })
            .collect();
    }
    all
}

/// The ranks whose number of parameters is closest to a wanted one; the smaller of two that are
/// equally close. The given ranks are proportions, but for those that are fixed: all others are
/// multiplied with the same number and rounded, to at least 1.
pub(super) fn matched(
    model: &Model,
    shape: &[usize],
    ranks: &[(char, usize)],
    fixed: &[char],
    wanted: u64,
) -> Result<Vec<(char, usize)>> {
    let free = ranks.iter().filter(|(letter, _)| !fixed.contains(letter)).count();
    if free == 0 {
        return Ok(ranks.to_vec());
    }
    let at = |scale: f64| -> Vec<(char, usize)> {
        let scaled = |&(letter, rank): &(char, usize)| match fixed.contains(&letter) {
            true => (letter, rank),
            // The cast saturates, and counts of parameters are floats.
            false => (letter, (scale * rank as f64).round().max(1.0) as usize),
        };
        ranks.iter().map(scaled).collect()
    };
    let count = |ranks: &[(char, usize)]| parameters(model, shape, ranks);
    let wanted_f = wanted as f64;
    let (mut low, mut high) = (0.0, 1.0);
    if count(&at(low)) > wanted_f {
        return Err(Error::Setting(format!(
            "no ranks of {model} give about {wanted} parameters: with ranks of 1{} it has {} already",
            if fixed.is_empty() { "" } else { " beside those that are fixed" },
            count(&at(low))
        )));
    }
    while count(&at(high)) < wanted_f {
        // Every free index is in a factor, so this ends.
        high *= 2.0;
    }
    // Parameters never fall as the scale rises: the jump over the wanted number lies in between.
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        match count(&at(middle)) <= wanted_f {
            true => low = middle,
            false => high = middle,
        }
    }
    let (below, above) = (at(low), at(high));
    let (short, over) = (wanted_f - count(&below), count(&above) - wanted_f);
    Ok(if short.abs() <= over.abs() { below } else { above })
}

/// Ranks as in `k=6,r=10`.
pub(super) fn ranks_text(ranks: &BTreeMap<char, usize>) -> String {
    let each: Vec<String> = ranks.iter().map(|(letter, rank)| format!("{letter}={rank}")).collect();
    if each.is_empty() { "-".into() } else { each.join(",") }
}

/// The number of parameters, as a float: on the way to the wanted number it may be beyond any
/// integer.
fn parameters(model: &Model, shape: &[usize], ranks: &[(char, usize)]) -> f64 {
    let size = |index: Index| -> f64 {
        let name = char::from(index);
        let mode = model.output().iter().position(|&x| x == index).and_then(|m| shape.get(m));
        let rank = ranks.iter().find(|(x, _)| *x == name).map(|(_, rank)| rank);
        mode.or(rank).map_or(1.0, |&n| n as f64)
    };
    model.factors().iter().map(|f| f.iter().map(|&x| size(x)).product::<f64>()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UBER: [usize; 5] = [27, 24, 7, 100, 100];

    fn ranks(model: &str, given: &[(char, usize)], fixed: &[char]) -> Vec<(char, usize)> {
        matched(&Model::parse(model).unwrap(), &UBER, given, fixed, 50_000).unwrap()
    }

    fn count(model: &str, ranks: &[(char, usize)]) -> f64 {
        parameters(&Model::parse(model).unwrap(), &UBER, ranks)
    }

    #[test]
    fn all_combinations_are_there() {
        let grid =
            |letter, ranks: &[usize]| RankGrid { letter, ranks: ranks.to_vec(), fixed: false };
        let all = combinations(&[grid('r', &[5, 10, 20]), grid('k', &[6, 7])]);
        assert_eq!(all.len(), 6);
        assert_eq!(all[0], [('r', 5), ('k', 6)]);
        assert_eq!(all[1], [('r', 5), ('k', 7)]);
        assert_eq!(all[5], [('r', 20), ('k', 7)]);
        assert_eq!(combinations(&[]), [[]]);
    }

    #[test]
    fn one_index_gives_the_closest_number() {
        let cp = "wr,hr,dr,ir,jr->whdij";
        // 27 + 24 + 7 + 100 + 100 = 258 parameters a component; 50,000 / 258 is 193.8.
        assert_eq!(ranks(cp, &[('r', 1)], &[]), [('r', 194)]);
        assert_eq!(ranks(cp, &[('r', 500)], &[]), [('r', 194)]);
        assert_eq!(count(cp, &[('r', 194)]), 50_052.0);
    }

    #[test]
    fn fixed_indices_stay() {
        let custom = "wr,hr,dr,ikr,jkr->whdij";
        assert_eq!(ranks(custom, &[('r', 1), ('k', 6)], &['k']), [('r', 40), ('k', 6)]);
        assert_eq!(count(custom, &[('r', 40), ('k', 6)]), 50_320.0);
        assert_eq!(ranks(custom, &[('r', 3), ('k', 6)], &['k', 'r']), [('r', 3), ('k', 6)]);
    }

    #[test]
    fn several_indices_keep_their_proportions() {
        let tucker = "wa,hb,dc,ie,jf,abcef->whdij";
        let given = [('a', 2), ('b', 2), ('c', 1), ('e', 4), ('f', 4)];
        let found = ranks(tucker, &given, &[]);
        // No other scale comes closer.
        let near = (count(tucker, &found) - 50_000.0).abs();
        for n in 1..40_000 {
            let scale = f64::from(n) / 4000.0;
            let other: Vec<_> = given
                .iter()
                .map(|&(x, r)| (x, (scale * r as f64).round().max(1.0) as usize))
                .collect();
            assert!((count(tucker, &other) - 50_000.0).abs() >= near, "{found:?} {other:?}");
        }
        assert!(found[3].1 == found[4].1 && found[3].1 > found[0].1 && found[0].1 > found[2].1);
    }

    #[test]
    fn what_cannot_be_reached_is_refused() {
        let model = Model::parse("wr,hr,dr,ikr,jkr->whdij").unwrap();
        let error = matched(&model, &UBER, &[('r', 1), ('k', 500)], &['k'], 1000).unwrap_err();
        assert!(error.to_string().contains("1000 parameters"), "{error}");
        // Nothing to choose.
        let model = Model::parse("w,h,d,i,j->whdij").unwrap();
        assert_eq!(matched(&model, &UBER, &[], &[], 1000).unwrap(), []);
    }
}
