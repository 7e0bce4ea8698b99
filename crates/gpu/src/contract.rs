//! Small contractions as dispatches of `contract.wgsl` and `contract_shared.wgsl`.

use super::program::Compiler;
use super::recording::{Access, BufferId, Command, Dispatch, GpuLimits, Shader};
use super::text::fill;
use nneinfact_core::error::Result;
use nneinfact_core::model::{Index, IndexSet, Shapes};
use nneinfact_core::plan::{Contraction, ContractionInput};

/// A tensor in a buffer, or two of the same letters.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub buffer: BufferId,
    /// Where it begins, in elements.
    pub base: usize,
    /// Its letters, in its order in memory.
    pub letters: Vec<Index>,
    /// The distance to the second tensor, if there are two: that of the denominator.
    pub half: Option<usize>,
}

/// A loop of a contraction: how long, and the stride in each tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    pub size: usize,
    pub out: usize,
    pub a: usize,
    pub b: usize,
}

/// Terms that a thread adds up one after another, at least, before others share its output: each costs
/// it the time of a read.
const TERMS: usize = 4;
/// With this many threads a device is busy.
const MANY: usize = 1 << 18;
/// Threads of a workgroup, and the most that share an output where the device allows it.
const THREADS: usize = 64;
const LANES: usize = 256;

/// How many threads share an output.
fn lanes(outputs: usize, terms: usize, limits: &GpuLimits) -> usize {
    let most = limits.most_threads(LANES as u32) as usize;
    let wanted = (terms / TERMS).min(MANY / outputs.max(1)).clamp(1, most);
    1 << wanted.ilog2()
}

/// A tensor with letters that neither the other one nor the output has is summed over them first
/// where that saves at least this many terms: a dispatch more for long sums that are short then.
const APART: usize = 1 << 16;

/// The steps of a contraction, the last of which writes to `out`.
#[allow(clippy::too_many_arguments)]
pub(super) fn steps(
    compiler: &mut Compiler<'_>,
    commands: &mut Vec<Command>,
    shapes: &Shapes,
    contraction: &Contraction,
    inputs: &[View],
    out: &View,
    scale: f32,
    add: bool,
) -> Result<()> {
    let mut results: Vec<View> = Vec::new();
    let last = contraction.steps().len().wrapping_sub(1);
    for (i, step) in contraction.steps().iter().enumerate() {
        let get = |slot: ContractionInput| match slot {
            ContractionInput::Input(i) => inputs[i].clone(),
            ContractionInput::Step(i) => results[i].clone(),
        };
        let (left, right) = (get(step.left), get(step.right));
        let spare = contraction.steps().len() + 2 * i;
        let (l, r) = (left.clone(), right.clone());
        let letters = if i == last { &out.letters } else { &step.indices };
        let left = alone(compiler, commands, shapes, l, &right, letters, spare)?;
        let right = alone(compiler, commands, shapes, r, &left, letters, spare + 1)?;
        if i == last {
            return pair(compiler, commands, shapes, Some(&left), Some(&right), out, scale, add);
        }
        let volume: usize = shapes.sizes(&step.indices).iter().product();
        let paired = left.half.is_some() || right.half.is_some();
        let words = if paired { 2 * volume } else { volume };
        let result = View {
            buffer: compiler.temporary(i, words),
            base: 0,
            letters: step.indices.clone(),
            half: paired.then_some(volume),
        };
        pair(compiler, commands, shapes, Some(&left), Some(&right), &result, 1.0, false)?;
        results.push(result);
    }
    pair(compiler, commands, shapes, inputs.first(), None, out, scale, add)
}

/// A tensor summed over the letters that it alone has, in a temporary; or as it is.
fn alone(
    compiler: &mut Compiler<'_>,
    commands: &mut Vec<Command>,
    shapes: &Shapes,
    view: View,
    other: &View,
    output: &[Index],
    temporary: usize,
) -> Result<View> {
    let kept: Vec<Index> = view
        .letters
        .iter()
        .copied()
        .filter(|x| output.contains(x) || other.letters.contains(x))
        .collect();
    let all: IndexSet = view.letters.iter().chain(&other.letters).collect();
    let left: IndexSet = kept.iter().chain(&other.letters).collect();
    // In floating point: the letters of both may number more than fits an integer.
    let saved = shapes.volume(all) - shapes.volume(left);
    if kept.len() == view.letters.len() || saved < APART as f64 {
        return Ok(view);
    }
    let volume: usize = shapes.sizes(&kept).iter().product();
    let words = if view.half.is_some() { 2 * volume } else { volume };
    let result = View {
        buffer: compiler.temporary(temporary, words),
        base: 0,
        letters: kept,
        half: view.half.map(|_| volume),
    };
    pair(compiler, commands, shapes, Some(&view), None, &result, 1.0, false)?;
    Ok(result)
}

/// Adds a multiple of a tensor to another one, repeated along the letters that it does not have.
pub(super) fn repeat(
    compiler: &mut Compiler<'_>,
    commands: &mut Vec<Command>,
    from: &View,
    out: &View,
    scale: f32,
) -> Result<()> {
    pair(compiler, commands, compiler.shapes, Some(from), None, out, scale, true)
}

/// `out = Σ a · b` over the letters that `out` lacks.
#[allow(clippy::too_many_arguments)]
fn pair(
    compiler: &mut Compiler<'_>,
    commands: &mut Vec<Command>,
    shapes: &Shapes,
    a: Option<&View>,
    b: Option<&View>,
    out: &View,
    scale: f32,
    add: bool,
) -> Result<()> {
    let stride = |view: Option<&View>, x: Index| {
        view.map_or(0, |v| super::geometry::stride(shapes, &v.letters, x))
    };
    let axis = |x: Index| Axis {
        size: shapes.size(x),
        out: stride(Some(out), x),
        a: stride(a, x),
        b: stride(b, x),
    };
    let mut outputs: Vec<Axis> = out.letters.iter().map(|&x| axis(x)).collect();
    if let Some(half) = out.half {
        let of = |view: Option<&View>| view.and_then(|v| v.half).unwrap_or(0);
        outputs.push(Axis { size: 2, out: half, a: of(a), b: of(b) });
    }
    let kept: IndexSet = out.letters.iter().collect();
    let read: IndexSet = [a, b].into_iter().flatten().flat_map(|v| &v.letters).collect();
    let terms: Vec<Axis> = (read - kept).iter().map(axis).collect();
    let place = |view: Option<&View>| view.map(|v| (v.buffer, v.base));
    compiler.contraction(
        commands,
        outputs,
        terms,
        place(a),
        place(b),
        (out.buffer, out.base),
        scale,
        add,
    )
}

/// Joins neighbouring axes that are one loop in all tensors, the slowest first.
fn join(mut axes: Vec<Axis>, key: impl Fn(&Axis) -> (usize, usize, usize)) -> Vec<Axis> {
    axes.retain(|a| a.size != 1);
    axes.sort_by_key(|a| std::cmp::Reverse(key(a)));
    let mut joined: Vec<Axis> = Vec::new();
    for axis in axes {
        match joined.last_mut() {
            Some(slow)
                if slow.out == axis.out * axis.size
                    && slow.a == axis.a * axis.size
                    && slow.b == axis.b * axis.size =>
            {
                *slow = Axis { size: slow.size * axis.size, ..axis };
            }
            _ => joined.push(axis),
        }
    }
    joined
}

impl Compiler<'_> {
    /// Emits one contraction.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn contraction(
        &mut self,
        commands: &mut Vec<Command>,
        outputs: Vec<Axis>,
        terms: Vec<Axis>,
        a: Option<(BufferId, usize)>,
        b: Option<(BufferId, usize)>,
        out: (BufferId, usize),
        scale: f32,
        add: bool,
    ) -> Result<()> {
        let outputs = join(outputs, |x| (x.out, x.a, x.b));
        let mut terms = join(terms, |x| (x.a.max(x.b), x.a, x.b));
        let count: usize = outputs.iter().map(|x| x.size).product();
        let length: usize = terms.iter().map(|x| x.size).product();
        let lanes = lanes(count, length, self.limits);
        let threads = THREADS.max(lanes);
        let run = match lanes {
            1 => terms.pop().unwrap_or(Axis { size: 1, out: 0, a: 0, b: 0 }),
            _ => Axis { size: 1, out: 0, a: 0, b: 0 },
        };
        let loops: usize = terms.iter().map(|x| x.size).product();
        let workgroups = count.div_ceil(threads / lanes);
        let fold = self.fold(workgroups);
        let mut numbers = vec![
            count as u32,
            outputs.len() as u32,
            terms.len() as u32,
            loops as u32,
            out.1 as u32,
            a.map_or(0, |a| a.1) as u32,
            b.map_or(0, |b| b.1) as u32,
            scale.to_bits(),
            fold[0],
            run.size as u32,
            run.a as u32,
            run.b as u32,
        ];
        for axis in outputs.iter().chain(&terms) {
            numbers.extend([axis.size, axis.out, axis.a, axis.b].map(|n| n as u32));
        }
        let axes = (outputs.len() + terms.len()).next_multiple_of(16).max(16);
        numbers.resize(4 * (axes + 3), 0);
        let window = self.words(&numbers);
        let shader = self.shader(shader(
            lanes,
            usize::from(a.is_some()) + usize::from(b.is_some()),
            add,
            axes,
        )?);
        // A constant reads nothing, but the shader has the binding.
        let first = a.map_or(self.factors, |a| a.0);
        let mut bindings = vec![window, self.whole(first)];
        bindings.extend(b.map(|b| self.whole(b.0)));
        bindings.push(self.whole(out.0));
        commands.push(Command::Dispatch(Dispatch {
            shader,
            bindings,
            workgroups: fold,
            work: 2.0 * (count * length) as f64,
        }));
        Ok(())
    }
}

fn shader(lanes: usize, inputs: usize, add: bool, axes: usize) -> Result<Shader> {
    let template = match lanes {
        1 => nneinfact_shaders::CONTRACT,
        _ => nneinfact_shaders::CONTRACT_SHARED,
    };
    let second = match inputs {
        2 => "@group(0) @binding(2) var<storage, read> b: array<f32>;",
        _ => "",
    };
    let term = match inputs {
        0 => "sum += 1.0;",
        1 => "sum += a[place.x];",
        _ => "sum = fma(a[place.x], b[place.y], sum);",
    };
    let op = if add { "+=" } else { "=" };
    let mut words = vec![
        ("axes", format!("{axes}u")),
        ("second", second.into()),
        ("out", if inputs == 2 { "3" } else { "2" }.into()),
        ("term", term.into()),
        ("store", format!("out[at.x] {op} bitcast<f32>(numbers[1].w) * total;")),
    ];
    let threads = THREADS.max(lanes);
    if lanes > 1 {
        words.push(("lanes", format!("{lanes}u")));
        words.push(("threads", format!("{threads}u")));
    }
    let mut bindings = vec![Access::Uniform, Access::Read];
    if inputs == 2 {
        bindings.push(Access::Read);
    }
    bindings.push(Access::ReadWrite);
    Ok(Shader {
        label: format!("contraction{}", if lanes > 1 { " of shared sums" } else { "" }),
        source: fill(template, &words)?,
        bindings,
        invocations: threads as u32,
        workgroup_bytes: if lanes > 1 { 4 * threads as u32 } else { 0 },
    })
}
