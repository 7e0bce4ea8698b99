//! Fits to several tensors that share factors.

use std::sync::Arc;
use std::time::Instant;

use ndarray::ArrayD;

use super::builder::{Algorithm, NNEinFact, Source, Start};
use super::history::History;
use super::rules::{Balance, Rules, mean, vanished, void};
use super::scale::Term;
use super::watch::{Portions, Watch};
use super::{Fit, form, open, scale, solve, start};
use crate::data::{Observations, Prepared, Role};
use crate::engine::coupled::{CoupledEngine, Joint, Member, unsaved};
use crate::engine::{Device, Engine, Job, Sums};
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::model::{Model, Shapes};
use crate::plan::{Balancing, Plan, opposites};

/// One of the tensors of a coupled fit: a model, data, a loss, and how much it counts.
#[derive(Debug)]
pub struct Part {
    model: Model,
    observations: Observations,
    loss: Loss,
    weight: f64,
}

impl Part {
    /// A tensor (an array, coordinates or observations) and its model. A factor with the same letters as
    /// one of another part is the same factor, and a letter is the same index everywhere.
    ///
    /// # Errors
    /// Where the string is not a model, or the data cannot be used.
    pub fn new(model: &str, data: impl Source) -> Result<Part> {
        Ok(Part {
            model: Model::parse(model)?,
            observations: data.observations()?.into_owned(),
            loss: Loss::kl(),
            weight: 1.0,
        })
    }

    /// The loss. Default: [`Loss::kl`].
    #[must_use]
    pub fn loss(mut self, loss: Loss) -> Part {
        self.loss = loss;
        self
    }

    /// What the sum of this part's losses is multiplied with, a number above 0. Default: 1.
    #[must_use]
    pub fn weight(mut self, weight: f64) -> Part {
        self.weight = weight;
        self
    }
}

/// A fit to several tensors that share factors: it minimises `Σ_t weight_t Σ W_t ℓ_t(Y_t, ŷ_t)` and the
/// penalties, and like that of one tensor this never rises.
///
/// The parts may have different losses, shapes, masks and forms of data. A sweep updates groups of
/// factors from a pass over every tensor that has one of them; what the tensors say about a factor that
/// they share adds up.
///
/// ```
/// use ndarray::Array2;
/// use nneinfact::fit::{Coupled, Part};
/// use nneinfact::{Loss, Observations};
///
/// // Ratings of a few items only, and what is known of all people.
/// let ratings = Array2::from_shape_fn((12, 8), |(i, j)| ((i % 3 + 1) * (j + 1)) as f64);
/// let seen = Array2::from_shape_fn((12, 8), |(i, j)| (5 * i + j) % 4 == 0);
/// let traits = Array2::from_shape_fn((12, 5), |(i, k)| ((i % 3 + 1) * (k + 2)) as f64);
///
/// let ratings = Observations::new(&ratings).mask(&seen)?;
/// let fit = Coupled::new([
///     Part::new("ir,jr->ij", &ratings)?,
///     Part::new("ir,kr->ik", &traits)?.loss(Loss::euclidean()).weight(0.5),
/// ])
/// .settings(|all| all.ranks([('r', 2)]).seed(3))
/// .fit()?;
///
/// assert_eq!(fit.factor("ir")?.shape(), [12, 2]);
/// let predicted = fit.parts()[0].predict(&[1, 1])?;
/// assert!((predicted - 4.0).abs() < 1.0);
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[must_use]
pub struct Coupled {
    parts: Vec<Part>,
    configure: Vec<Configure>,
}

/// Settings that are made once the union of the models is known.
type Configure = Box<dyn FnOnce(NNEinFact) -> NNEinFact + Send>;

impl Coupled {
    /// A fit to these tensors.
    pub fn new(parts: impl IntoIterator<Item = Part>) -> Coupled {
        Coupled { parts: parts.into_iter().collect(), configure: Vec::new() }
    }

    /// Settings of the fit: ranks (of the letters that are latent in every part), penalties, bounds and
    /// fixed factors, algorithm, device, precision, seed, stopping, observers. Those of data and loss are
    /// the parts' own.
    pub fn settings(
        mut self,
        set: impl FnOnce(NNEinFact) -> NNEinFact + Send + 'static,
    ) -> Coupled {
        self.configure.push(Box::new(set));
        self
    }

    /// Fits.
    ///
    /// # Errors
    /// As [`NNEinFact::fit`], of any of the parts; and where a letter has different sizes in two parts.
    pub fn fit(self) -> Result<CoupledFit> {
        let Coupled { parts, configure } = self;
        if parts.is_empty() {
            return Err(Error::Setting("a coupled fit needs at least one tensor".into()));
        }
        for (t, part) in parts.iter().enumerate() {
            if !(part.weight > 0.0 && part.weight.is_finite()) {
                return Err(Error::Setting(format!(
                    "the weight of tensor {} must be a finite number above 0, not {}",
                    t + 1,
                    part.weight
                )));
            }
        }
        // The ranks are among the settings, which need a model.
        let mut settings = NNEinFact::of(parts[0].model.clone());
        for set in configure {
            settings = set(settings);
        }
        let device = match settings.device.take() {
            Some(device) => device,
            None => Device::auto()?,
        };
        settings.device = Some(device.clone());
        device.clone().install(move || run(settings, parts, &device))
    }
}

impl std::fmt::Debug for Coupled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coupled").field("parts", &self.parts).finish_non_exhaustive()
    }
}

/// What a coupled fit returns.
#[derive(Clone, Debug)]
pub struct CoupledFit {
    model: Model,
    factors: Vec<ArrayD<f64>>,
    history: History,
    parts: Vec<Fit>,
    warnings: Vec<String>,
}

impl CoupledFit {
    /// All factors, those of the first part first, each once.
    #[must_use]
    pub fn factors(&self) -> &[ArrayD<f64>] {
        &self.factors
    }

    /// The factor of these letters.
    ///
    /// # Errors
    /// Where there is none, or there are several.
    pub fn factor(&self, name: &str) -> Result<&ArrayD<f64>> {
        Ok(&self.factors[self.model.factor_named(name)?])
    }

    /// What is probably not meant, a sentence each, and what turned out while fitting.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The losses of all parts together, each with its weight, divided by the sum of the weights of all
    /// observed cells (times those of the parts).
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The fits to the single tensors: factors, predictions, and a history of one element, their own
    /// losses at the end.
    #[must_use]
    pub fn parts(&self) -> &[Fit] {
        &self.parts
    }
}

/// A part whose data are ready.
struct Ready {
    settings: NNEinFact,
    shapes: Shapes,
    data: Prepared,
    weight: f64,
}

fn run(mut settings: NNEinFact, parts: Vec<Part>, device: &Device) -> Result<CoupledFit> {
    let started = Instant::now();
    settings.check()?;
    if settings.algorithm == Algorithm::Adam {
        return Err(Error::Unsupported(
            "several tensors are fitted by block, grouped or accelerated sweeps, not by adam"
                .into(),
        ));
    }
    if settings.checkpoint.is_some() || settings.resume.is_some() {
        return Err(unsaved());
    }
    if settings.starts > 1 {
        return Err(Error::Unsupported(format!(
            "a fit to several tensors has one start, not {}: fit with several seeds, and keep the fit whose history ends lowest",
            settings.starts
        )));
    }
    let ranks = ranks(&settings.ranks, &parts)?;
    let mut ready = Vec::new();
    let mut portions = Portions::default();
    for part in parts {
        let Part { model, observations, loss, weight } = part;
        let latent = model.latent();
        let own =
            ranks.iter().filter(|(letter, _)| latent.iter().any(|x| char::from(x) == *letter));
        let settings = settings.alike(model).ranks(own.copied()).loss(loss);
        let (shapes, data) = open::prepared(&settings, &observations)?;
        portions.add(&data, weight);
        ready.push(Ready { settings, shapes, data, weight });
    }
    portions.check(&settings)?;
    let all: Vec<Shapes> = ready.iter().map(|part| part.shapes.clone()).collect();
    let (shapes, places) = Shapes::union(&all)?;
    settings.model = shapes.model().clone();
    let mut rules = Rules::new(&settings, &shapes)?;
    rules.balancing = balancing(&shapes, &places, &rules);
    for (part, own) in ready.iter().zip(&places) {
        if own.iter().all(|&l| rules.rules[l].fixed) {
            return Err(Error::Setting(format!(
                "all factors of {} are fixed: there is nothing to fit to that tensor",
                part.shapes.model()
            )));
        }
    }
    let groups = groups(&ready, &places, &rules)?;
    let balance = settings.balance.unwrap_or_default();
    let mut start = start(&mut settings, &shapes, &rules, &ready, &places)?;
    let mut warnings: Vec<String> = falling_away(&shapes, &places, &rules).into_iter().collect();
    let means: Vec<f64> = ready.iter().map(|part| part.data.mean()).collect();

    let mut members = Vec::new();
    let mut plans = Vec::new();
    for (part, own) in ready.into_iter().zip(&places) {
        let Ready { mut settings, shapes, data, weight } = part;
        let mine = |group: &Vec<usize>| -> Vec<usize> {
            (0..own.len()).filter(|&m| group.contains(&own[m])).collect()
        };
        let grouped: Vec<Vec<usize>> = groups.iter().map(mine).collect();
        let mut next = 0;
        let number = |group: &Vec<usize>| {
            let number = (!group.is_empty()).then_some(next);
            next += usize::from(number.is_some());
            number
        };
        let numbers = grouped.iter().map(number).collect();
        let grouped: Vec<Vec<usize>> = grouped.into_iter().filter(|g| !g.is_empty()).collect();
        settings.groups = Some(grouped.clone());
        let starts: Vec<ArrayD<f64>> = own.iter().map(|&l| start[l].clone()).collect();
        for (m, _) in own.iter().enumerate().filter(|(_, l)| rules.rules[**l].fixed) {
            settings = settings.fix(&format!("theta_{}", m + 1), starts[m].clone());
        }
        let own_rules = Rules::new(&settings, &shapes)?;
        let chosen = form::choose(&settings, &shapes, &settings.loss, data)?;
        let job = open::job(&settings, &shapes, chosen, own_rules, starts)?;
        // What one tensor says is not all that there is: no exact steps.
        let job = Job { exact: false, balancing: None, ..job };
        let loss = job.loss.name().to_string();
        plans.push((Arc::clone(&job.plan), Portions::of(&job.data), loss));
        members.push(Member {
            loss: job.loss.clone(),
            engine: device.open(job, settings.precision)?,
            weight,
            factors: own.clone(),
            groups: numbers,
            own: grouped,
        });
    }
    let count = groups.len();
    let model = shapes.model().clone();
    let penalized = rules.is_penalized();
    let balancing = rules.balancing.clone().filter(|_| balance == Balance::EverySweep);
    let balanced = balancing.is_some();
    let joint = Joint {
        shapes,
        groups,
        rules: rules.rules.clone(),
        balancing,
        floor: settings.factor_floor,
        cycles: settings.inner_cycles,
        guarded: settings.algorithm == Algorithm::Accelerated,
    };
    let mut engine = CoupledEngine::new(members, joint, &start)?;
    if balance != Balance::Never && penalized {
        let scaled = |own: &Vec<usize>| own.iter().filter(|&&l| rules.scales(l)).count() as f64;
        let scaled: Vec<f64> = places.iter().map(scaled).collect();
        warnings.extend(scale::rescale(&rules, &mut start, settings.precision, |start| {
            engine.load(start)?;
            let told = engine.scale_parts()?.into_iter().zip(&scaled);
            let term = |((loss, weight, sums), &factors)| Term { loss, weight, sums, factors };
            Ok(told.map(term).collect())
        })?);
    }
    let mut history = History::new(&settings, Some(device));
    let names: Vec<&str> = plans.iter().map(|(_, _, loss)| loss.as_str()).collect();
    history.loss_name = names.join(" + ");
    let mut watch = Watch::new(&mut settings, portions, started, balanced, penalized);
    solve::sweeps(&mut engine, count, &mut watch, &mut history, &mut None, None)?;
    let factors = engine.factors()?;
    let ends = engine.evaluate_each()?;
    let mut parts = Vec::new();
    for (t, ((plan, portions, loss), sums)) in plans.into_iter().zip(ends).enumerate() {
        let own: Vec<ArrayD<f64>> = places[t].iter().map(|&l| factors[l].clone()).collect();
        let history = History { loss_name: loss, ..end(&history, &portions, sums) };
        // Where the mean takes more memory than there is, there is no warning, but there is a fit.
        let predicted = if penalized { mean(plan.shapes(), &own).ok() } else { None };
        let gone = predicted.and_then(|predicted| vanished(&own, predicted, means[t]));
        warnings.extend(gone.map(|gone| format!("tensor {}: {gone}", t + 1)));
        parts.push(Fit::new(plan, own, history));
    }
    Ok(CoupledFit { model, factors, history, parts, warnings })
}

/// The trades of scale that leave every part's ŷ as it is.
fn balancing(shapes: &Shapes, places: &[Vec<usize>], rules: &Rules) -> Option<Balancing> {
    let trading = rules.balancing.as_ref()?.factors();
    Some(Balancing::coupled(shapes.model(), &trading, places)).filter(|b| !b.is_empty())
}

/// A warning where penalised factors can shrink while factors without a penalty grow, every ŷ staying
/// as it is.
fn falling_away(shapes: &Shapes, places: &[Vec<usize>], rules: &Rules) -> Option<String> {
    // Factors in the same parts for which the same holds are of one kind.
    let about = |l: usize| -> (Vec<bool>, bool, bool) {
        let holders = places.iter().map(|own| own.contains(&l)).collect();
        (holders, rules.can_vanish(l), rules.is_loose(l))
    };
    let mut kinds: Vec<Vec<usize>> = Vec::new();
    for l in (0..rules.rules.len()).filter(|&l| rules.can_vanish(l) || rules.is_loose(l)) {
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
            1 => rules.is_loose(l),
            // A factor without a penalty may make up for what others get.
            _ => rules.can_vanish(l) || rules.rules[l].lower == 0.0,
        };
        let pick = |which: &dyn Fn(usize, i8) -> bool| -> Vec<usize> {
            let picked = kinds
                .iter()
                .filter(|kind| moved.iter().any(|&(l, sign)| l == kind[0] && which(l, sign)));
            picked.flatten().copied().collect()
        };
        let falling = pick(&|l, sign| sign < 0 && rules.can_vanish(l));
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
                "a rank was given for the letter {letter}, which is not a latent letter of any of the models"
            )));
        }
        ranks.push((letter, rank));
    }
    Ok(ranks)
}

/// The groups of all factors: those of the part with the most to do, then what they leave of the groups
/// of the others.
fn groups(ready: &[Ready], places: &[Vec<usize>], rules: &Rules) -> Result<Vec<Vec<usize>>> {
    let mut order: Vec<usize> = (0..ready.len()).collect();
    order.sort_by_key(|&t| std::cmp::Reverse(ready[t].data.cells(Role::Train)));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for t in order {
        let Ready { settings, shapes, data, .. } = &ready[t];
        let info = crate::plan::DataInfo::c_order(shapes, data.coordinates().map_or(4, |_| 0));
        let mut wanted = settings.grouping();
        if shapes.model().factors().len() == 1 {
            wanted = crate::plan::Grouping::Block;
        }
        let planner = crate::plan::Settings { grouping: wanted, ..Default::default() };
        let plan = Plan::new(shapes, &info, &planner)?;
        for group in plan.groups() {
            let all = group.factors.iter().map(|&m| places[t][m]);
            let left: Vec<usize> = all
                .filter(|l| !rules.rules[*l].fixed && !groups.iter().flatten().any(|m| m == l))
                .collect();
            if !left.is_empty() {
                groups.push(left);
            }
        }
    }
    Ok(groups)
}

/// The factors to start from. Random ones are scaled so that the mean of every ŷ suits its tensor, as far
/// as that goes together.
fn start(
    settings: &mut NNEinFact,
    shapes: &Shapes,
    rules: &Rules,
    ready: &[Ready],
    places: &[Vec<usize>],
) -> Result<Vec<ArrayD<f64>>> {
    let (mut factors, made) = match std::mem::take(&mut settings.start) {
        Start::Factors(factors) => (start::given(shapes, &factors)?, false),
        Start::Random => (start::uniform(shapes, settings.seed)?, true),
        _ => {
            return Err(Error::Unsupported(
                "several tensors start from random or from given factors".into(),
            ));
        }
    };
    rules.place(shapes, &mut factors, false)?;
    if made {
        // The scale of one tensor disturbs that of another one: in turns, they settle.
        for _ in 0..TURNS {
            for (part, own) in ready.iter().zip(places) {
                let free: Vec<usize> = own.iter().copied().filter(|&l| rules.scales(l)).collect();
                let parts: Vec<ArrayD<f64>> = own.iter().map(|&l| factors[l].clone()).collect();
                let goal = start::target(&part.settings.loss, &part.data);
                let scale =
                    (goal / mean(&part.shapes, &parts)?).powf(1.0 / free.len().max(1) as f64);
                if scale > 0.0 && scale.is_finite() {
                    free.into_iter().for_each(|l| factors[l].mapv_inplace(|x| x * scale));
                }
            }
        }
    }
    if settings.balance.unwrap_or_default() != Balance::Never && rules.is_penalized() {
        scale::start(shapes, rules, &mut factors);
    }
    Ok(factors)
}

/// How often the tensors take turns in scaling a start.
const TURNS: usize = 50;

/// The history of a part: its losses at the end.
fn end(all: &History, portions: &Portions, sums: Sums) -> History {
    let one = |sum: f64, role: Role| portions.mean(sum, role).into_iter().collect();
    History {
        loss: one(sums.train, Role::Train),
        penalty: Vec::new(),
        validation_loss: one(sums.validation, Role::Validation),
        heldout_loss: one(sums.held_out, Role::HeldOut),
        seconds: all.seconds.last().copied().into_iter().collect(),
        sweeps: vec![all.iterations],
        returned: 0,
        ..all.clone()
    }
}
