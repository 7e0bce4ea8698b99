//! What the parts of a coupled fit have in common: sizes, groups, constraints.

use super::part::Part;
use crate::constraints::{Constraints, void};
use crate::monitor::Portions;
use crate::prepare;
use crate::settings::Settings;
use nneinfact_core::data::{Prepared, Role};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::{Balancing, DataInfo, Grouping, Plan, PlanSettings, opposites};

/// A part whose data are ready.
pub(super) struct Ready {
    pub settings: Settings,
    pub shapes: Shapes,
    pub data: Prepared,
    pub weight: f64,
}

/// Prepares the data of all parts.
pub(super) fn ready(settings: &Settings, parts: Vec<Part>) -> Result<(Vec<Ready>, Portions)> {
    let ranks = ranks(&settings.ranks, &parts)?;
    let mut ready = Vec::new();
    let mut portions = Portions::default();
    for part in parts {
        let Part { model, observations, loss, weight } = part;
        let latent = model.latent();
        let own =
            ranks.iter().filter(|(letter, _)| latent.iter().any(|x| char::from(x) == *letter));
        let ranks = own.copied().collect();
        let settings = Settings { ranks, loss, ..settings.alike(model) };
        let (shapes, data) = prepare::prepared(&settings, (&observations).into())?;
        // Of several tensors the scale of the weights of one is not free.
        let weight = weight * data.weight_unit();
        portions.add(&data, weight);
        portions.add_offsets(&settings.loss, &data, weight);
        ready.push(Ready { settings, shapes, data, weight });
    }
    portions.check(settings)?;
    Ok((ready, portions))
}

/// The rescaling that leaves every part's ŷ as it is.
pub(super) fn balancing(
    shapes: &Shapes,
    places: &[Vec<usize>],
    constraints: &Constraints,
) -> Option<Balancing> {
    let rescaled = constraints.balancing.as_ref()?.factors();
    Some(Balancing::coupled(shapes.model(), &rescaled, places)).filter(|b| !b.is_empty())
}

/// A warning where penalised factors can shrink while factors without a penalty grow, every ŷ staying
/// as it is.
pub(super) fn falling_away(
    shapes: &Shapes,
    places: &[Vec<usize>],
    constraints: &Constraints,
) -> Option<String> {
    // Factors in the same parts for which the same holds are of one kind.
    let about = |l: usize| -> (Vec<bool>, bool, bool) {
        let holders = places.iter().map(|own| own.contains(&l)).collect();
        (holders, constraints.can_vanish(l), constraints.is_loose(l))
    };
    let mut kinds: Vec<Vec<usize>> = Vec::new();
    for l in (0..constraints.each.len())
        .filter(|&l| constraints.can_vanish(l) || constraints.is_loose(l))
    {
        match kinds.iter_mut().find(|kind| about(kind[0]) == about(l)) {
            Some(kind) => kind.push(l),
            None => kinds.push(vec![l]),
        }
    }
    let sets: Vec<Vec<usize>> = places
        .iter()
        .map(|own| (0..kinds.len()).filter(|&k| own.contains(&kinds[k][0])).collect())
        .collect();
    let all = opposites(kinds.len(), &sets);
    for signs in all.iter().flat_map(|signs| [1, -1].map(|by| signs.iter().map(move |s| s * by))) {
        let moved: Vec<(usize, i8)> =
            signs.enumerate().filter(|(_, s)| *s != 0).map(|(k, s)| (kinds[k][0], s)).collect();
        let fine = |&(l, sign): &(usize, i8)| match sign {
            1 => constraints.is_loose(l),
            // A factor without a penalty may make up for what others get.
            _ => constraints.can_vanish(l) || constraints.each[l].lower == 0.0,
        };
        let pick = |which: &dyn Fn(usize, i8) -> bool| -> Vec<usize> {
            let picked = kinds
                .iter()
                .filter(|kind| moved.iter().any(|&(l, sign)| l == kind[0] && which(l, sign)));
            picked.flatten().copied().collect()
        };
        let falling = pick(&|l, sign| sign < 0 && constraints.can_vanish(l));
        if moved.iter().all(fine) && !falling.is_empty() {
            return Some(void(shapes, &falling, &pick(&|_, sign| sign > 0)));
        }
    }
    None
}

/// The ranks for all parts: those that were given, and of letters that are latent in one part and
/// observed in another what the data say.
fn ranks(given: &[(char, usize)], parts: &[Part]) -> Result<Vec<(char, usize)>> {
    let observed = parts.iter().flat_map(|part| {
        let letters = part.model.output().iter().map(|&x| char::from(x));
        letters.zip(part.observations.shape().iter().copied())
    });
    let mut ranks: Vec<(char, usize)> = observed.collect();
    for &(letter, rank) in given {
        let latent = |part: &Part| part.model.latent().iter().any(|x| char::from(x) == letter);
        if !parts.iter().any(latent) {
            return Err(Error::Setting(format!(
                "a rank was given for the index {letter}, which is not a latent index of any of the models"
            )));
        }
        ranks.push((letter, rank));
    }
    Ok(ranks)
}

/// The groups of all factors: those of the part with the most to do, then what they leave of the groups
/// of the others.
pub(super) fn groups(
    ready: &[Ready],
    places: &[Vec<usize>],
    constraints: &Constraints,
) -> Result<Vec<Vec<usize>>> {
    let mut order: Vec<usize> = (0..ready.len()).collect();
    order.sort_by_key(|&t| std::cmp::Reverse(ready[t].data.count(Role::Train)));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for t in order {
        let Ready { settings, shapes, data, .. } = &ready[t];
        let info = DataInfo::c_order(shapes, data.coo().map_or(4, |_| 0));
        let mut wanted = settings.grouping();
        if shapes.model().factors().len() == 1 {
            wanted = Grouping::Block;
        }
        let planner = PlanSettings { grouping: wanted, ..Default::default() };
        let plan = Plan::new(shapes, &info, &planner)?;
        let structure = &constraints.structure;
        for group in plan.groups() {
            let all = group.factors.iter().map(|&m| structure.ties[places[t][m]]);
            let mut left: Vec<usize> = all
                .filter(|l| !constraints.each[*l].fixed && !groups.iter().flatten().any(|m| m == l))
                .collect();
            left.sort_unstable();
            left.dedup();
            // A factor with several places is a group of its own.
            let (tied, left): (Vec<usize>, Vec<usize>) =
                left.into_iter().partition(|&l| structure.places(l) > 1);
            groups.extend(tied.into_iter().map(|l| vec![l]));
            if !left.is_empty() {
                groups.push(left);
            }
        }
    }
    Ok(groups)
}
