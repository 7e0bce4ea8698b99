//! Which operations share a dispatch.
//!
//! A joint dispatch is some chains. What one chain writes no other reads or writes, so workgroups need
//! not wait for each other. A chain is done by one workgroup, operation after operation; or, where there
//! is more to do, it is one operation whose elements many workgroups share, with others after it that
//! take element by element what it leaves.
//!
//! Operations come in order, and each goes to the earliest dispatch that it may be in: what it waits for
//! is in earlier dispatches, or in a chain that it can go on.

use std::fmt;

use super::operation::{Elementwise, Operation, Reach, Reaches};
use crate::program::recording::{Access, BufferId, Command, Program};

/// What bounds joint dispatches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JointLimits {
    /// Threads of a workgroup.
    pub threads: usize,
    /// Storage buffers that it sees, besides its program.
    pub buffers: usize,
    /// The most turns of an operation that a single workgroup does: one takes about as long as 0.1 to
    /// 0.2 µs of a read of memory, and another dispatch some µs.
    pub turns: usize,
    /// The most turns of a chain.
    pub chain: usize,
    /// The most turns of an operation that is shared out, and of all of a dispatch: what has more is a
    /// dispatch of its own. A software rasteriser does it in some 0.05 s.
    pub shared: usize,
    /// Workgroups that share an operation.
    pub workgroups: usize,
}

/// Operations one after another.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub operations: Vec<Operation>,
    /// The elements that workgroups share; `None` where one does all.
    pub shared: Option<usize>,
    turns: usize,
    reaches: Reaches,
}

/// A joint dispatch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Joint {
    pub chains: Vec<Chain>,
}

/// What a recording does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Joint(Joint),
    Command(Command, Reaches),
}

/// The commands of a recording with their operations in joint dispatches.
pub(crate) fn schedule(
    commands: Vec<Command>,
    program: &Program,
    limits: &JointLimits,
) -> Vec<Step> {
    let mut steps = Vec::new();
    // Operations whose results still stand.
    let mut standing: Vec<Operation> = Vec::new();
    for command in commands {
        match command {
            Command::Small { otherwise, operations } => {
                if !operations.iter().all(|operation| limits.allow(operation)) {
                    place_command(&mut steps, &mut standing, *otherwise, program);
                    continue;
                }
                for operation in operations {
                    if standing.iter().any(|before| operation.repeats(before)) {
                        continue;
                    }
                    forget(&mut standing, &operation.reaches);
                    standing.push(operation.clone());
                    place(&mut steps, operation, limits);
                }
            }
            other => place_command(&mut steps, &mut standing, other, program),
        }
    }
    steps
}

/// Forgets operations whose results, or what they were made of, are written.
fn forget(standing: &mut Vec<Operation>, reaches: &Reaches) {
    let written = Reaches::new(Vec::new(), reaches.writes.clone());
    standing.retain(|operation| !written.meets(&operation.reaches));
}

fn place_command(
    steps: &mut Vec<Step>,
    standing: &mut Vec<Operation>,
    command: Command,
    program: &Program,
) {
    let reaches = reaches(&command, program);
    forget(standing, &reaches);
    steps.push(Step::Command(command, reaches));
}

/// What a command reads and writes, by buffers.
fn reaches(command: &Command, program: &Program) -> Reaches {
    match command {
        Command::Dispatch(dispatch) | Command::Indirect { dispatch, .. } => {
            let access = &program.shaders[dispatch.shader.0].bindings;
            let of = |wanted: fn(Access) -> bool| {
                let seen = dispatch.bindings.iter().zip(access);
                seen.filter(|&(_, &access)| wanted(access))
                    .map(|(binding, _)| Reach::whole(binding.buffer()))
                    .collect()
            };
            Reaches::new(of(|_| true), of(|access| access == Access::ReadWrite))
        }
        &Command::Copy { from, to, .. } => {
            Reaches::new(vec![Reach::whole(from)], vec![Reach::whole(to)])
        }
        &Command::Clear { buffer, offset, bytes } => {
            let written = Reach::new(buffer, offset as usize / 4, bytes as usize / 4);
            Reaches::new(Vec::new(), vec![written])
        }
        Command::Small { otherwise, .. } => reaches(otherwise, program),
    }
}

impl JointLimits {
    /// Whether an operation can be in a joint dispatch at all.
    fn allow(&self, operation: &Operation) -> bool {
        let most = if operation.elements.is_some() { self.shared } else { self.chain };
        let seen: Vec<BufferId> = buffers(&[operation]);
        operation.turns <= most && seen.len() <= self.buffers
    }
}

/// The storage buffers that operations see, each once, in their order.
pub(crate) fn buffers(operations: &[&Operation]) -> Vec<BufferId> {
    let mut all: Vec<BufferId> = operations
        .iter()
        .flat_map(|operation| &operation.text.seen)
        .filter(|seen| seen.access != Access::Uniform)
        .map(|seen| seen.buffer)
        .collect();
    all.sort_by_key(|buffer| buffer.0);
    all.dedup();
    all
}

/// Puts an operation into the earliest dispatch that it may be in, or into a new one at the end.
fn place(steps: &mut Vec<Step>, operation: Operation, limits: &JointLimits) {
    let mut earliest = None;
    for (at, step) in steps.iter().enumerate().rev() {
        match step {
            Step::Command(_, reaches) if reaches.meets(&operation.reaches) => break,
            Step::Command(..) => {}
            Step::Joint(joint) => {
                let before = joint.waits_for(&operation);
                if (before.is_empty() || joint.goes_on(&before, &operation, limits))
                    && joint.has_room(&operation, limits)
                {
                    earliest = Some((at, before.clone()));
                }
                if !before.is_empty() {
                    break;
                }
            }
        }
    }
    match earliest {
        Some((at, before)) => {
            if let Some(Step::Joint(joint)) = steps.get_mut(at) {
                joint.add(&before, operation, limits);
            }
        }
        None => {
            let mut joint = Joint::default();
            joint.add(&[], operation, limits);
            steps.push(Step::Joint(joint));
        }
    }
}

impl fmt::Display for Joint {
    /// The operations of each chain, and how many elements workgroups share.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, chain) in self.chains.iter().enumerate() {
            let labels: Vec<&str> = chain.operations.iter().map(|o| o.text.label).collect();
            let shared = match chain.shared {
                Some(elements) => format!(" of {elements}"),
                None => String::new(),
            };
            write!(f, "{}{}{shared}", if n > 0 { " | " } else { "" }, labels.join(", "))?;
        }
        Ok(())
    }
}

impl Joint {
    /// The operations of all chains.
    pub fn operations(&self) -> Vec<&Operation> {
        self.chains.iter().flat_map(|chain| &chain.operations).collect()
    }

    /// The chains that an operation has to come after.
    fn waits_for(&self, operation: &Operation) -> Vec<usize> {
        let meets = |&c: &usize| self.chains[c].reaches.meets(&operation.reaches);
        (0..self.chains.len()).filter(meets).collect()
    }

    /// Whether an operation can be the next one of these chains, made one.
    fn goes_on(&self, before: &[usize], operation: &Operation, limits: &JointLimits) -> bool {
        if let [only] = before
            && self.chains[*only].shared.is_some()
        {
            return self.chains[*only].hands_to(operation);
        }
        let alone = before.iter().all(|&c| self.chains[c].shared.is_none());
        let turns: usize = before.iter().map(|&c| self.chains[c].turns).sum();
        // What no other workgroup could help with takes its time anyway.
        let short = operation.elements.is_none() || operation.turns <= limits.turns;
        alone && short && turns + operation.turns <= limits.chain
    }

    /// Whether a shader may see what the operation needs, too, and it does not take long then.
    fn has_room(&self, operation: &Operation, limits: &JointLimits) -> bool {
        let mut all = self.operations();
        all.push(operation);
        let turns: usize = all.iter().map(|operation| operation.turns).sum();
        buffers(&all).len() <= limits.buffers && turns <= limits.shared
    }

    fn add(&mut self, before: &[usize], operation: Operation, limits: &JointLimits) {
        let mut chain = match before {
            [] => Chain {
                operations: Vec::new(),
                shared: operation.elements.filter(|_| operation.turns > limits.turns),
                turns: 0,
                reaches: Reaches::default(),
            },
            [first, rest @ ..] => {
                let others: Vec<Chain> = rest.iter().map(|&c| self.chains[c].clone()).collect();
                let mut chain = self.chains[*first].clone();
                for other in others {
                    chain.operations.extend(other.operations);
                    chain.turns += other.turns;
                    chain.reaches.extend(&other.reaches);
                }
                let mut number = 0;
                self.chains.retain(|_| {
                    number += 1;
                    !before.contains(&(number - 1))
                });
                chain
            }
        };
        chain.turns += operation.turns;
        chain.reaches.extend(&operation.reaches);
        chain.operations.push(operation);
        self.chains.push(chain);
    }
}

impl Chain {
    /// Whether the workgroups that share this chain can go on with an operation, each with its own
    /// elements: it takes what they left there, and nothing else that others of them write.
    fn hands_to(&self, operation: &Operation) -> bool {
        let Elementwise::Takes(buffer) = operation.elementwise else { return false };
        let ours = |before: &Operation| match before.elementwise {
            Elementwise::Leaves(b) | Elementwise::Takes(b) => b == buffer,
            Elementwise::No => false,
        };
        operation.elements == self.shared
            && self.operations.iter().all(ours)
            && !self.reaches.meets_outside(&operation.reaches, buffer)
    }
}
