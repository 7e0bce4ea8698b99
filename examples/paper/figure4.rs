//! Figure 4 of the NNEinFact paper (in its text "qualitative structure"): what the components of the Uber
//! model are, by hour, weekday and place.
//!
//! ```text
//! cargo run --release --example paper_figure4 -- uber.npz --report figure4.html
//! ```

mod common;

use std::process::ExitCode;

use common::{DAYS, Failure, Options};
use ndarray::{Array2, ArrayD, Ix2, Ix3};
use nneinfact::fit::Saved;
use nneinfact::report::{Labels, Report, Residuals};
use nneinfact::{Fit, Loss, NNEinFact, Observations, io};

const MODEL: &str = "wr,hr,dr,ikr,jkr->whdij";

/// A class that the paper shows: in which hours and on which days it is at work.
struct Shown {
    name: &'static str,
    hours: &'static [usize],
    weekend: bool,
}

const SHOWN: [Shown; 3] = [
    Shown { name: "weekday mornings, in residential areas", hours: &[6, 7, 8, 9], weekend: false },
    Shown { name: "weekday evenings, in Midtown", hours: &[16, 17, 18, 19], weekend: false },
    Shown {
        name: "weekend nightlife, around the West Village",
        hours: &[22, 23, 0, 1, 2, 3],
        weekend: true,
    },
];

/// The days that the nightlife is on.
const WEEKEND: [&str; 3] = ["Friday", "Saturday", "Sunday"];

/// A component: its profiles with a sum of 1 and the place of its map's maximum.
struct Component {
    share: f64,
    hours: Vec<f64>,
    days: Vec<f64>,
    /// The last third of the weeks over the first: single weeks may be cut short.
    growth: f64,
    /// Shares of the cells of the map.
    map: Array2<f64>,
}

/// Row and column of the largest entry.
fn largest(map: &Array2<f64>) -> (usize, usize) {
    let better = |best: ((usize, usize), f64), (at, &x): ((usize, usize), &f64)| {
        if x > best.1 { (at, x) } else { best }
    };
    map.indexed_iter().fold(((0, 0), f64::NEG_INFINITY), better).0
}

/// A column of a matrix, with a sum of 1.
fn profile(factor: &ArrayD<f64>, r: usize) -> Result<Vec<f64>, Failure> {
    let matrix = factor.view().into_dimensionality::<Ix2>()?;
    let sum = matrix.column(r).sum();
    Ok(matrix.column(r).iter().map(|x| if sum > 0.0 { x / sum } else { 0.0 }).collect())
}

/// The components, heaviest first.
fn components(fit: &Fit) -> Result<Vec<Component>, Failure> {
    let [weeks, hours, days, rows, columns] = fit.factors() else {
        return Err("the model has five factors".into());
    };
    let rows = rows.view().into_dimensionality::<Ix3>()?;
    let columns = columns.view().into_dimensionality::<Ix3>()?;
    let weights = fit.component_weights('r')?;
    let all: f64 = weights.iter().sum();
    let mut found = Vec::new();
    for (r, weight) in weights.iter().enumerate() {
        let (down, across) =
            (rows.index_axis(ndarray::Axis(2), r), columns.index_axis(ndarray::Axis(2), r));
        let map = down.dot(&across.t());
        let weeks = profile(weeks, r)?;
        let third = weeks.len().div_ceil(3);
        let first: f64 = weeks.iter().take(third).sum();
        let last: f64 = weeks.iter().rev().take(third).sum();
        found.push(Component {
            share: weight / all,
            hours: profile(hours, r)?,
            days: profile(days, r)?,
            growth: last / first,
            map: &map / map.sum().max(f64::MIN_POSITIVE),
        });
    }
    Ok(found)
}

/// Seven or so bars of a profile, from none to the largest.
fn bars(values: &[f64]) -> String {
    let largest = values.iter().copied().fold(0.0, f64::max);
    let bar = |x: &f64| {
        let level = if largest > 0.0 { (x / largest * 8.0).round() as usize } else { 0 };
        [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'][level.min(8)]
    };
    values.iter().map(bar).collect()
}

/// The hours with most of a profile, in their order.
fn peaks(hours: &[f64]) -> String {
    let mut order: Vec<usize> = (0..hours.len()).collect();
    order.sort_by(|&a, &b| hours[b].total_cmp(&hours[a]));
    order.truncate(3);
    order.sort_unstable();
    let names: Vec<String> = order.iter().map(|h| format!("{h}h")).collect();
    names.join(" ")
}

/// How much of a component is in the hours and days of a class that the paper shows.
fn likeness(component: &Component, shown: &Shown) -> f64 {
    let in_hours: f64 = shown.hours.iter().map(|&h| component.hours[h]).sum();
    let days = component.days.iter().zip(DAYS);
    let in_days: f64 = days
        .filter(|(_, day)| WEEKEND.contains(day) == shown.weekend)
        .map(|(share, _)| share)
        .sum();
    in_hours * in_days
}

/// The days from Monday on, as places in the file's order.
fn from_monday() -> Vec<usize> {
    let week = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    week.iter().filter_map(|day| DAYS.iter().position(|d| d == day)).collect()
}

fn main() -> ExitCode {
    common::main(run)
}

fn run() -> Result<(), Failure> {
    let options = Options::read(
        "paper_figure4",
        &[
            ("--rank", "temporal classes r [10, as in the paper]"),
            ("--maps", "spatial factors k of each [6, as in the paper]"),
            ("--sweeps", "at most so many [500]"),
            ("--seed", "that of the start [0]"),
            ("--out", "where to write the factors, an .npz"),
            ("--report", "where to write the figure as a page, an .html"),
        ],
    )?;
    let quick = options.quick;
    let rank: usize = options.number("--rank", if quick { 4 } else { 10 })?;
    let maps: usize = options.number("--maps", if quick { 2 } else { 6 })?;
    let sweeps: usize = options.number("--sweeps", if quick { 30 } else { 500 })?;
    let device = options.device()?;
    let tensor = options.tensor()?;
    let observations = Observations::shared(tensor);
    let fit = NNEinFact::new(MODEL)?
        .ranks([('r', rank), ('k', maps)])
        .device(device)
        .seed(options.number("--seed", 0)?)
        .max_iter(sweeps)
        .fit(&observations)?
        .sorted();
    let history = fit.history();
    println!(
        "{MODEL} with r={rank}, k={maps}: {} parameters, KL {:.5} after {} sweeps ({}).",
        fit.shapes().parameters(),
        history.returned_loss(),
        history.iterations,
        history.stopped_by
    );
    println!(
        "The paper fits r=10, k=6 to a map of 400 × 400 cells (48,580 parameters); the tensor that it \
         publishes has 100 × 100.\n"
    );
    let components = components(&fit)?;
    let order = from_monday();
    // Where the pickups of all components are.
    let size = components.first().map_or((0, 0), |first| first.map.dim());
    let mut all: Array2<f64> = Array2::zeros(size);
    components.iter().for_each(|component| all.scaled_add(component.share, &component.map));
    println!(
        " r  share  hours 0 to 23              peaks        Mo … Su  weekend  growth  most in cell    \
         more than others in"
    );
    for (r, component) in components.iter().enumerate() {
        let days: Vec<f64> = order.iter().map(|&d| component.days[d]).collect();
        let weekend: f64 = days.iter().skip(4).sum();
        let cell =
            |at: (usize, usize)| format!("{},{} ({:.0} %)", at.0, at.1, 100.0 * component.map[at]);
        println!(
            "{:>2} {:>5.1}%  |{}|  {:<11}  |{}|  {:>5.0} %  ×{:<5.2}  {:<14}  {}",
            r + 1,
            100.0 * component.share,
            bars(&component.hours),
            peaks(&component.hours),
            bars(&days),
            100.0 * weekend,
            component.growth,
            cell(largest(&component.map)),
            cell(largest(&(&component.map - &all)))
        );
    }
    println!(
        "(weekend: Friday to Sunday, 43 % where days are alike; growth: the last third of the weeks over \
         the first; cells are row, column, with their share of the component)\n"
    );
    println!("The classes that the paper shows, and the component that is most like each:");
    for shown in &SHOWN {
        let like = |component: &Component| likeness(component, shown);
        let best = (0..components.len())
            .max_by(|&a, &b| like(&components[a]).total_cmp(&like(&components[b])));
        if let Some(best) = best {
            println!(
                "  {:<44} component {:>2}: {:.0} % of it lies in those hours and days",
                shown.name,
                best + 1,
                100.0 * like(&components[best])
            );
        }
    }
    if let Some(path) = options.given("--out") {
        fit.save(path)?;
        println!("\n{path}: theta_1 to theta_5, components by weight");
    }
    if let Some(path) = options.given("--report") {
        let saved = Saved::new(&fit);
        let hours: String = (0..24).map(|hour| format!("{hour:02}:00\n")).collect();
        let page = Report::new(&saved)
            .title("Uber pickups in New York City, April to September 2014")
            .labels('w', Labels::named("Week"))?
            .labels('h', Labels::parse(&format!("# Hour\n{hours}")))?
            .labels('d', Labels::parse(&format!("# Weekday\n{}\n", DAYS.join("\n"))))?
            .labels('i', Labels::named("Latitude"))?
            .labels('j', Labels::named("Longitude"))?
            .upwards('i')?
            .residuals(Residuals::new(&saved, &observations, Some(&Loss::kl()))?)
            .html();
        io::write_text(path, &page)?;
        println!("\n{path}: all components with their maps, and what the fit leaves over");
    }
    Ok(())
}
