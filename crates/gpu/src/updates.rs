//! What happens to factors between passes, as commands: updates, extrapolation, floors.

use std::ops::Range;

use super::contract::View;
use super::penalties::penalized;
use super::program::{Compiler, sums_letters};
use super::recording::{Access, Command, Dispatch, Recording, RecordingId, Shader, Window};
use nneinfact_core::engine::Constraint;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{Loss, Majorizer};

impl Compiler<'_> {
    /// The update of a group from the sums of its pass: docs/method.md.
    pub(super) fn update(&mut self, group: usize) -> Result<RecordingId> {
        let plan = self.plan;
        let members = plan.groups()[group].factors.clone();
        let target = sums_letters(plan, group);
        let volume: usize = self.shapes.sizes(target).iter().product();
        let single = members.len() == 1;
        let majorizer = self.job.loss.majorizer();
        let mut recording = Recording { label: format!("update {group}"), commands: Vec::new() };
        let commands = &mut recording.commands;
        if !single {
            for run in neighbours(&members) {
                self.begin_factors(commands, run);
            }
        }
        let cycles = if single { 1 } else { self.job.guards.inner_cycles };
        for _ in 0..cycles {
            for (at, &l) in members.iter().enumerate() {
                let others: Vec<usize> = members.iter().copied().filter(|&m| m != l).collect();
                let contraction = &plan.groups()[group].updates[at];
                let sums = |half: usize, paired: bool| View {
                    buffer: self.sums,
                    base: half * volume,
                    letters: target.to_vec(),
                    half: paired.then_some(volume),
                };
                let size = self.places[l + 1] - self.places[l];
                let mut inputs = vec![sums(0, true)];
                inputs.extend(others.iter().map(|&m| self.factor(m, self.powers, 0, true)));
                let letters = self.shapes.model().factors()[l].clone();
                let out = View {
                    buffer: self.quotients,
                    base: 0,
                    letters: letters.clone(),
                    half: Some(size),
                };
                let denominators = sums(1, false);
                self.contract(commands, contraction, &inputs, &out, 1.0, false)?;
                if majorizer == Majorizer::Log {
                    for i in 0..others.len() {
                        let mut inputs = vec![denominators.clone()];
                        inputs.extend(others.iter().enumerate().map(|(j, &m)| {
                            self.factor(m, self.powers, if i == j { 2 } else { 0 }, false)
                        }));
                        let out = View {
                            buffer: self.quotients,
                            base: 0,
                            letters: letters.clone(),
                            half: None,
                        };
                        self.contract(commands, contraction, &inputs, &out, -1.0, true)?;
                    }
                }
                let rule = self.rules[l];
                let shader = self.shader(step(&self.job.loss, &rule, single)?);
                let (fold, numbers) = self.each_entry(l..l + 1);
                let mut bindings = vec![
                    numbers,
                    self.whole(self.quotients),
                    self.whole(self.factors),
                    self.whole(self.lambda),
                ];
                if !single {
                    bindings.push(self.whole(self.powers));
                }
                if is_bound(&rule) {
                    bindings.push(self.rule_window(l));
                }
                commands.push(Command::Dispatch(Dispatch {
                    shader,
                    bindings,
                    workgroups: fold,
                    work: 20.0 * size as f64,
                }));
            }
        }
        self.apply_all(commands, &members, Change::Multiply)?;
        Ok(self.record(recording))
    }

    /// A thread for each entry of neighbouring factors: workgroups, and the numbers of begin.wgsl and
    /// step.wgsl.
    fn each_entry(&mut self, factors: Range<usize>) -> ([u32; 3], Window) {
        let size = self.places[factors.end] - self.places[factors.start];
        let parameters = self.places[self.places.len() - 1];
        let fold = self.fold(size.div_ceil(64));
        let first = self.places[factors.start];
        let words = [first, size, fold[0] as usize, parameters].map(|n| n as u32);
        (fold, self.words(&words))
    }

    fn begin_factors(&mut self, commands: &mut Vec<Command>, factors: Range<usize>) {
        let size = self.places[factors.end] - self.places[factors.start];
        let (fold, numbers) = self.each_entry(factors);
        let shader = self.shader(Shader {
            label: "begin".into(),
            source: nneinfact_shaders::BEGIN.into(),
            bindings: vec![Access::Uniform, Access::Read, Access::ReadWrite, Access::ReadWrite],
            invocations: 64,
            workgroup_bytes: 0,
        });
        commands.push(Command::Dispatch(Dispatch {
            shader,
            bindings: vec![
                numbers,
                self.whole(self.factors),
                self.whole(self.lambda),
                self.whole(self.powers),
            ],
            workgroups: fold,
            work: size as f64,
        }));
    }

    /// Changes factors, and brings them above their floors and between their bounds. Those that are
    /// small, and have no bounds, in one dispatch: a workgroup each.
    fn apply_all(
        &mut self,
        commands: &mut Vec<Command>,
        factors: &[usize],
        change: Change,
    ) -> Result<()> {
        let threads = self.limits.most_threads(1024);
        let sizes: Vec<usize> = self.places.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let (small, others): (Vec<usize>, Vec<usize>) = factors
            .iter()
            .partition(|&&l| self.rules[l].is_unbounded() && sizes[l] <= ALONE * threads as usize);
        let most = self.limits.workgroups as usize;
        for small in small.chunks(SMALL.min(most)) {
            let (floor, least) = self.least_entries();
            let mut numbers = vec![floor.to_bits(), least.to_bits(), 0, 0];
            for &l in small {
                numbers.extend([self.places[l] as u32, sizes[l] as u32, l as u32, 0]);
            }
            numbers.resize(4 * (SMALL + 1), 0);
            let shader = self.shader(change.whole_shader(threads)?);
            let numbers = self.words(&numbers);
            let bindings = self.changed(change, numbers, false);
            commands.push(Command::Dispatch(Dispatch {
                shader,
                bindings,
                workgroups: [small.len() as u32, 1, 1],
                work: 5.0 * small.iter().map(|&l| sizes[l]).sum::<usize>() as f64,
            }));
        }
        others.iter().try_for_each(|&l| self.apply(commands, l, change))
    }

    /// The least entries of factors: as a fraction of their largest, and in any case.
    fn least_entries(&self) -> (f32, f32) {
        let floor = self.job.guards.factor_floor;
        (floor as f32, if floor > 0.0 { 1e-37 } else { 0.0 })
    }

    /// What the shader of a change binds: `largest` where it leaves the largest entries there.
    fn changed(&self, change: Change, numbers: Window, largest: bool) -> Vec<Window> {
        let mut bindings = vec![numbers, self.whole(self.factors)];
        match change {
            Change::Multiply => bindings.push(self.whole(self.lambda)),
            Change::Extrapolate | Change::Nothing => bindings.push(self.whole(self.plain)),
        }
        bindings.extend(largest.then(|| self.whole(self.largest)));
        bindings.push(self.whole(self.broken));
        if change == Change::Extrapolate {
            bindings.extend([self.whole(self.weights), self.whole(self.origin)]);
        }
        bindings
    }

    /// Changes a factor, and brings it above its floor and between its bounds.
    fn apply(&mut self, commands: &mut Vec<Command>, l: usize, change: Change) -> Result<()> {
        self.change(commands, l, change)?;
        self.raise(commands, l, Raise::Up)
    }

    /// Takes the entries of a factor that stand at its floor for 0.
    pub(super) fn sink(&mut self, commands: &mut Vec<Command>, l: usize) -> Result<()> {
        if self.job.guards.factor_floor > 0.0 {
            self.change(commands, l, Change::Nothing)?;
            self.raise(commands, l, Raise::ToZero)?;
        }
        Ok(())
    }

    /// Raises a factor to its floor.
    pub(super) fn settle(&mut self, commands: &mut Vec<Command>, l: usize) -> Result<()> {
        self.apply(commands, l, Change::Nothing)
    }

    /// Changes a factor and finds its largest entry.
    fn change(&mut self, commands: &mut Vec<Command>, l: usize, change: Change) -> Result<()> {
        let size = self.places[l + 1] - self.places[l];
        let chunks = size.div_ceil(1024);
        let numbers = self.words(&[
            self.places[l] as u32,
            size as u32,
            self.largest_places[l] as u32,
            l as u32,
        ]);
        let shader = self.shader(change.shader()?);
        let bindings = self.changed(change, numbers, true);
        let x = chunks.min(32_768).min(self.limits.workgroups as usize);
        if x < 32_768 && chunks > x {
            return Err(Error::Device(
                "the device allows fewer than 32,768 workgroups in a dimension".into(),
            ));
        }
        commands.push(Command::Dispatch(Dispatch {
            shader,
            bindings,
            workgroups: [x as u32, chunks.div_ceil(x) as u32, 1],
            work: 4.0 * size as f64,
        }));
        Ok(())
    }

    /// What entries below the floor of a factor become, its largest being known.
    fn raise(&mut self, commands: &mut Vec<Command>, l: usize, raise: Raise) -> Result<()> {
        let rule = self.rules[l];
        let floor = self.job.guards.factor_floor;
        let bounded = !rule.is_unbounded();
        if floor <= 0.0 && !bounded {
            return Ok(());
        }
        let size = self.places[l + 1] - self.places[l];
        let fold = self.fold(size.div_ceil(64));
        let (fraction, least) = self.least_entries();
        let numbers = self.words(&[
            self.places[l] as u32,
            size as u32,
            self.largest_places[l] as u32,
            size.div_ceil(1024) as u32,
            fold[0],
            fraction.to_bits(),
            least.to_bits(),
            0,
        ]);
        let value = match (raise, bounded) {
            (Raise::Up, false) => "factors[at] = max(factors[at], least);",
            (Raise::Up, true) => "factors[at] = min(max(factors[at], max(least, rule.y)), rule.z);",
            (Raise::ToZero, _) => "if factors[at] <= least {\n    factors[at] = 0.0;\n}",
        };
        let bounds = bounded && raise == Raise::Up;
        let mut accesses = vec![Access::Uniform, Access::ReadWrite, Access::Read];
        let mut bindings = vec![numbers, self.whole(self.factors), self.whole(self.largest)];
        if bounds {
            accesses.push(Access::Uniform);
            bindings.push(self.rule_window(l));
        }
        let shader = self.shader(Shader {
            label: if raise == Raise::Up { "raise".into() } else { "sink".into() },
            source: super::text::fill(
                nneinfact_shaders::RAISE,
                &[("value", value.into()), ("rule", rule_binding(bounds, 3))],
            )?,
            bindings: accesses,
            invocations: 64,
            workgroup_bytes: 256,
        });
        commands.push(Command::Dispatch(Dispatch {
            shader,
            bindings,
            workgroups: fold,
            work: size as f64,
        }));
        Ok(())
    }

    /// The factors that are not fixed.
    fn free(&self) -> Vec<usize> {
        (0..self.rules.len()).filter(|&l| !self.rules[l].fixed).collect()
    }

    pub(super) fn begin(&mut self) -> Result<RecordingId> {
        let mut recording = Recording { label: "begin".into(), commands: Vec::new() };
        let free = self.free();
        self.apply_all(&mut recording.commands, &free, Change::Nothing)?;
        Ok(self.record(recording))
    }

    pub(super) fn extrapolate(&mut self) -> Result<RecordingId> {
        let mut recording = Recording { label: "extrapolate".into(), commands: Vec::new() };
        let free = self.free();
        self.apply_all(&mut recording.commands, &free, Change::Extrapolate)?;
        recording.commands.push(self.copied(self.factors, self.origin));
        Ok(self.record(recording))
    }
}

/// The largest number of entries, per thread of its workgroup, of a factor that one workgroup changes:
/// more workgroups, and a dispatch more, are faster above.
const ALONE: usize = 8;
/// Factors that one dispatch changes: with what they share, 256 bytes of numbers.
const SMALL: usize = 15;

/// Runs of neighbouring factors among some in order.
fn neighbours(factors: &[usize]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for &l in factors {
        match runs.last_mut() {
            Some(run) if run.end == l => run.end += 1,
            _ => runs.push(l..l + 1),
        }
    }
    runs
}

/// What happens to a factor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Multiply,
    Extrapolate,
    Nothing,
}

/// What happens to the entries of a factor that are not above its floor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Raise {
    Up,
    ToZero,
}

impl Change {
    /// The new `value` of entry `at`, as statements.
    fn value(self) -> &'static str {
        match self {
            Change::Multiply => "let value = factors[at] * other[at];",
            Change::Nothing => "let value = factors[at];",
            Change::Extrapolate => {
                "// In log space: P * (P / C)^momentum * (P / X)^relaxation, where C is the plain result\n\
                 // before P, and X where the sweep began.\n\
                 let before = other[at];\n\
                 var value = factors[at];\n\
                 other[at] = value;\n\
                 let begun = origin[at];\n\
                 if value > 0.0 && before > 0.0 && begun > 0.0 {\n\
                 \x20   let moved = value * pow(value / before, weights.x) * pow(value / begun, weights.y);\n\
                 \x20   if (bitcast<u32>(moved) & 0x7f800000u) != 0x7f800000u {\n\
                 \x20       value = moved;\n\
                 \x20   }\n\
                 }"
            }
        }
    }

    /// A shader from a template whose own bindings are these.
    fn fill(
        self,
        template: &str,
        mut bindings: Vec<Access>,
        threads: u32,
        words: &[(&str, String)],
    ) -> Result<Shader> {
        let mut template = template.to_string();
        let mut more = String::new();
        if self == Change::Extrapolate {
            let next = bindings.len();
            bindings[2] = Access::ReadWrite;
            bindings.extend([Access::Uniform, Access::Read]);
            template =
                template.replace("var<storage, read> other", "var<storage, read_write> other");
            more = format!(
                "@group(0) @binding({next}) var<uniform> weights: vec4<f32>;\n\
                 @group(0) @binding({}) var<storage, read> origin: array<f32>;",
                next + 1
            );
        }
        let mut words = words.to_vec();
        words.extend([("new_value", self.value().to_string()), ("more", more)]);
        Ok(Shader {
            label: match self {
                Change::Multiply => "apply".into(),
                Change::Extrapolate => "extrapolate".into(),
                Change::Nothing => "largest".into(),
            },
            source: super::text::fill(&template, &words)?,
            bindings,
            invocations: threads,
            workgroup_bytes: 4 * threads,
        })
    }

    /// A workgroup for every 1024 entries of a factor; what is largest remains to be found.
    fn shader(self) -> Result<Shader> {
        let access = [
            Access::Uniform,
            Access::ReadWrite,
            Access::Read,
            Access::ReadWrite,
            Access::ReadWrite,
        ];
        self.fill(nneinfact_shaders::APPLY, access.to_vec(), 64, &[])
    }

    /// A workgroup for every factor.
    fn whole_shader(self, threads: u32) -> Result<Shader> {
        let access = [Access::Uniform, Access::ReadWrite, Access::Read, Access::ReadWrite];
        let words = [("threads", format!("{threads}u")), ("vectors", format!("{}u", SMALL + 1))];
        let shader = self.fill(nneinfact_shaders::APPLY_WHOLE, access.to_vec(), threads, &words)?;
        Ok(Shader { label: format!("{} and raise", shader.label), ..shader })
    }
}

/// `base` to a constant power, as text.
pub(super) fn power(base: &str, exponent: f64) -> String {
    match exponent {
        0.0 => "1.0".into(),
        1.0 => base.into(),
        2.0 => format!("({base} * {base})"),
        0.5 => format!("sqrt({base})"),
        -1.0 => format!("(1.0 / {base})"),
        p => format!("pow({base}, {:?})", p as f32),
    }
}

/// Whether a step has to know the rule of its factor.
fn is_bound(rule: &Constraint) -> bool {
    rule.penalty.is_some() || !rule.is_unbounded()
}

/// The text that declares what a shader reads of a rule.
fn rule_binding(given: bool, binding: usize) -> String {
    match given {
        true => format!(
            "// What makes the pull of the penalty, then the least and the most that an entry may be.\n\
             @group(0) @binding({binding}) var<uniform> rule: vec4<f32>;"
        ),
        false => String::new(),
    }
}

/// The shader of a step of the update.
pub(super) fn step(loss: &Loss, rule: &Constraint, single: bool) -> Result<Shader> {
    let majorizer = loss.majorizer();
    let finish = match single {
        true => {
            "// Only what is not finite is brought back to the interval.\n\
             if (bitcast<u32>(moved) & 0x7f800000u) != 0x7f800000u {\n    change = moved;\n} else {\n    change = MOST;\n}"
        }
        false => "change = clamp(moved, LEAST, MOST);",
    };
    let indent = |text: &str| -> String { text.lines().map(|l| format!("    {l}\n")).collect() };
    let mut change = match (rule.penalty, majorizer) {
        (Some(penalty), _) => penalized(majorizer, loss.curvature_constant(), penalty, finish),
        (None, Majorizer::Power { .. }) => {
            let gamma = majorizer.gamma().unwrap_or(1.0);
            let (at_zero, at_infinity) =
                if gamma > 0.0 { ("0.0", "MOST") } else { ("MOST", "0.0") };
            let mut text =
                "// Where no observed entry touches the factor's entry, both are 0.\n".to_string();
            text += "if a > 0.0 || b > 0.0 {\n";
            text += &format!("    var moved = {at_zero};\n");
            text += &format!(
                "    if b <= 0.0 {{\n        moved = {at_infinity};\n    }} else if a > 0.0 {{\n"
            );
            text += &format!(
                "        let quotient = a / b;\n        moved = {};\n    }}\n",
                power("quotient", gamma)
            );
            text + &indent(finish) + "}"
        }
        (None, Majorizer::Log) => {
            let mut text =
                "if b != 0.0 {\n    let moved = exp(clamp(a / b, -80.0, 80.0));\n".to_string();
            text += &indent(finish);
            text + "}"
        }
    };
    if rule.lower > 0.0 {
        change += "\nif factors[at] * change < rule.y {\n    change = rule.y / factors[at];\n}";
    }
    if rule.upper.is_finite() {
        change += "\nif factors[at] * change > rule.z {\n    change = rule.z / factors[at];\n}";
    }
    let powers = match (single, majorizer) {
        (true, _) => String::new(),
        (false, Majorizer::Power { p_a, p_b }) => {
            let power = |p: f64| match 1.0 + p {
                0.0 => "x".to_string(),
                e => format!("x * {}", power("change", e)),
            };
            format!(
                "let x = factors[at];\npowers[at] = {};\npowers[at + numbers.w] = {};",
                power(p_a),
                power(p_b)
            )
        }
        (false, Majorizer::Log) => "let x = factors[at] * change;\n\
             powers[at] = x;\n\
             powers[at + numbers.w] = x;\n\
             powers[at + 2u * numbers.w] = x * log(change);"
            .into(),
    };
    let mut template = nneinfact_shaders::STEP.to_string();
    let mut bindings = vec![Access::Uniform, Access::Read, Access::Read, Access::ReadWrite];
    if single {
        template = template
            .replace("@group(0) @binding(4) var<storage, read_write> powers: array<f32>;\n", "");
    } else {
        bindings.push(Access::ReadWrite);
    }
    let declared = rule_binding(is_bound(rule), bindings.len());
    if is_bound(rule) {
        bindings.push(Access::Uniform);
    }
    let words = [("change", change), ("powers", powers), ("rule", declared)];
    Ok(Shader {
        label: "step".into(),
        source: super::text::fill(&template, &words)?,
        bindings,
        invocations: 64,
        workgroup_bytes: 0,
    })
}
