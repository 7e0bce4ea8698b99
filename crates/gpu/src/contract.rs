//! Small contractions as dispatches of `contract.wgsl` and `contract_shared.wgsl`.

use crate::joint::operations::ContractionParts;
use crate::program::compiler::Compiler;
use crate::program::products::{FreshProducts, ProductKey};
use crate::program::recording::{
    Access, Binding, BufferId, Command, Dispatch, DispatchKind, GpuLimits, Shader,
};
use crate::program::template::fill;
use crate::program::views::{TensorView, stride};
use nneinfact_core::error::Result;
use nneinfact_core::model::{Index, IndexSet, Shapes};
use nneinfact_core::plan::{Contraction, ContractionInput};

/// A loop of a contraction: how long, and the stride in each tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoopAxis {
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

/// A tensor with indices that neither the other one nor the output has is summed over them first
/// where that saves at least this many terms: a dispatch more for long sums that are short then.
const APART: usize = 1 << 16;

impl Compiler<'_> {
    /// Forms a product that the passes of a group read, where it is not there yet; returns where it
    /// begins. `fresh` has those that are up to date.
    pub(crate) fn product(
        &mut self,
        commands: &mut Vec<Command>,
        group: usize,
        key: ProductKey,
        contraction: &Contraction,
        fresh: &mut FreshProducts,
    ) -> Result<usize> {
        let base = self.product_layout.place(self.plan, group, &key);
        if fresh.insert(key.clone()) || !self.product_layout.lasts() {
            let inputs: Vec<TensorView> = key.0.iter().map(|&l| self.factor(l)).collect();
            let out =
                TensorView { buffer: self.buffers.products, base, indices: key.1, half: None };
            self.contract(commands, contraction, &inputs, &out, 1.0, false)?;
        }
        Ok(base)
    }

    /// Emits a contraction of tensors of the model.
    pub(crate) fn contract(
        &mut self,
        commands: &mut Vec<Command>,
        contraction: &Contraction,
        inputs: &[TensorView],
        out: &TensorView,
        scale: f32,
        add: bool,
    ) -> Result<()> {
        self.contract_of(commands, self.shapes, contraction, inputs, out, scale, add)
    }

    /// Emits the steps of a contraction under other sizes, the last of which writes `scale` times the
    /// result to `out`, or adds it to what is there.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn contract_of(
        &mut self,
        commands: &mut Vec<Command>,
        shapes: &Shapes,
        contraction: &Contraction,
        inputs: &[TensorView],
        out: &TensorView,
        scale: f32,
        add: bool,
    ) -> Result<()> {
        let mut results: Vec<TensorView> = Vec::new();
        let last = contraction.steps().len().wrapping_sub(1);
        for (i, step) in contraction.steps().iter().enumerate() {
            let get = |input: ContractionInput| match input {
                ContractionInput::Input(i) => inputs[i].clone(),
                ContractionInput::Step(i) => results[i].clone(),
            };
            let (left, right) = (get(step.left), get(step.right));
            let spare = contraction.steps().len() + 2 * i;
            let (l, r) = (left.clone(), right.clone());
            let kept = if i == last { &out.indices } else { &step.indices };
            let left = self.summed_alone(commands, shapes, l, &right, kept, spare)?;
            let right = self.summed_alone(commands, shapes, r, &left, kept, spare + 1)?;
            let pair = [Some(&left), Some(&right)];
            if i == last {
                return self.contract_pair(commands, shapes, pair, out, scale, add);
            }
            let paired = left.half.is_some() || right.half.is_some();
            let indices = step.indices.clone();
            let result = self.step_view(shapes, i, &[&left, &right], indices, paired);
            self.contract_pair(commands, shapes, pair, &result, 1.0, false)?;
            results.push(result);
        }
        self.contract_pair(commands, shapes, [inputs.first(), None], out, scale, add)
    }

    /// A tensor summed over the indices that it alone has, in a temporary; or as it is.
    fn summed_alone(
        &mut self,
        commands: &mut Vec<Command>,
        shapes: &Shapes,
        view: TensorView,
        other: &TensorView,
        output: &[Index],
        temporary: usize,
    ) -> Result<TensorView> {
        let kept: Vec<Index> = view
            .indices
            .iter()
            .copied()
            .filter(|x| output.contains(x) || other.indices.contains(x))
            .collect();
        let all: IndexSet = view.indices.iter().chain(&other.indices).collect();
        let left: IndexSet = kept.iter().chain(&other.indices).collect();
        // In floating point: the values of the indices of both may number more than fits an integer.
        let saved = shapes.volume(all) - shapes.volume(left);
        if kept.len() == view.indices.len() || saved < APART as f64 {
            return Ok(view);
        }
        let paired = view.half.is_some();
        let result = self.step_view(shapes, temporary, &[&view], kept, paired);
        self.contract_pair(commands, shapes, [Some(&view), None], &result, 1.0, false)?;
        Ok(result)
    }

    /// Adds a multiple of a tensor to another one, or takes it for the other one, repeated along the
    /// indices that it does not have.
    pub(crate) fn repeated(
        &mut self,
        commands: &mut Vec<Command>,
        from: &TensorView,
        out: &TensorView,
        scale: f32,
        add: bool,
    ) -> Result<()> {
        self.contract_pair(commands, self.shapes, [Some(from), None], out, scale, add)
    }

    /// `out = Σ a · b` over the indices that `out` lacks.
    pub(crate) fn contract_pair(
        &mut self,
        commands: &mut Vec<Command>,
        shapes: &Shapes,
        [a, b]: [Option<&TensorView>; 2],
        out: &TensorView,
        scale: f32,
        add: bool,
    ) -> Result<()> {
        let stride_of =
            |view: Option<&TensorView>, x: Index| view.map_or(0, |v| stride(shapes, &v.indices, x));
        let axis = |x: Index| LoopAxis {
            size: shapes.size(x),
            out: stride_of(Some(out), x),
            a: stride_of(a, x),
            b: stride_of(b, x),
        };
        let mut outputs: Vec<LoopAxis> = out.indices.iter().map(|&x| axis(x)).collect();
        if let Some(half) = out.half {
            let of = |view: Option<&TensorView>| view.and_then(|v| v.half).unwrap_or(0);
            outputs.push(LoopAxis { size: 2, out: half, a: of(a), b: of(b) });
        }
        let kept: IndexSet = out.indices.iter().collect();
        let read: IndexSet = [a, b].into_iter().flatten().flat_map(|v| &v.indices).collect();
        let terms: Vec<LoopAxis> = (read - kept).iter().map(axis).collect();
        let place = |view: Option<&TensorView>| view.map(|v| (v.buffer, v.base));
        let to = (out.buffer, out.base);
        self.contraction(commands, outputs, terms, place(a), place(b), to, scale, add)
    }

    /// Emits one contraction.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn contraction(
        &mut self,
        commands: &mut Vec<Command>,
        outputs: Vec<LoopAxis>,
        terms: Vec<LoopAxis>,
        a: Option<(BufferId, usize)>,
        b: Option<(BufferId, usize)>,
        out: (BufferId, usize),
        scale: f32,
        add: bool,
    ) -> Result<()> {
        let outputs = sorted(outputs, |x| (x.out, x.a, x.b));
        // It mostly tells numerator from denominator.
        let paired = outputs.first().is_some_and(|x| x.size == 2);
        let reached = (outputs.clone(), terms.clone());
        let outputs = joined(outputs);
        let mut terms = joined(sorted(terms, |x| (x.a.max(x.b), x.a, x.b)));
        let count: usize = outputs.iter().map(|x| x.size).product();
        let length: usize = terms.iter().map(|x| x.size).product();
        let lanes = lanes(count, length, self.limits);
        let threads = THREADS.max(lanes);
        let run = match lanes {
            1 => terms.pop().unwrap_or(LoopAxis { size: 1, out: 0, a: 0, b: 0 }),
            _ => LoopAxis { size: 1, out: 0, a: 0, b: 0 },
        };
        let loops: usize = terms.iter().map(|x| x.size).product();
        let workgroups = count.div_ceil(threads / lanes);
        let fold = self.fold(workgroups);
        let mut words = vec![
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
            words.extend([axis.size, axis.out, axis.a, axis.b].map(|n| n as u32));
        }
        let operation = self.contraction_operation(&ContractionParts {
            outputs: &reached.0,
            terms: &reached.1,
            lanes,
            a,
            b,
            out,
            add,
            words: &words,
            count,
            length,
            paired,
        })?;
        let axes = (outputs.len() + terms.len()).next_multiple_of(16).max(16);
        words.resize(4 * (axes + 3), 0);
        let uniforms = self.words(&words);
        let inputs = usize::from(a.is_some()) + usize::from(b.is_some());
        let shader = self.shader(shader(lanes, inputs, add, axes)?);
        // A constant reads nothing, but the shader has the binding.
        let first = a.map_or(self.buffers.factors, |a| a.0);
        let mut bindings = vec![uniforms, Binding::Whole(first)];
        bindings.extend(b.map(|b| Binding::Whole(b.0)));
        bindings.push(Binding::Whole(out.0));
        let dispatch = Command::Dispatch(Dispatch {
            shader,
            kind: DispatchKind::Small,
            bindings,
            workgroups: fold,
            work: 2.0 * (count * length) as f64,
        });
        commands.push(self.or_jointly(dispatch, vec![operation]));
        Ok(())
    }
}

/// The axes that are loops, the slowest first.
fn sorted(
    mut axes: Vec<LoopAxis>,
    key: impl Fn(&LoopAxis) -> (usize, usize, usize),
) -> Vec<LoopAxis> {
    axes.retain(|a| a.size != 1);
    axes.sort_by_key(|a| std::cmp::Reverse(key(a)));
    axes
}

/// Joins neighbouring axes that are one loop in all tensors, the slowest first.
fn joined(axes: Vec<LoopAxis>) -> Vec<LoopAxis> {
    let mut joined: Vec<LoopAxis> = Vec::new();
    for axis in axes {
        match joined.last_mut() {
            Some(slow)
                if slow.out == axis.out * axis.size
                    && slow.a == axis.a * axis.size
                    && slow.b == axis.b * axis.size =>
            {
                *slow = LoopAxis { size: slow.size * axis.size, ..axis };
            }
            _ => joined.push(axis),
        }
    }
    joined
}

/// The shader of a contraction with so many inputs, `lanes` threads for each output.
fn shader(lanes: usize, inputs: usize, add: bool, axes: usize) -> Result<Shader> {
    let shared = lanes > 1;
    let threads = THREADS.max(lanes);
    let flags = [
        ("two_inputs", inputs == 2),
        ("one_input", inputs == 1),
        ("no_input", inputs == 0),
        ("add", add),
    ];
    let mut words: Vec<(&str, String)> = vec![("axes", format!("{axes}u"))];
    words.extend(["a", "b", "out"].map(|name| (name, name.to_string())));
    let template = match shared {
        false => nneinfact_shaders::CONTRACT,
        true => {
            words.push(("lanes", format!("{lanes}u")));
            words.push(("threads", format!("{threads}u")));
            nneinfact_shaders::CONTRACT_SHARED
        }
    };
    let mut bindings = vec![Access::Uniform, Access::Read];
    if inputs == 2 {
        bindings.push(Access::Read);
    }
    bindings.push(Access::ReadWrite);
    Ok(Shader {
        label: format!("contraction{}", if shared { " of shared sums" } else { "" }),
        source: fill(template, &flags, &words)?,
        bindings,
        invocations: threads as u32,
        workgroup_bytes: if shared { 4 * threads as u32 } else { 0 },
    })
}
