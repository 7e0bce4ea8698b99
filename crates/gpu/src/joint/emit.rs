//! Shaders and programs of joint dispatches.
//!
//! Joint dispatches share shaders as far as these may see all buffers: fewer texts are compiled, and each
//! is what several dispatches run.

use std::fmt::Write as _;

use super::operation::{Element, Operation, OperationText, Seen};
use super::schedule::{Chain, Joint, JointLimits};
use crate::program::compiler::Compiler;
use crate::program::declarations::Declarations;
use crate::program::recording::{
    Access, Binding, BufferId, BufferKind, Command, Dispatch, DispatchKind, Shader, ShaderId,
};
use crate::program::template::{fill, indented};
use nneinfact_core::error::Result;

/// A shader in the making.
#[derive(Default)]
struct JointShader {
    texts: Vec<OperationText>,
    seen: Vec<Seen>,
}

impl JointShader {
    /// What it would see with these operations, too.
    fn with(&self, joint: &Joint) -> Vec<Seen> {
        let mut all = self.seen.clone();
        for seen in joint.operations().iter().flat_map(|operation| &operation.text.seen) {
            match all.iter_mut().find(|other| other.buffer == seen.buffer) {
                Some(other) if seen.access == Access::ReadWrite => other.access = seen.access,
                Some(_) => {}
                None => all.push(seen.clone()),
            }
        }
        all
    }

    fn add(&mut self, joint: &Joint) {
        self.seen = self.with(joint);
        for operation in joint.operations() {
            if !self.texts.contains(&operation.text) {
                self.texts.push(operation.text.clone());
            }
        }
    }

    /// The number of an operation's function.
    fn function(&self, operation: &Operation) -> usize {
        self.texts.iter().position(|text| *text == operation.text).unwrap_or(self.texts.len())
    }

    /// The whole text.
    fn shader(&self, threads: usize) -> Result<Shader> {
        let mut declarations = Declarations::after(&[Access::Uniform, Access::Read]);
        for seen in &self.seen {
            match seen.element {
                Element::Float => declarations.array(seen.access, &seen.name, "f32"),
                Element::Word => declarations.array(seen.access, &seen.name, "u32"),
                Element::Atomic => declarations.array(seen.access, &seen.name, "atomic<u32>"),
                Element::Uniform => declarations.vector(&seen.name),
            }
        }
        let (mut functions, mut calls) = (String::new(), String::new());
        for (n, text) in self.texts.iter().enumerate() {
            let _ = writeln!(
                functions,
                "fn operation_{n}(op: u32, head: vec4<u32>, first: u32, end: u32, thread: u32) {{\n{}}}\n",
                indented(&text.body),
            );
            let _ = writeln!(
                calls,
                "case {n}u: {{ operation_{n}(at + 1u, head, own.z, own.w, thread); }}"
            );
        }
        let words = [
            ("threads", format!("{threads}u")),
            ("bindings", declarations.text),
            ("functions", functions),
            ("calls", calls),
        ];
        Ok(Shader {
            label: "small operations".into(),
            source: fill(nneinfact_shaders::JOINT, &[], &words)?,
            bindings: declarations.access,
            invocations: threads as u32,
            workgroup_bytes: 8 * threads as u32,
        })
    }
}

/// The shaders of joint dispatches, and which of them each runs.
pub(crate) struct JointShaders {
    shaders: Vec<JointShader>,
    of: Vec<usize>,
}

impl JointShaders {
    /// Shares shaders out.
    pub fn new<'j>(joints: impl Iterator<Item = &'j Joint>, limits: &JointLimits) -> JointShaders {
        let mut shaders: Vec<JointShader> = Vec::new();
        let mut of = Vec::new();
        for joint in joints {
            let storage =
                |seen: &[Seen]| seen.iter().filter(|s| s.access != Access::Uniform).count();
            let fits = |shader: &JointShader| storage(&shader.with(joint)) <= limits.buffers;
            // Where the fewest buffers are seen besides those that are needed.
            let found = (0..shaders.len())
                .filter(|&n| fits(&shaders[n]))
                .min_by_key(|&n| shaders[n].with(joint).len());
            let number = found.unwrap_or_else(|| {
                shaders.push(JointShader::default());
                shaders.len() - 1
            });
            shaders[number].add(joint);
            of.push(number);
        }
        JointShaders { shaders, of }
    }
}

/// Words of programs, in the making.
#[derive(Default)]
struct Words(Vec<u32>);

impl Words {
    /// The number of vectors so far.
    fn vectors(&self) -> usize {
        self.0.len() / 4
    }
}

impl Compiler<'_> {
    /// The dispatches of joints, in their order.
    pub(crate) fn joint_dispatches(
        &mut self,
        joints: &[&Joint],
        limits: &JointLimits,
    ) -> Result<Vec<Command>> {
        let shaders = JointShaders::new(joints.iter().copied(), limits);
        let mut ids = Vec::new();
        for shader in &shaders.shaders {
            ids.push(self.shader(shader.shader(limits.threads)?));
        }
        let program = self.program.add_buffer("small operations", 0, BufferKind::Storage);
        let mut words = Words::default();
        let mut dispatches = Vec::new();
        for (joint, &number) in joints.iter().zip(&shaders.of) {
            let shader = &shaders.shaders[number];
            let (start, workgroups) = add_joint(&mut words, joint, shader, limits);
            dispatches.push(self.joint_dispatch(
                joint,
                (ids[number], &shader.seen),
                program,
                start,
                workgroups,
            ));
        }
        let content = bytemuck::cast_slice(&words.0).to_vec();
        self.program.buffers[program.0].bytes = content.len().max(16) as u64;
        self.program.buffers[program.0].content = content;
        Ok(dispatches)
    }

    fn joint_dispatch(
        &mut self,
        joint: &Joint,
        (shader, seen): (ShaderId, &[Seen]),
        program: BufferId,
        start: usize,
        workgroups: usize,
    ) -> Command {
        let uniforms = self.words(&[start as u32, 0, 0, 0]);
        if let Binding::Part(window) = uniforms {
            self.program.notes.insert(window, joint.to_string());
        }
        let mut bindings = vec![uniforms, Binding::Whole(program)];
        bindings.extend(seen.iter().map(|seen| Binding::Whole(seen.buffer)));
        let turns: usize = joint.operations().iter().map(|operation| operation.turns).sum();
        Command::Dispatch(Dispatch {
            shader,
            kind: DispatchKind::Small,
            bindings,
            workgroups: [workgroups as u32, 1, 1],
            work: (turns * work_of_a_turn(workgroups)) as f64,
        })
    }
}

/// Roughly what a turn of a dispatch of so many workgroups is in floating-point operations: it is the
/// longer the fewer there are.
fn work_of_a_turn(workgroups: usize) -> usize {
    (4096 / workgroups.max(1)).max(64)
}

/// Adds the program of a joint dispatch; returns where it starts and its workgroups.
fn add_joint(
    words: &mut Words,
    joint: &Joint,
    shader: &JointShader,
    limits: &JointLimits,
) -> (usize, usize) {
    let cuts: Vec<(usize, usize)> = joint.chains.iter().map(|c| cut(c, limits)).collect();
    let workgroups: usize = cuts.iter().map(|(count, _)| count).sum();
    let start = words.vectors();
    let mut at = start + workgroups;
    for (chain, &(count, each)) in joint.chains.iter().zip(&cuts) {
        for n in 0..count {
            let range = match chain.shared {
                Some(elements) => [n * each, elements.min((n + 1) * each)].map(|n| n as u32),
                None => [0, u32::MAX],
            };
            words.0.extend([at as u32, chain.operations.len() as u32, range[0], range[1]]);
        }
        at += chain.operations.iter().map(Operation::vectors).sum::<usize>();
    }
    for operation in joint.operations() {
        let [lanes, halves] = operation.head;
        let function = shader.function(operation) as u32;
        words.0.extend([function, operation.vectors() as u32, lanes, halves]);
        words.0.extend(&operation.words);
    }
    (start, workgroups)
}

/// Into how many workgroups a chain is cut, and how many elements each has.
fn cut(chain: &Chain, limits: &JointLimits) -> (usize, usize) {
    let Some(elements) = chain.shared else { return (1, 0) };
    // As many as a workgroup does at a time, at least.
    let lanes = chain.operations.iter().map(|o| o.head[0] as usize).max().unwrap_or(1);
    let at_a_time = (limits.threads / lanes).max(1);
    let each = elements.div_ceil(limits.workgroups).next_multiple_of(at_a_time);
    (elements.div_ceil(each), each)
}
