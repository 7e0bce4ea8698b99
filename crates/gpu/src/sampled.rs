//! Passes over a list of cells, as commands: the sums over the list, and what all other cells add
//! (docs/method.md).

use std::collections::HashSet;

use super::cells::{Terms, Wants};
use super::contract::{View, repeat};
use super::dense::Reading;
use super::listed::{Gather, ListLoss, ListTerms, drop_rows, gather, listed};
use super::lists::{Cut, Listed, Tasks};
use super::program::{Compiler, Key, SLOT_SUMS};
use super::recording::{BufferId, BufferKind, Command, Dispatch, Recording, RecordingId};
use nneinfact_core::data::{Dense, Implicit};
use nneinfact_core::engine::LossSlot;
use nneinfact_core::engine::needs;
use nneinfact_core::engine::stored_order::StoredPart;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{AtZero, Expr, Loss, ZeroTerm};
use nneinfact_core::model::IndexSet;
use nneinfact_core::plan::{Gram, SparsePass};

/// A pass over a list in the making.
struct Pending<'a> {
    commands: Vec<Command>,
    pass: &'a SparsePass,
    /// Where each table begins among the products, the target's first.
    bases: Vec<usize>,
    slot: Option<LossSlot>,
    /// Sums of losses of workgroups that are yet to be added up.
    losses: usize,
}

/// The expressions of the listed training cells: beyond what they would add as zeros.
fn train_terms(loss: &Loss, zero: &AtZero, rest: Implicit, losses: bool) -> ListTerms {
    let off_list = rest != Implicit::Missing;
    let beyond = |at: &Expr, zero: &ZeroTerm| match off_list && !zero.is_zero() {
        true => at - zero.expr(),
        false => at.clone(),
    };
    let depends = !off_list || loss.denominator_depends_on_x();
    ListTerms {
        numerator: Some(beyond(loss.a(), &zero.a)),
        denominator: depends.then(|| beyond(loss.b(), &zero.b)),
        loss: match losses {
            true => ListLoss::Train(beyond(loss.loss(), &zero.loss)),
            false => ListLoss::None,
        },
    }
}

/// What exceptions change in sums over all cells: `x` is the sign.
fn correction_terms(zero: &AtZero) -> ListTerms {
    let signed = |zero: &ZeroTerm| (!zero.is_zero()).then(|| &Expr::x() * zero.expr());
    ListTerms { numerator: signed(&zero.a), denominator: signed(&zero.b), loss: ListLoss::None }
}

/// The losses of exceptions.
fn exception_terms(loss: &Loss, zero: &AtZero, rest: Implicit) -> ListTerms {
    let (loss, less) = match rest {
        Implicit::Missing => (loss.loss().clone(), None),
        // A sum over all cells by their roles holds them as zeros.
        Implicit::ByRole => (loss.loss() - zero.loss.expr(), None),
        // It holds them as zeros for training.
        Implicit::Zeros => {
            let less = (!zero.loss.is_zero()).then(|| zero.loss.expr().clone());
            (loss.loss().clone(), less)
        }
    };
    ListTerms { loss: ListLoss::ByRole { loss, less }, ..ListTerms::default() }
}

impl Compiler<'_> {
    /// The pass of a group over the list of cells.
    pub(super) fn sampled_pass(
        &mut self,
        group: usize,
        fresh: &mut HashSet<Key>,
    ) -> Result<RecordingId> {
        let (plan, job, shapes) = (self.plan, self.job, self.shapes);
        let pass = &plan.sparse_passes()[group];
        let Some(list) = &job.stored else {
            return Err(Error::Setting("a plan over a list of cells needs one".into()));
        };
        let rest = list.implicit();
        let zero = job.loss.at_zero();
        let (_, [numerator, denominator, losses]) = needs(&zero, rest);
        let slot = job.losses.get(group).copied().flatten();
        let mut commands = Vec::new();
        let mut bases = Vec::new();
        for table in std::iter::once(&pass.output).chain(&pass.operands) {
            let key = (table.factors.clone(), table.contraction.output().to_vec());
            bases.push(self.product(&mut commands, group, key, &table.contraction, fresh)?);
        }
        let volume: usize = shapes.sizes(&pass.indices).iter().product();
        commands.push(Command::Clear { buffer: self.sums, offset: 0, bytes: 8 * volume as u64 });
        self.clear_losses(&mut commands, slot);
        self.penalties(&mut commands, slot)?;
        let mut pending = Pending { commands, pass, bases, slot, losses: 0 };

        // Sums over all cells that have no closed form.
        let wants = Wants { numerator, denominator, losses: losses && slot.is_some() };
        if wants.any() {
            let bases = self.tensors(&mut pending.commands, group, fresh)?;
            let terms = Terms::at_zero(&zero, job.loss.entry_parameters().len());
            let reading = Reading { group, bases, wants, terms, target: &pass.indices };
            let stages = &mut Vec::new();
            pending.losses =
                self.every_cell(&mut pending.commands, &reading, slot, true, stages)?;
        }
        let sides: Vec<Dense> = job
            .loss
            .entry_parameters()
            .iter()
            .map(|s| Dense::from_array(&**s).in_c_order())
            .collect();
        let exceptions = list.counts().masked > 0;
        let mut corrections = None;
        if rest == Implicit::Zeros {
            self.closed_forms(&mut pending, &zero, [numerator, denominator])?;
            let terms = correction_terms(&zero);
            if exceptions && terms.halves() > 0 {
                let (cells, dropped) = Listed::corrections(shapes, pass, list, &sides);
                self.drop_rows(&mut pending, &dropped);
                corrections = Some((cells, terms));
            }
        }
        let scale = 1.0 / job.unit;
        let train = Listed::new(shapes, pass, list, StoredPart::Train, &sides, scale);
        let terms = train_terms(&job.loss, &zero, rest, slot.is_some());
        self.over_list(&mut pending, &train, &terms, false)?;
        drop(train);
        if let Some((cells, terms)) = corrections {
            self.over_list(&mut pending, &cells, &terms, true)?;
        }
        if exceptions && slot.is_some() {
            let cells = Listed::new(shapes, pass, list, StoredPart::Masked, &sides, scale);
            self.over_list(&mut pending, &cells, &exception_terms(&job.loss, &zero, rest), false)?;
        }
        if rest == Implicit::Zeros
            && !losses
            && let Some(slot) = slot
        {
            self.total_loss(&mut pending.commands, &zero.loss, slot)?;
        }
        self.add_losses(&mut pending.commands, slot, pending.losses)?;
        let label = format!("pass {group}");
        Ok(self.record(Recording { label, commands: pending.commands }))
    }

    /// Sums over all cells that are contractions of the factors. `done` says which of numerator and
    /// denominator there are already.
    fn closed_forms(
        &mut self,
        pending: &mut Pending<'_>,
        zero: &AtZero,
        done: [bool; 2],
    ) -> Result<()> {
        let pass = pending.pass;
        let volume: usize = self.shapes.sizes(&pass.indices).iter().product();
        let inputs: Vec<View> =
            pass.others.iter().map(|&l| self.factor(l, self.factors, 0, false)).collect();
        for (half, term) in [&zero.a, &zero.b].into_iter().enumerate() {
            if done[half] || term.is_zero() {
                continue;
            }
            let out = View {
                buffer: self.sums,
                base: half * volume,
                letters: pass.indices.clone(),
                half: None,
            };
            if let Some(by) = term.coefficient(1.0) {
                let gram = self.gram(pass.gram.as_ref())?;
                self.contract_gram(&mut pending.commands, gram, &inputs, &out, by as f32)?;
                continue;
            }
            // First where it is small, and then along the letters that it does not have.
            let letters = pass.closed.output().to_vec();
            let words = self.shapes.sizes(&letters).iter().product();
            let at = 3 * pass.closed.steps().len();
            let buffer = self.temporary(at, words);
            let sum = View { buffer, base: 0, letters, half: None };
            self.contract(&mut pending.commands, &pass.closed, &inputs, &sum, 1.0, false)?;
            let by = term.coefficient(0.0).unwrap_or(0.0) as f32;
            repeat(self, &mut pending.commands, &sum, &out, by)?;
        }
        Ok(())
    }

    fn gram<'g>(&self, gram: Option<&'g Gram>) -> Result<&'g Gram> {
        gram.ok_or_else(|| {
            Error::Unsupported(format!(
                "{}: too many letters to write the sum over all cells with",
                self.shapes.model()
            ))
        })
    }

    /// Adds the contraction of all factors, under other letters, with further ones to `out`.
    fn contract_gram(
        &mut self,
        commands: &mut Vec<Command>,
        gram: &Gram,
        with: &[View],
        out: &View,
        scale: f32,
    ) -> Result<()> {
        let count = self.shapes.model().factors().len();
        let all = (0..count).map(|l| self.factor(l, self.factors, 0, false));
        let inputs: Vec<View> = all
            .chain(with.iter().cloned())
            .zip(gram.contraction.inputs())
            .map(|(view, letters)| View { letters: letters.clone(), ..view })
            .collect();
        super::contract::steps(
            self,
            commands,
            &gram.shapes,
            &gram.contraction,
            &inputs,
            out,
            scale,
            true,
        )
    }

    /// Adds the sum over all cells of the loss at a datum of 0, where it has a closed form.
    fn total_loss(
        &mut self,
        commands: &mut Vec<Command>,
        term: &ZeroTerm,
        slot: LossSlot,
    ) -> Result<()> {
        let plan = self.plan;
        let (Some(m), Some(totals)) = (term.monomial(), plan.implicit_totals()) else {
            return Ok(());
        };
        if m.coefficient == 0.0 {
            return Ok(());
        }
        let base = slot as usize * SLOT_SUMS;
        let out = View { buffer: self.results, base, letters: Vec::new(), half: None };
        let by = m.coefficient as f32;
        let all: Vec<View> = (0..self.shapes.model().factors().len())
            .map(|l| self.factor(l, self.factors, 0, false))
            .collect();
        if m.power == 2.0 {
            let gram = self.gram(totals.square.as_ref())?;
            return self.contract_gram(commands, gram, &all, &out, by);
        }
        if m.power == 1.0 {
            return self.contract(commands, &totals.linear, &all, &out, by, true);
        }
        let cells = self.shapes.volume(self.shapes.model().observed());
        let (none, at) = (Vec::new(), (out.buffer, out.base));
        let by = (m.coefficient * cells) as f32;
        self.contraction(commands, none.clone(), none, None, None, at, by, true)
    }

    /// Sets rows of numerator and denominator to 0.
    fn drop_rows(&mut self, pending: &mut Pending<'_>, rows: &[u32]) {
        let pass = pending.pass;
        let volume: usize = self.shapes.sizes(&pass.indices).iter().product();
        let width: usize =
            self.shapes.sizes(&pass.indices[pass.output.rows.len()..]).iter().product();
        let most = (self.limits.binding_bytes.min(self.limits.buffer_bytes) / 4) as usize;
        for rows in rows.chunks(most.max(1)) {
            let buffer = self.filled("rows to drop", bytemuck::cast_slice(rows).to_vec());
            let count = rows.len() * width;
            let fold = self.fold(count.div_ceil(64));
            let numbers = [rows.len(), fold[0] as usize, width, volume].map(|n| n as u32);
            let bindings = vec![self.words(&numbers), self.whole(buffer), self.whole(self.sums)];
            let shader = self.shader(drop_rows());
            pending.commands.push(Command::Dispatch(Dispatch {
                shader,
                bindings,
                workgroups: fold,
                work: 2.0 * count as f64,
            }));
        }
    }

    /// A storage buffer that begins as these bytes.
    fn filled(&mut self, label: &str, content: Vec<u8>) -> BufferId {
        let id = self.buffer(label, content.len().max(4) as u64, BufferKind::Storage);
        self.program.buffers[id.0].content = content;
        id
    }

    /// Goes over a list, and adds what it sums to numerator, denominator and losses.
    fn over_list(
        &mut self,
        pending: &mut Pending<'_>,
        cells: &Listed,
        terms: &ListTerms,
        corrections: bool,
    ) -> Result<()> {
        if cells.len() == 0 || (terms.halves() == 0 && !terms.losses()) {
            return Ok(());
        }
        let (shapes, pass) = (self.shapes, pending.pass);
        let inner = pass.contracted_size(shapes);
        let halves = terms.halves();
        let tables = pending.bases.len();
        let made =
            listed(inner, tables, self.job.loss.entry_parameters().len(), terms, self.limits)?;
        let shader = self.shader(made.shader);

        let most = self.limits.binding_bytes.min(self.limits.buffer_bytes) as usize / 4;
        let scratch = (self.tuning.scratch_bytes.min(self.limits.binding_bytes) / 4) as usize;
        let pieces = Cut::pieces(scratch / (inner * halves.max(1)).max(1))
            // Two words of a piece in the index, at most one of its block and three and a bit of
            // tasks; and one for each inner index.
            .min(most.saturating_sub(inner) / 7)
            .max(1);
        let work = (6 * inner * tables + 50) as f64;
        let room = self.losses_room();
        let block = made.threads.min(pieces);
        let cut = Cut {
            block,
            piece: made.piece.min(block),
            cells: (most / cells.words()).min((self.tuning.work / work) as usize),
            pieces,
            blocks: room.max(1),
        };
        let onto = inner_of(pass, shapes);
        let width: usize = shapes.sizes(&pass.indices[pass.output.rows.len()..]).iter().product();
        let volume: usize = shapes.sizes(&pass.indices).iter().product();
        let floor = (self.job.guards.prediction_floor / self.job.unit) as f32;
        for part in cells.cut(&cut) {
            if terms.losses() && pending.losses > 0 && pending.losses + part.blocks > room {
                // The losses so far make room for those of this part.
                self.add_losses(&mut pending.commands, pending.slot, pending.losses)?;
                pending.losses = 0;
            }
            let mut index = part.index;
            let onto_at = index.len();
            if inner != width {
                index.extend(&onto);
            }
            let data = self.filled("cells of a list", cells.content(&part.cells));
            let index = bytemuck::cast_slice(&index).to_vec();
            let index = self.filled("pieces of a list", index);
            let distance = part.slots * inner;
            let fold = self.fold(part.blocks);
            let mut numbers: Vec<u32> = [
                part.cells.len(),
                fold[0] as usize,
                part.blocks,
                pending.losses,
                part.rows_at,
                part.blocks_at,
                distance,
            ]
            .map(|n| n as u32)
            .to_vec();
            numbers.push(floor.to_bits());
            numbers.extend(pending.bases.iter().map(|&base| base as u32));
            numbers.resize(4 * made.numbers, 0);
            let mut bindings = vec![
                self.words(&numbers),
                self.whole(self.products),
                self.whole(data),
                self.whole(index),
            ];
            if halves > 0 {
                self.grow(self.partial, halves * distance);
                bindings.push(self.whole(self.partial));
            }
            if terms.losses() {
                bindings.push(self.whole(self.losses));
            }
            pending.commands.push(Command::Dispatch(Dispatch {
                shader,
                bindings,
                workgroups: fold,
                work: work * part.cells.len() as f64,
            }));
            if terms.losses() {
                pending.losses += part.blocks;
            }
            if halves == 0 {
                continue;
            }
            let first = if terms.numerator.is_some() { 0 } else { volume };
            // What is left of a sum over all cells cannot be negative, but for rounding.
            let clamp = (corrections && terms.denominator.is_some()).then_some(halves - 1);
            let rows = Gather::Rows { folds: inner / width, clamp };
            let steps = part.steps.iter().map(|&tasks| (Gather::Pieces, tasks, inner));
            for (kind, tasks, width) in steps.chain([(rows, part.sums, width)]) {
                let Tasks { at, count } = tasks;
                let threads = halves * count * width;
                let fold = self.fold(threads.div_ceil(64));
                let numbers =
                    [count, fold[0] as usize, at, distance, first, volume, width, onto_at];
                let shader = self.shader(gather(inner, halves, kind)?);
                let mut bindings = vec![
                    self.words(&numbers.map(|n| n as u32)),
                    self.whole(index),
                    self.whole(self.partial),
                ];
                if matches!(kind, Gather::Rows { .. }) {
                    bindings.push(self.whole(self.sums));
                }
                pending.commands.push(Command::Dispatch(Dispatch {
                    shader,
                    bindings,
                    workgroups: fold,
                    work: threads as f64 * 8.0,
                }));
            }
        }
        Ok(())
    }
}

/// The inner indices of a pass, those together that are the same in a row of the numerator.
fn inner_of(pass: &SparsePass, shapes: &nneinfact_core::model::Shapes) -> Vec<u32> {
    let own: IndexSet = pass.indices.iter().collect();
    let sizes = shapes.sizes(&pass.contracted);
    let place = |k: usize| {
        let (mut rest, mut place, mut stride) = (k, 0, 1);
        for (&x, &size) in pass.contracted.iter().zip(&sizes).rev() {
            if own.contains(x) {
                place += rest % size * stride;
                stride *= size;
            }
            rest /= size;
        }
        place
    };
    let mut inner: Vec<u32> = (0..pass.contracted_size(shapes) as u32).collect();
    inner.sort_by_key(|&k| (place(k as usize), k));
    inner
}
