//! What is drawn of the factors: which drawings, in which order.

use std::ops::Range;

use ndarray::{ArrayD, Axis as NdAxis};

use super::draw::{Drawing, number, percent};
use super::labels::{ModeAxis, Names, isolated};
use super::pairs::{OUTSIDE, Pair, latent, observed, pairs, unfold, uses};
use super::panel::{HeatMap, PIXELS as SIDE, Tone, heat, profile};
use super::raster;
use nneinfact_core::model::Index;
use nneinfact_fit::Saved;

/// Components that are shown at once; the others are folded.
pub(super) const SHOWN: usize = 24;
/// Components that are drawn at all.
const DRAWN: usize = 96;
/// Numbers under the pointer in heat maps: this many bytes of a page.
const DETAIL: usize = 2 << 20;
/// Pixels of all heat maps of a page together.
const PIXELS: f64 = 3e6;

/// The drawings of all factors.
pub(super) struct Views {
    pub groups: Vec<ComponentGroup>,
    /// Factors without an index of a component: cores, weights, whole matrices.
    pub others: Vec<FactorView>,
}

/// The factors that have one latent index in common, shown component by component.
pub(super) struct ComponentGroup {
    pub letter: char,
    /// The names of the factors.
    pub factors: Vec<String>,
    pub components: Vec<ComponentView>,
    /// The rank.
    pub rank: usize,
    /// How many components are not drawn.
    pub left_out: usize,
    pub notes: Vec<String>,
}

pub(super) struct ComponentView {
    /// Its number: a value of the latent index, counted from 0.
    pub component: usize,
    /// Its share of the sum of ŷ.
    pub share: f64,
    pub panels: Vec<Drawing>,
    /// Factors that a panel shows combined, by themselves.
    pub parts: Vec<Drawing>,
}

pub(super) struct FactorView {
    pub title: String,
    pub panels: Vec<Drawing>,
    pub note: String,
}

/// What decides how large drawings are.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub width: f64,
    pub height: f64,
    /// The most components of each latent index.
    pub most: usize,
    /// Whether the page's script can say numbers.
    pub hover: bool,
}

impl Sizes {
    pub const PAGE: Sizes = Sizes { width: 270.0, height: 128.0, most: DRAWN, hover: true };
}

struct Maker<'a> {
    saved: &'a Saved,
    modes: &'a [ModeAxis],
    sizes: Sizes,
    detail: Option<usize>,
    pixels: f64,
}

/// Colours of factors, in the order of the model.
fn class(l: usize) -> String {
    format!("c{}", l % 6)
}

pub(super) fn views(saved: &Saved, modes: &[ModeAxis], sizes: Sizes) -> Views {
    let detail = sizes.hover.then_some(DETAIL);
    let mut maker = Maker { saved, modes, sizes, detail, pixels: PIXELS };
    maker.all()
}

/// The components of a latent index by descending weight, with their shares.
fn ordered(saved: &Saved, index: Index) -> Vec<(usize, f64)> {
    let weights = saved.totals(&[index]);
    let total: f64 = weights.iter().sum();
    let mut order: Vec<(usize, f64)> = weights
        .into_iter()
        .map(|w| if total > 0.0 { w / total } else { 0.0 })
        .enumerate()
        .collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    order
}

impl Maker<'_> {
    /// The latent index whose values are the components of a factor: the one that ties most factors.
    fn component_of(&self, l: usize) -> Option<Index> {
        let latent = latent(self.saved, l);
        let most = latent.iter().map(|&x| uses(self.saved, x)).max()?;
        latent.into_iter().find(|&x| uses(self.saved, x) == most)
    }

    fn axis(&self, index: Index) -> ModeAxis {
        let model = self.saved.model();
        match model.output().iter().position(|&x| x == index) {
            Some(mode) => self.modes[mode].clone(),
            None => ModeAxis {
                letter: index.into(),
                name: char::from(index).to_string(),
                size: self.saved.shapes().size(index),
                labels: None,
                upwards: false,
                mode: false,
                first: 0,
                edges: None,
                dates: false,
            },
        }
    }

    /// Several indices as one axis.
    fn joined(&self, indices: &[Index]) -> ModeAxis {
        if let &[index] = indices {
            return self.axis(index);
        }
        let axes: Vec<ModeAxis> = indices.iter().map(|&x| self.axis(x)).collect();
        let size = axes.iter().map(|a| a.size).product();
        let names: Vec<String> = axes.iter().map(ModeAxis::title).collect();
        ModeAxis {
            letter: axes.first().map_or(' ', |a| a.letter),
            name: names.join(" × "),
            size,
            labels: (size <= 4096).then(|| {
                let all = (0..size)
                    .map(|mut i| {
                        let mut parts: Vec<String> = Vec::new();
                        for axis in axes.iter().rev() {
                            parts.push(isolated(&axis.label(i % axis.size)));
                            i /= axis.size;
                        }
                        parts.reverse();
                        parts.join(", ")
                    })
                    .collect();
                Names::new(all)
            }),
            upwards: false,
            mode: false,
            first: 0,
            edges: None,
            dates: false,
        }
    }

    fn all(&mut self) -> Views {
        let model = self.saved.model().clone();
        let pairs = pairs(self.saved);
        let mut groups: Vec<(Index, Vec<usize>)> = Vec::new();
        let mut others = Vec::new();
        for l in 0..model.factors().len() {
            let pair = pairs.iter().find(|p| p.first == l || p.second == l);
            let index = match pair {
                Some(pair) => Some(pair.component_index),
                None => self.component_of(l).filter(|_| {
                    !observed(self.saved, l).is_empty() || latent(self.saved, l).len() > 2
                }),
            };
            // A core is looked at as a whole.
            match index.filter(|_| !observed(self.saved, l).is_empty()) {
                Some(index) => match groups.iter_mut().find(|g| g.0 == index) {
                    Some(group) => group.1.push(l),
                    None => groups.push((index, vec![l])),
                },
                None => others.push(l),
            }
        }
        // The index that ties most factors comes first.
        groups.sort_by_key(|g| std::cmp::Reverse(g.1.len()));
        let groups = groups.into_iter().map(|(x, l)| self.group(x, &l, &pairs)).collect();
        let saved = self.saved;
        let mut others: Vec<FactorView> = others
            .into_iter()
            .map(|l| {
                let title = format!("theta_{}: {}", l + 1, model.factor_name(l));
                self.single(title, &class(l), &model.factors()[l], &saved.factors()[l])
            })
            .collect();
        if let Some(weights) = saved.weights().filter(|w| w.ndim() > 0) {
            let indices: Vec<Index> = model.latent().iter().collect();
            let name: String = indices.iter().map(|&x| char::from(x)).collect();
            others.push(self.single(format!("weights: {name}"), &class(5), &indices, weights));
        }
        Views { groups, others }
    }

    fn group(&mut self, index: Index, factors: &[usize], pairs: &[Pair]) -> ComponentGroup {
        let model = self.saved.model().clone();
        let order = ordered(self.saved, index);
        let mut notes = Vec::new();
        for pair in pairs.iter().filter(|p| factors.contains(&p.first)) {
            let summed: String = pair.summed.iter().map(|&x| char::from(x)).collect();
            notes.push(format!(
                "{} and {} are shown multiplied and summed over {summed}.",
                model.factor_name(pair.first),
                model.factor_name(pair.second)
            ));
            let [rows, columns] = &pair.window;
            let axes = [pair.first, pair.second].map(|l| self.joined(&observed(self.saved, l)));
            if (rows.len(), columns.len()) != (axes[0].size, axes[1].size) {
                let part = |axis: &ModeAxis, r: &Range<usize>| {
                    format!("{} {} to {}", axis.name, axis.label(r.start), axis.label(r.end - 1))
                };
                notes.push(format!(
                    "The maps are cut to {} and {}; on average less than {} of one lies beyond each edge.",
                    part(&axes[0], rows),
                    part(&axes[1], columns),
                    percent(OUTSIDE)
                ));
            }
        }
        let mut components = Vec::new();
        // Drawings for which there was no room any more.
        let mut missing = 0usize;
        let usual = self.sizes.height;
        if pairs.iter().any(|p| factors.contains(&p.first)) && factors.len() > 2 {
            // Maps are as high as they are wide.
            self.sizes.height = 1.3 * usual;
        }
        for &(component, share) in order.iter().take(self.sizes.most) {
            let mut view =
                ComponentView { component, share, panels: Vec::new(), parts: Vec::new() };
            for &l in factors {
                let drawn = match pairs.iter().find(|p| p.first == l || p.second == l) {
                    None => self.panel(l, index, component),
                    Some(pair) if pair.first == l => {
                        let drawn = self.product(pair, component);
                        for l in [pair.first, pair.second] {
                            if components.len() < SHOWN {
                                view.parts.extend(self.panel(l, index, component));
                            }
                        }
                        drawn
                    }
                    Some(_) => continue,
                };
                missing += usize::from(drawn.is_none());
                view.panels.extend(drawn);
            }
            // Beyond what a page should weigh.
            if view.panels.is_empty() && !components.is_empty() {
                // Those are counted as components.
                missing = 0;
                break;
            }
            components.push(view);
        }
        self.sizes.height = usual;
        if missing > 0 {
            notes.push(format!(
                "{missing} heat maps of the lighter components are left out: there are too many for \
                 a page."
            ));
        }
        let left_out = order.len() - components.len();
        ComponentGroup {
            letter: index.into(),
            factors: factors.iter().map(|&l| model.factor_name(l)).collect(),
            components,
            rank: order.len(),
            left_out,
            notes,
        }
    }

    /// Takes pixels for a heat map, if there are any left.
    fn spend(&mut self, rows: usize, columns: usize) -> bool {
        self.pixels -= rows.min(256) as f64 * columns.min(256) as f64;
        self.pixels > 0.0
    }

    /// The part of a factor that belongs to one component.
    fn panel(&mut self, l: usize, index: Index, component: usize) -> Option<Drawing> {
        let model = self.saved.model();
        let indices = &model.factors()[l];
        let axis = indices.iter().position(|&x| x == index)?;
        let part = self.saved.factors()[l].index_axis(NdAxis(axis), component).to_owned();
        let rest: Vec<Index> = indices.iter().copied().filter(|&x| x != index).collect();
        let values = normalised(part);
        self.array(&class(l), &rest, &values)
    }

    /// Any array: a vector as a profile, everything else as a heat map.
    fn array(&mut self, class: &str, indices: &[Index], values: &[f64]) -> Option<Drawing> {
        match indices {
            [] => None,
            &[index] => {
                let axis = self.axis(index);
                let size = (self.sizes.width, self.sizes.height);
                Some(profile(&axis.title(), &axis, values, class, size))
            }
            // A mode of the data is seen best from left to right; latent indices are few.
            &[a, b]
                if self.saved.model().latent().contains(b)
                    && !self.saved.model().latent().contains(a) =>
            {
                let (m, n) = (self.saved.shapes().size(a), self.saved.shapes().size(b));
                let turned: Vec<f64> =
                    (0..n).flat_map(|j| (0..m).map(move |i| values[i * n + j])).collect();
                self.matrix(&[b], &[a], &turned, false)
            }
            [first, rest @ ..] => {
                let modes = self.saved.model().observed();
                let square = rest.len() == 1 && modes.contains(*first) && modes.contains(rest[0]);
                self.matrix(&[*first], rest, values, square)
            }
        }
    }

    fn matrix(
        &mut self,
        rows: &[Index],
        columns: &[Index],
        values: &[f64],
        square: bool,
    ) -> Option<Drawing> {
        let (rows, columns) = (self.joined(rows), self.joined(columns));
        self.drawn(&rows, &columns, values, square)
    }

    fn drawn(
        &mut self,
        rows: &ModeAxis,
        columns: &ModeAxis,
        values: &[f64],
        square: bool,
    ) -> Option<Drawing> {
        if !self.spend(rows.size, columns.size) {
            return None;
        }
        Some(self.map(rows, columns, values, square, None))
    }

    /// A heat map for which pixels were taken.
    fn map(
        &mut self,
        rows: &ModeAxis,
        columns: &ModeAxis,
        values: &[f64],
        square: bool,
        block: Option<(usize, usize)>,
    ) -> Drawing {
        let title = format!("{} × {}", rows.title(), columns.title());
        let ratio = rows.size as f64 / columns.size.max(1) as f64;
        let square = square && (0.3..3.0).contains(&ratio);
        let matrix = HeatMap { rows, columns, values, square, block, tone: None };
        heat(&title, &matrix, self.sizes.width, self.detail.as_mut())
    }

    /// The product of the parts of two factors that belong to one component.
    fn product(&mut self, pair: &Pair, component: usize) -> Option<Drawing> {
        let windows = pair.window.clone();
        if !self.spend(windows[0].len(), windows[1].len()) {
            return None;
        }
        let mut sides = [
            unfold(self.saved, pair, pair.first, component)?,
            unfold(self.saved, pair, pair.second, component)?,
        ];
        // Relative to the largest, so that sums are finite.
        for (_, values) in &mut sides {
            scale(values);
        }
        let k = sides[0].1.len() / sides[0].0.max(1);
        let column = |side: usize, c: usize| sides[side].1.iter().skip(c).step_by(k).sum::<f64>();
        let total: f64 = (0..k).map(|c| column(0, c) * column(1, c)).sum();
        let unit = if total > 0.0 { total } else { 1.0 };
        // The mean of a block of the product is the product of the means: the whole, which can be
        // very large, is never formed.
        let means = [0, 1].map(|side| {
            let part = &sides[side].1[windows[side].start * k..windows[side].end * k];
            let step = windows[side].len().div_ceil(SIDE).max(1);
            let ((m, _), means) = raster::blocks((windows[side].len(), k), part, (step, 1));
            (step, m, means)
        });
        let [(a, m, left), (b, n, right)] = means;
        let values: Vec<f64> = (0..m * n)
            .map(|at| {
                let (left, right) = (&left[at / n * k..][..k], &right[at % n * k..][..k]);
                left.iter().zip(right).map(|(x, y)| x * y).sum::<f64>() / unit
            })
            .collect();
        let axis = |l: usize, part| self.joined(&observed(self.saved, l)).part(part);
        let axes = (axis(pair.first, &windows[0]), axis(pair.second, &windows[1]));
        Some(self.map(&axes.0, &axes.1, &values, true, Some((a, b))))
    }

    /// A factor by itself.
    fn single(
        &mut self,
        title: String,
        class: &str,
        indices: &[Index],
        factor: &ArrayD<f64>,
    ) -> FactorView {
        let saved = self.saved;
        let model = saved.model();
        let mut panels = Vec::new();
        let mut note = String::new();
        // Components by weight, as everywhere.
        let orders: Vec<Vec<usize>> = indices
            .iter()
            .map(|&x| match model.latent().contains(x) {
                true => ordered(saved, x).into_iter().map(|o| o.0).collect(),
                false => (0..saved.shapes().size(x)).collect(),
            })
            .collect();
        let mut sorted = factor.clone();
        for (axis, order) in orders.iter().enumerate() {
            sorted = sorted.select(NdAxis(axis), order);
        }
        let axis = |maker: &Maker<'_>, at: usize| -> ModeAxis {
            let axis = maker.axis(indices[at]);
            let labels = match model.latent().contains(indices[at]) {
                true => Some(Names::new(orders[at].iter().map(ToString::to_string).collect())),
                false => axis.labels.clone(),
            };
            ModeAxis { labels, ..axis }
        };
        match indices.len() {
            1 => {
                let values: Vec<f64> = sorted.iter().copied().collect();
                let axis = axis(self, 0);
                let size = (self.sizes.width, self.sizes.height);
                panels.push(profile(&axis.title(), &axis, &values, class, size));
            }
            2 => {
                let values: Vec<f64> = sorted.iter().copied().collect();
                let (rows, columns) = (axis(self, 0), axis(self, 1));
                panels.extend(self.drawn(&rows, &columns, &values, true));
            }
            _ => {
                let (first, rows) = (axis(self, 0), axis(self, 1));
                let columns = match indices.len() {
                    3 => axis(self, 2),
                    _ => self.joined(&indices[2..]),
                };
                // One scale for all slices, so that they can be compared.
                let shown: Vec<f64> = sorted.outer_iter().take(SHOWN).flatten().copied().collect();
                let whole = rows.size <= SIDE && columns.size <= SIDE;
                let tone = whole.then(|| Tone::of(&shown));
                for (i, part) in sorted.outer_iter().enumerate().take(SHOWN) {
                    if !self.spend(rows.size, columns.size) {
                        break;
                    }
                    let values: Vec<f64> = part.iter().copied().collect();
                    let square = indices.len() == 3
                        && (0.3..3.0).contains(&(rows.size as f64 / columns.size as f64));
                    let (rows, columns, values) = (&rows, &columns, &values[..]);
                    let matrix = HeatMap { rows, columns, values, square, block: None, tone };
                    let title = format!("{} = {}", first.letter, isolated(&first.label(i)));
                    panels.push(heat(&title, &matrix, self.sizes.width, self.detail.as_mut()));
                }
                if panels.len() < first.size {
                    note = format!(
                        "{} of {} slices are left out.",
                        first.size - panels.len(),
                        first.size
                    );
                }
            }
        }
        if panels.is_empty() && note.is_empty() {
            note = "Left out: this page is large enough.".into();
        }
        FactorView { title, panels, note }
    }
}

/// The entries divided by their sum.
fn normalised(part: ArrayD<f64>) -> Vec<f64> {
    let mut values: Vec<f64> = part.iter().copied().collect();
    scale(&mut values);
    values
}

fn scale(values: &mut [f64]) {
    let max = values.iter().copied().fold(0.0, f64::max);
    if max > 0.0 {
        // Relative to the largest first, so that the sum is finite.
        let sum: f64 = values.iter().map(|x| x / max).sum();
        values.iter_mut().for_each(|x| *x = *x / max / sum);
    }
}

impl ComponentView {
    /// What stands above its drawings.
    pub fn title(&self, letter: char) -> String {
        format!("{letter} = {}", self.component)
    }

    /// Its share of ŷ in words.
    pub fn share(&self) -> String {
        percent(self.share)
    }

    pub fn share_exactly(&self) -> String {
        number(self.share, 4)
    }
}
