//! What holds for factors besides the data: the steps of penalised entries as shaders, the values of
//! penalties and the trades of scale as commands.

use super::program::{Compiled, Compiler};
use super::recording::{
    Access, BufferId, Command, Dispatch, Recording, RecordingId, Shader, Window,
};
use super::text::fill;
use super::updates::power;
use nneinfact_core::engine::{Constraint, Job, LossSlot};
use nneinfact_core::error::Result;
use nneinfact_core::loss::{Majorizer, Penalty};
use nneinfact_core::model::Index;
use nneinfact_core::plan::Rescaling;

/// The least number of entries that a workgroup adds up powers of.
const CHUNK: usize = 4096;
/// The most sums of powers of a slice: the host, or a thread, adds them up.
const CHUNKS: usize = 256;

/// Newton steps of a solve, which begins near the root: half of them give all digits of single
/// precision.
const STEPS: usize = 8;

/// The rules as they are for the factors on the device, which are the user's times `scales`, the
/// objective being in the engine's unit.
pub(super) fn rules(job: &Job, scales: &[f64]) -> Vec<Constraint> {
    let objective = job.objective_unit();
    let of = |(rule, scale): (&Constraint, &f64)| rule.rescaled(1.0 / scale, objective);
    job.constraints.iter().zip(scales).map(of).collect()
}

/// Where the sums of powers of a penalised factor lie among the results.
#[derive(Clone, Copy, Debug)]
pub(super) struct PenaltySums {
    pub penalty: Penalty,
    /// Behind where those of the slot begin.
    pub at: usize,
    pub chunks: usize,
}

impl PenaltySums {
    /// The penalised factors, and the words that they take in a slot.
    pub fn new(rules: &[Constraint], places: &[usize]) -> (Vec<PenaltySums>, usize) {
        let mut end = 0;
        let mut all = Vec::new();
        for (l, rule) in rules.iter().enumerate() {
            let Some(penalty) = rule.penalty else { continue };
            let chunks = Chunks::of(places[l + 1] - places[l]).count;
            all.push(PenaltySums { penalty, at: end, chunks });
            end += 2 * chunks;
        }
        (all, end)
    }

    /// The penalty of the factor, from the results of its slot.
    pub fn value(&self, slot: &[f32]) -> f64 {
        let pairs = slot[self.at..self.at + 2 * self.chunks].chunks_exact(2);
        pairs.map(|x| self.penalty.value(f64::from(x[0])) * f64::from(x[1])).sum()
    }
}

impl Compiled {
    /// The penalties of a slot in the engine's unit, from all results.
    pub fn penalty(&self, found: &[f32], slot: usize) -> f64 {
        let first = self.penalties_at + slot * self.penalty_words;
        let slot = &found[first..first + self.penalty_words];
        self.penalties.iter().map(|sums| sums.value(slot)).sum()
    }
}

/// How a slice is cut for its sums of powers.
#[derive(Clone, Copy)]
struct Chunks {
    size: usize,
    count: usize,
}

impl Chunks {
    fn of(entries: usize) -> Chunks {
        let size = entries.div_ceil(CHUNKS).max(CHUNK);
        Chunks { size, count: entries.div_ceil(size).max(1) }
    }
}

impl Compiler<'_> {
    /// LossSums up the penalties of the factors as they are, for a slot.
    pub(super) fn penalties(
        &mut self,
        commands: &mut Vec<Command>,
        slot: Option<LossSlot>,
    ) -> Result<()> {
        let Some(slot) = slot else { return Ok(()) };
        let first = self.penalties_at + slot as usize * self.penalty_words;
        let penalized = (0..self.rules.len()).filter(|&l| self.rules[l].penalty.is_some());
        let sums: Vec<(usize, PenaltySums)> = penalized.zip(self.penalty_sums.clone()).collect();
        for (l, sums) in sums {
            let place = (self.results, first + sums.at);
            self.powers_of(commands, l, sums.penalty.power(), &[], place)?;
        }
        Ok(())
    }

    /// The sums of powers of a factor's slices, one slice for each index of these letters.
    fn powers_of(
        &mut self,
        commands: &mut Vec<Command>,
        l: usize,
        exponent: f64,
        letters: &[Index],
        place: (BufferId, usize),
    ) -> Result<()> {
        let own = &self.shapes.model().factors()[l];
        let rest: Vec<Index> = own.iter().copied().filter(|x| !letters.contains(x)).collect();
        let of = |letters: &[Index]| axes(self.shapes, letters, own);
        let (index, slice) = (of(letters), of(&rest));
        let count = |letters: &[Index]| self.shapes.sizes(letters).iter().product::<usize>();
        let (indices, entries) = (count(letters), count(&rest));
        let chunks = Chunks::of(entries);
        let lanes = match entries {
            0..=4 => 1,
            5..=256 => 8,
            _ => 64,
        };
        let fold = self.fold((indices * chunks.count * lanes).div_ceil(64));
        let mut numbers: Vec<u32> = [
            indices,
            chunks.count,
            entries,
            chunks.size,
            self.places[l],
            place.1,
            fold[0] as usize,
            index.len(),
            slice.len(),
            0,
            0,
            0,
        ]
        .map(|n| n as u32)
        .to_vec();
        let axes = pad(&mut numbers, index.into_iter().chain(slice));
        let shader = self.shader(Shader {
            label: "sums of powers".into(),
            source: fill(
                nneinfact_shaders::POWERS,
                &[
                    ("lanes", format!("{lanes}u")),
                    ("axes", format!("{axes}u")),
                    ("power", power("x", exponent)),
                ],
            )?,
            bindings: vec![Access::Uniform, Access::Read, Access::ReadWrite],
            invocations: 64,
            workgroup_bytes: 256,
        });
        let bindings = vec![self.words(&numbers), self.whole(self.factors), self.whole(place.0)];
        let work = 8.0 * (indices * entries) as f64;
        commands.push(Command::Dispatch(Dispatch { shader, bindings, workgroups: fold, work }));
        Ok(())
    }

    /// One cycle over the trades of scale.
    pub(super) fn balance(&mut self) -> Result<Option<RecordingId>> {
        let Some(balancing) = self.job.balancing.clone() else { return Ok(None) };
        let trading = balancing.factors();
        let mut recording = Recording { label: "balance".into(), commands: Vec::new() };
        let commands = &mut recording.commands;
        // What stands at the floor is zero, which would be worth more on another scale.
        for &l in &trading {
            self.sink(commands, l)?;
        }
        let sums = self.storage("sums of powers", 1);
        let scales = self.storage("scales of slices", 1);
        for trade in balancing.rescalings() {
            self.trade(commands, trade, sums, scales)?;
        }
        for &l in &trading {
            self.settle(commands, l)?;
        }
        Ok(Some(self.record(recording)))
    }

    /// Makes one trade.
    fn trade(
        &mut self,
        commands: &mut Vec<Command>,
        trade: &Rescaling,
        sums: BufferId,
        scales: BufferId,
    ) -> Result<()> {
        let parts: Vec<(usize, Penalty)> =
            trade.factors.iter().filter_map(|&l| Some((l, self.rules.get(l)?.penalty?))).collect();
        let count: usize = self.shapes.sizes(&trade.indices).iter().product();
        let fold = self.fold(count.div_ceil(64));
        let mut numbers = vec![count as u32, fold[0], 0, 0];
        let mut end = 0;
        for &(l, penalty) in &parts {
            let entries = (self.places[l + 1] - self.places[l]) / count.max(1);
            let chunks = Chunks::of(entries).count;
            self.powers_of(commands, l, penalty.power(), &trade.indices, (sums, end))?;
            let weight = (penalty.power() * penalty.weight()).ln() as f32;
            let power = penalty.power() as f32;
            numbers.extend([end as u32, chunks as u32, power.to_bits(), weight.to_bits()]);
            end += 2 * count * chunks;
        }
        self.grow(sums, end);
        self.grow(scales, parts.len() * count);
        let shader = self.shader(Shader {
            label: "scales of a trade".into(),
            source: fill(nneinfact_shaders::TRADE, &[("factors", format!("{}u", parts.len()))])?,
            bindings: vec![Access::Uniform, Access::Read, Access::ReadWrite],
            invocations: 64,
            workgroup_bytes: 0,
        });
        let bindings = vec![self.words(&numbers), self.whole(sums), self.whole(scales)];
        let work = (20 * count * parts.len() + end) as f64;
        commands.push(Command::Dispatch(Dispatch { shader, bindings, workgroups: fold, work }));
        for (n, &(l, _)) in parts.iter().enumerate() {
            self.scaled(commands, l, &trade.indices, (scales, n * count))?;
        }
        Ok(())
    }

    /// Multiplies the slices of a factor with their scales.
    fn scaled(
        &mut self,
        commands: &mut Vec<Command>,
        l: usize,
        letters: &[Index],
        scales: (BufferId, usize),
    ) -> Result<()> {
        let own = &self.shapes.model().factors()[l];
        let size = self.places[l + 1] - self.places[l];
        let fold = self.fold(size.div_ceil(64));
        let axes = axes(self.shapes, own, letters);
        let mut numbers: Vec<u32> =
            [self.places[l], size, fold[0] as usize, scales.1, axes.len(), 0, 0, 0]
                .map(|n| n as u32)
                .to_vec();
        let axes = pad(&mut numbers, axes);
        let shader = self.shader(Shader {
            label: "scale".into(),
            source: fill(nneinfact_shaders::SCALE, &[("axes", format!("{axes}u"))])?,
            bindings: vec![Access::Uniform, Access::ReadWrite, Access::Read],
            invocations: 64,
            workgroup_bytes: 0,
        });
        let bindings = vec![self.words(&numbers), self.whole(self.factors), self.whole(scales.0)];
        let work = 2.0 * size as f64;
        commands.push(Command::Dispatch(Dispatch { shader, bindings, workgroups: fold, work }));
        Ok(())
    }

    /// What a step reads of the rule of a factor.
    pub(super) fn rule_window(&mut self, l: usize) -> Window {
        let words = rule_words(&self.rules[l], self.job.loss.curvature_constant());
        self.uniform(bytemuck::cast_slice(&words))
    }
}

/// Axes of a tensor with the letters `loops`, slowest first: sizes, and strides in the tensor `of`
/// (0 along letters that it does not have). Neighbours that are one loop in both are joined.
fn axes(shapes: &nneinfact_core::model::Shapes, loops: &[Index], of: &[Index]) -> Vec<[usize; 2]> {
    let mut axes: Vec<[usize; 2]> = Vec::new();
    for &x in loops {
        let (size, stride) = (shapes.size(x), super::geometry::stride(shapes, of, x));
        match axes.last_mut() {
            _ if size == 1 => {}
            Some(slow) if slow[1] == stride * size => *slow = [slow[0] * size, stride],
            _ => axes.push([size, stride]),
        }
    }
    axes
}

/// Adds axes to the numbers of a shader; returns how many it has room for. Few different numbers, so
/// that few shaders are compiled.
fn pad(numbers: &mut Vec<u32>, axes: impl IntoIterator<Item = [usize; 2]>) -> usize {
    let first = numbers.len();
    for [size, stride] in axes {
        numbers.extend([size as u32, stride as u32, 0, 0]);
    }
    let room = ((numbers.len() - first) / 4).next_multiple_of(8).max(8);
    numbers.resize(first + 4 * room, 0);
    room
}

/// Within what single precision holds, and not 0: a penalty that is tiny in the engine's units still
/// decides where the data say nothing.
fn single(x: f64) -> f32 {
    x.clamp(f64::from(f32::MIN_POSITIVE), f64::from(f32::MAX)) as f32
}

/// What a step reads of a rule: a number that makes the pull of the penalty (see [`pull`]), the
/// bounds, and 0.
pub(super) fn rule_words(rule: &Constraint, slope: f64) -> [f32; 4] {
    let strength = rule.penalty.map_or(0.0, |penalty| {
        let (weight, p) = (penalty.weight() * penalty.power() / slope.abs(), penalty.power());
        single(if p > 2.0 { weight.powf(1.0 / (p - 1.0)) } else { weight })
    });
    [
        strength,
        rule.lower.min(f64::from(f32::MAX)) as f32,
        rule.upper.min(f64::from(f32::MAX)) as f32,
        0.0,
    ]
}

/// The pull μ p θ̃ᵖ⁻¹ / |c| of a penalty, as text. For large p the weight is drawn into the power:
/// θ̃ᵖ⁻¹ and μ by themselves may both be out of the range of single precision.
fn pull(p: f64) -> String {
    match p {
        1.0 => "rule.x".into(),
        p if p <= 2.0 => format!("rule.x * {}", power("theta", p - 1.0)),
        p => power("(rule.x * theta)", p - 1.0),
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|l| format!("    {l}\n")).collect()
}

/// The change of an entry with a penalty, as text: [`Majorizer::penalized`]. `finish` takes `moved`.
pub(super) fn penalized(
    majorizer: Majorizer,
    slope: f64,
    penalty: Penalty,
    finish: &str,
) -> String {
    let p = penalty.power();
    let mut solve = match majorizer {
        Majorizer::Power { p_a, p_b } if slope < 0.0 => {
            "let fall = b;\nlet rise = a;\n".to_string() + &powers([p_b, p_a, p - 1.0])
        }
        Majorizer::Power { p_a, p_b } => {
            "let fall = a;\nlet rise = b;\n".to_string() + &powers([p_a, p_b, p - 1.0])
        }
        Majorizer::Log => logarithm(p - 1.0),
    };
    solve += finish;
    // An entry that is 0 stays so, whatever its factor of change.
    let mut text = "let theta = factors[at];\nif theta > 0.0 {\n".to_string();
    text += "    // The derivative of the penalty, by the slope of the loss.\n";
    text += &format!("    let pull = {};\n    var moved = 1.0;\n", pull(p));
    text += &indent(&solve);
    text + "}"
}

/// A multiple of a number, as text.
fn times(by: f64, of: &str) -> String {
    if by == 1.0 { of.into() } else { format!("{:?} * {of}", by as f32) }
}

/// `moved` as the root of `rise λ^e₁ + pull λ^e₂ = fall λ^e₀`, as text.
fn powers([e0, e1, e2]: [f64; 3]) -> String {
    let (c1, c2) = (e1 - e0, e2 - e0);
    if c2 == 0.0 {
        return format!(
            "let left = fall - pull;\n\
             if left <= 0.0 {{\n    moved = 0.0;\n\
             }} else if rise <= 0.0 {{\n    moved = MOST;\n\
             }} else {{\n    let quotient = left / rise;\n    moved = {};\n}}\n",
            power("quotient", 1.0 / c1)
        );
    }
    let ends = "if fall <= 0.0 {\n    moved = 0.0;\n\
                } else if rise <= 0.0 && pull <= 0.0 {\n    moved = MOST;\n"
        .to_string();
    if c1 == c2 {
        return ends
            + &format!(
                "}} else {{\n    let quotient = fall / (rise + pull);\n    moved = {};\n}}\n",
                power("quotient", 1.0 / c1)
            );
    }
    // The quadratic in one of the powers, without the difference that cancels, and with the root of
    // a sum of squares that do not overflow.
    let quadratic = |linear: &str, square: &str, c: f64| {
        format!(
            "}} else {{\n\
             \x20   let root = 2.0 * sqrt({square}) * sqrt(fall);\n\
             \x20   let larger = max({linear}, root);\n\
             \x20   let part = min({linear}, root) / larger;\n\
             \x20   let quotient = 2.0 * fall / ({linear} + larger * sqrt(1.0 + part * part));\n\
             \x20   moved = {};\n}}\n",
            power("quotient", 1.0 / c)
        )
    };
    if c2 == 2.0 * c1 {
        return ends + &quadratic("rise", "pull", c1);
    }
    if c1 == 2.0 * c2 {
        return ends + &quadratic("pull", "rise", c2);
    }
    let (first, second) = (power("q1", 1.0 / c1), power("q2", 1.0 / c2));
    let (i1, i2) = (1.0 / c1, 1.0 / c2);
    let (log1, log2) = (times(i1, "log2(q1)"), times(i2, "log2(q2)"));
    let (apart1, apart2) = (times(c1, "(l2 - l1)"), times(c2, "(l1 - l2)"));
    let (u1, u2, y1, y2) = (times(c1, "u"), times(c2, "u"), times(c1, "y1"), times(c2, "y2"));
    ends + &format!(
        "}} else if rise <= 0.0 {{\n    let q2 = fall / pull;\n    moved = {second};\n\
         }} else if pull <= 0.0 {{\n    let q1 = fall / rise;\n    moved = {first};\n\
         }} else {{\n\
         \x20   let q1 = clamp(fall / rise, 1e-37, 1e37);\n\
         \x20   let q2 = clamp(fall / pull, 1e-37, 1e37);\n\
         \x20   // Where one of the terms alone is as large as the right side; the root is at most a\n\
         \x20   // little below the lesser of them.\n\
         \x20   let l1 = {log1};\n\
         \x20   let l2 = {log2};\n\
         \x20   let x1 = exp2(min(0.0, {apart1}));\n\
         \x20   let x2 = exp2(min(0.0, {apart2}));\n\
         \x20   var u = 0.0;\n\
         \x20   for (var n = 0u; n < {STEPS}u; n++) {{\n\
         \x20       let y1 = x1 * exp({u1});\n\
         \x20       let y2 = x2 * exp({u2});\n\
         \x20       u -= log(y1 + y2) * (y1 + y2) / ({y1} + {y2});\n\
         \x20   }}\n\
         \x20   moved = select({second}, {first}, l1 <= l2) * exp(u);\n}}\n"
    )
}

/// `moved` as the root of `b ln λ − a + pull λ^q = 0`, as text.
fn logarithm(q: f64) -> String {
    if q == 0.0 {
        return "let left = a - pull;\n\
                if b > 0.0 {\n    moved = exp(clamp(left / b, -80.0, 80.0));\n\
                } else if left > 0.0 {\n    moved = MOST;\n\
                } else if left < 0.0 {\n    moved = 0.0;\n}\n"
            .into();
    }
    let q1 = q as f32;
    format!(
        "if b <= 0.0 {{\n\
         \x20   if a <= 0.0 {{\n        moved = 0.0;\n\
         \x20   }} else if pull <= 0.0 {{\n        moved = MOST;\n\
         \x20   }} else {{\n        let quotient = a / pull;\n        moved = {};\n    }}\n\
         }} else if pull <= 0.0 {{\n    moved = exp(clamp(a / b, -80.0, 80.0));\n\
         }} else {{\n\
         \x20   // With t = q ln(moved) + shift: t + exp(t) = s, the logarithm of Lambert's W.\n\
         \x20   let quotient = clamp(a / b, -1e30, 1e30);\n\
         \x20   let shift = log(clamp({q1:?} * (pull / b), 1e-37, 1e37));\n\
         \x20   let s = {q1:?} * quotient + shift;\n\
         \x20   var power = 0.0;\n\
         \x20   if s > 1.0 {{\n\
         \x20       // As logarithms of both sides, which is nearly straight there.\n\
         \x20       var t = log(s);\n\
         \x20       for (var n = 0u; n < {STEPS}u; n++) {{\n\
         \x20           t -= (t - log(s - t)) * (s - t) / (s - t + 1.0);\n\
         \x20       }}\n\
         \x20       power = (t - shift) / {q1:?};\n\
         \x20   }} else {{\n\
         \x20       var t = min(s, 0.0);\n\
         \x20       for (var n = 0u; n < {STEPS}u; n++) {{\n\
         \x20           let e = exp(t);\n\
         \x20           t -= (t + e - s) / (1.0 + e);\n\
         \x20       }}\n\
         \x20       // Not the difference of t and shift, which cancels where the penalty is small.\n\
         \x20       power = quotient - exp(t) / {q1:?};\n\
         \x20   }}\n\
         \x20   moved = exp(clamp(power, -80.0, 80.0));\n}}\n",
        power("quotient", 1.0 / q)
    )
}

#[cfg(test)]
mod tests {
    use ndarray::ArrayD;

    use super::super::engine::GpuEngine;
    use super::super::guards::{started, values};
    use super::super::program::{Tuning, compile};
    use super::super::recording::{Buffer, BufferKind, Program, ShaderId};
    use super::super::shaders::{CORPUS, job_on, penalized_job};
    use super::super::tests::gpu;
    use super::super::updates::step;
    use super::*;
    use nneinfact_core::data::Observations;
    use nneinfact_core::engine::Engine;
    use nneinfact_core::loss::Loss;
    use nneinfact_core::plan::Grouping;
    use nneinfact_core::reference::predict;
    use nneinfact_cpu::CpuEngine;

    /// Numerators, denominators and weights of penalties that are tried in all combinations.
    const VALUES: [f32; 7] = [0.0, 1e-12, 1e-5, 0.7, 3.0, 2e4, 1e12];
    const WEIGHTS: [f32; 7] = [1e-12, 1e-6, 0.02, 0.3, 5.0, 1e5, 1e12];
    /// Powers of two, so that the pull of a ridge is not rounded.
    const ENTRIES: [f32; 3] = [0.00390625, 1.0, 32.0];

    /// The factors of change that the shader of a step finds for all combinations: by weight, then
    /// entry, numerator and denominator.
    fn found(gpu: &super::super::Gpu, loss: &Loss, p: f64) -> Vec<f32> {
        let (mut quotients, mut factors) = ([Vec::new(), Vec::new()], Vec::new());
        for theta in ENTRIES {
            for a in VALUES {
                for b in VALUES {
                    factors.push(theta);
                    quotients[0].push(a);
                    quotients[1].push(b);
                }
            }
        }
        let count = factors.len();
        let align = gpu.limits().uniform_align.max(16) as usize;
        let mut uniforms = vec![0u32; align / 4 * (WEIGHTS.len() + 1)];
        uniforms[..4].copy_from_slice(&[0, count as u32, count.div_ceil(64) as u32, 0]);
        let rule = |weight: f64| Constraint {
            penalty: Some(Penalty::new(weight, p)),
            ..Constraint::default()
        };
        for (n, weight) in WEIGHTS.map(f64::from).into_iter().enumerate() {
            let words = rule_words(&rule(weight), loss.curvature_constant()).map(f32::to_bits);
            uniforms[align / 4 * (n + 1)..][..4].copy_from_slice(&words);
        }
        let buffer = |label: &str, content: Vec<u8>, kind: BufferKind| Buffer {
            label: label.into(),
            bytes: content.len() as u64,
            kind,
            content,
        };
        let storage = |label: &str, content: &[f32]| {
            buffer(label, bytemuck::cast_slice(content).to_vec(), BufferKind::Storage)
        };
        let mut program = Program {
            buffers: vec![
                buffer("numbers", bytemuck::cast_slice(&uniforms).to_vec(), BufferKind::Uniform),
                storage("quotients", &quotients.concat()),
                storage("factors", &factors),
                storage("lambda", &vec![0.0; count]),
            ],
            shaders: vec![step(loss, &rule(1.0), true).unwrap()],
            recordings: Vec::new(),
        };
        let windows: Vec<Window> = (1..4)
            .map(|n| Window { buffer: BufferId(n), offset: 0, bytes: program.buffers[n].bytes })
            .collect();
        let uniform =
            |n: usize| Window { buffer: BufferId(0), offset: (n * align) as u64, bytes: 16 };
        for n in 0..WEIGHTS.len() {
            let mut bindings = vec![uniform(0)];
            bindings.extend(&windows);
            bindings.push(uniform(n + 1));
            program.recordings.push(Recording {
                label: "step".into(),
                commands: vec![Command::Dispatch(Dispatch {
                    shader: ShaderId(0),
                    bindings,
                    workgroups: [count.div_ceil(64) as u32, 1, 1],
                    work: 1.0,
                })],
            });
        }
        let loaded = gpu.load(program).unwrap();
        let mut found = Vec::new();
        for n in 0..WEIGHTS.len() {
            loaded.run(RecordingId(n)).unwrap();
            let bytes = loaded.read(BufferId(3), 0, 4 * count as u64).unwrap();
            found.extend(bytemuck::pod_collect_to_vec::<u8, f32>(&bytes));
        }
        found
    }

    #[test]
    fn steps_agree_with_double_precision() {
        let Some(gpu) = gpu() else { return };
        let alpha_beta = |alpha, beta| Loss::alpha_beta(alpha, beta).unwrap();
        let losses = [
            Loss::kl(),
            Loss::euclidean(),
            Loss::itakura_saito(),
            Loss::hellinger(),
            Loss::reverse_kl(),
            Loss::beta(3.0).unwrap(),
            alpha_beta(0.7, 0.0),
            alpha_beta(-1.0, 0.4),
            alpha_beta(-0.6, -0.7),
            Loss::bernoulli(),
            Loss::jensen_shannon(),
        ];
        let mut wrong = Vec::new();
        for loss in &losses {
            for p in [1.0, 1.05, 1.5, 2.0, 3.0, 6.0] {
                // A power of 1 / (p − 1) multiplies the roundings of a logarithm.
                let near = p < 1.5 && p > 1.0 && loss.majorizer() == Majorizer::Log;
                let exact = if near { 3e-4 } else { 1e-5 };
                let found = found(&gpu, loss, p);
                let mut found = found.iter();
                for weight in WEIGHTS.map(f64::from) {
                    for (theta, (a, b)) in ENTRIES.iter().flat_map(|&theta| {
                        VALUES
                            .iter()
                            .flat_map(move |&a| VALUES.iter().map(move |&b| (theta, (a, b))))
                    }) {
                        let found = f64::from(*found.next().unwrap());
                        let pull = Penalty::new(weight, p).derivative(f64::from(theta))
                            / loss.curvature_constant().abs();
                        let solve = |by: f64| {
                            let (a, b) = (f64::from(a), f64::from(b));
                            let falling = loss.curvature_constant() < 0.0;
                            loss.majorizer().penalized(a, b, pull * by, p, falling)
                        };
                        let expected = solve(1.0);
                        // What a rounding of the pull changes by itself.
                        let rounding = (solve(1.0 + 2e-7) - solve(1.0 - 2e-7)).abs();
                        let right = match expected {
                            x if x < 1e-20 => found < 1e-19,
                            x if x > 1e20 => found >= 1e6,
                            x => (found - x).abs() <= exact * x + rounding,
                        };
                        if !right {
                            wrong.push(format!(
                                "{} p {p} mu {weight:e} theta {theta} A {a:e} B {b:e}: {found:e}, not {expected:e}",
                                loss.name()
                            ));
                        }
                    }
                }
            }
        }
        assert!(
            wrong.is_empty(),
            "{} wrong:\n{}",
            wrong.len(),
            wrong[..wrong.len().min(40)].join("\n")
        );
    }

    /// A cycle of trades, sums of penalties and what a pass says about the scale.
    #[test]
    fn trades_sums_and_terms_are_those_of_the_cpu() {
        let Some(gpu) = gpu() else { return };
        for (n, (model, shape, ranks)) in CORPUS.iter().enumerate() {
            let loss = [Loss::kl(), Loss::alpha_beta(0.7, 0.0).unwrap()][n % 2].clone();
            let grouping = if n % 3 == 0 { Grouping::Block } else { Grouping::Grouped };
            let all = |o: Observations| o;
            let job = job_on(&values(shape), model, ranks, loss, grouping, u64::MAX, all);
            let mut job = penalized_job(started(job), n);
            // Scales far apart, and a slice of zeros.
            for (l, factor) in job.start.iter_mut().enumerate() {
                let by = [30.0, 1.0, 0.02, 5.0][(l + n) % 4];
                factor.mapv_inplace(|x| x * by);
            }
            if job.start.len() > 1 && job.start[0].shape()[job.start[0].ndim() - 1] > 1 {
                let last = ndarray::Axis(job.start[0].ndim() - 1);
                job.start[0].index_axis_mut(last, 0).fill(0.0);
            }
            let compiled = compile(&job, gpu.limits(), &Tuning::default()).unwrap();
            let mut device = GpuEngine::placed(&gpu, job.clone(), compiled).unwrap();
            let mut cpu = CpuEngine::<f32>::new(job.clone()).unwrap();
            let near = |found: f64, expected: f64, tolerance: f64, what: &str| {
                assert!(
                    (found - expected).abs() <= tolerance * expected.abs(),
                    "{model}: {what} is {found:e}, not {expected:e}"
                );
            };
            let sums = |engine: &mut dyn Engine| {
                engine.pass(0).unwrap();
                let sums = engine.sums().unwrap()[0];
                (sums, engine.scale_terms().unwrap())
            };
            let (first, terms) = sums(&mut device);
            let (expected, expected_terms) = sums(&mut cpu);
            near(first.penalty, expected.penalty, 1e-6, "the penalty");
            for (found, expected) in terms.into_iter().zip(expected_terms) {
                near(found, expected, 1e-5, "what the pass says about the scale");
            }
            let before = device.factors().unwrap();
            device.balance().unwrap();
            cpu.balance().unwrap();
            let (found, expected) = (device.factors().unwrap(), cpu.factors().unwrap());
            let shapes = job.plan.shapes();
            let apart = |found: &ArrayD<f64>, expected: &ArrayD<f64>| {
                let most = expected.iter().copied().fold(0.0, f64::max);
                let pairs = found.iter().zip(expected);
                pairs.fold(0.0, |m: f64, (f, e)| m.max((f - e).abs())) / most
            };
            let moved = apart(&predict(shapes, &found), &predict(shapes, &before));
            assert!(moved <= 1e-5, "{model}: the prediction moves by {moved:.1e}");
            for (l, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let apart = apart(found, expected);
                assert!(apart <= 1e-4, "{model}: factor {l} is {apart:.1e} apart");
            }
            let (after, expected) = (sums(&mut device).0, sums(&mut cpu).0);
            near(after.penalty, expected.penalty, 1e-5, "the penalty afterwards");
            assert!(after.penalty <= first.penalty * (1.0 + 1e-6), "{model}: the penalty rises");
        }
    }
}
