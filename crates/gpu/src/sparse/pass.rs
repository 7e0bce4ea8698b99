//! Passes over stored entries, as commands: the sums over these, and what all other entries add
//! (docs/method.md).

use super::columns::{CutLimits, EntryColumns, GatherTasks, SparsePart};
use super::shaders::{
    Gather, SparseShader, StoredLoss, StoredTerms, TableLookup, gather, gather_text, sparse_shader,
    zero_rows,
};
use crate::dense::entries::{EntryTerms, PassOutputs};
use crate::dense::pass::DenseReading;
use crate::masked::{RoleOutput, RoleTarget};
use crate::program::buffers::SLOT_SUMS;
use crate::program::compiler::Compiler;
use crate::program::products::FreshProducts;
use crate::program::recording::{
    Binding, BufferId, BufferKind, Command, Dispatch, DispatchKind, Recording, RecordingId,
    ShaderId,
};
use crate::program::views::TensorView;
use nneinfact_core::data::{Dense, StoredEntries};
use nneinfact_core::engine::stored_order::StoredPart;
use nneinfact_core::engine::{LossSlot, MaskedZeroLoss, SparseProgram, ZeroContraction, ZeroSum};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::Expr;
use nneinfact_core::model::{IndexSet, Shapes};
use nneinfact_core::plan::{Gram, ImplicitForm, SparsePass};

/// A pass over stored entries in the making.
struct PendingPass<'a> {
    commands: Vec<Command>,
    pass: &'a SparsePass,
    /// Where each table begins among the products, the output's first.
    bases: Vec<usize>,
    slot: Option<LossSlot>,
    /// Sums of losses of workgroups that are yet to be added up.
    losses: usize,
}

/// Sizes of a pass, in elements.
struct PassSizes {
    /// The contracted dimension.
    k: usize,
    /// A row of the numerator, and all of it.
    width: usize,
    volume: usize,
    halves: usize,
}

/// What entries of the data are gone over for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// For what they add.
    Entries,
    /// For what masked ones change in sums over all entries.
    Corrections,
}

/// The expressions of stored training entries: beyond what they would add as zeros.
fn train_terms(program: &SparseProgram, losses: bool) -> StoredTerms {
    let stored = &program.stored;
    StoredTerms {
        numerator: Some(stored.numerator.clone()),
        denominator: stored.denominator.clone(),
        loss: match losses {
            true => StoredLoss::Train(stored.excess_loss()),
            false => StoredLoss::None,
        },
    }
}

/// What masked entries change in sums over all entries: `x` is the sign.
fn correction_terms(program: &SparseProgram) -> StoredTerms {
    let signed = |expr: &Option<Expr>| expr.as_ref().map(|expr| &Expr::x() * expr);
    let masked = &program.masked;
    StoredTerms {
        numerator: signed(&masked.numerator),
        denominator: signed(&masked.denominator),
        loss: StoredLoss::None,
    }
}

/// The losses of masked entries.
fn masked_terms(program: &SparseProgram) -> StoredTerms {
    let loss = program.masked.loss.clone();
    let (loss, less) = match &program.masked.zero_loss {
        MaskedZeroLoss::Nothing => (loss, None),
        MaskedZeroLoss::OwnRole(zero) => (&loss - zero, None),
        MaskedZeroLoss::Training(zero) => (loss, Some(zero.clone())),
    };
    StoredTerms { loss: StoredLoss::ByRole { loss, less }, ..StoredTerms::default() }
}

impl Compiler<'_> {
    /// The pass of a group over the stored entries.
    pub(crate) fn sparse_pass(
        &mut self,
        group: usize,
        fresh: &mut FreshProducts,
    ) -> Result<RecordingId> {
        let (plan, job, shapes) = (self.plan, self.job, self.shapes);
        let pass = &plan.sparse_passes()[group];
        let Some(stored) = &job.stored else {
            return Err(Error::Setting("a plan over stored entries needs them".into()));
        };
        let by_role =
            plan.settings().sparse.is_some_and(|sparse| sparse.implicit == ImplicitForm::ByRole);
        let mut program = match by_role {
            true => SparseProgram::by_role(&job.loss, self.exact.is_some()).ok_or_else(|| {
                Error::Internal(format!("the {} loss has no closed form by roles", job.loss.name()))
            })?,
            false => SparseProgram::of(&job.loss, stored),
        };
        if self.exact.is_some() {
            // Exact steps have their quadratic form in place of a denominator.
            program.all.denominator = ZeroSum::Nothing;
            program.stored.denominator = None;
            program.masked.denominator = None;
        }
        let [numerator, denominator, losses] = program.all.passes();
        let slot = job.losses.get(group).copied().flatten();
        let mut commands = Vec::new();
        let mut bases = Vec::new();
        for table in std::iter::once(&pass.output).chain(&pass.operands) {
            let key = (table.factors.clone(), table.contraction.output().to_vec());
            bases.push(self.product(&mut commands, group, key, &table.contraction, fresh)?);
        }
        let volume: usize = shapes.sizes(&pass.indices).iter().product();
        // A closed form takes the place of what is there where no pass over all entries was before it.
        let whole = [&program.all.numerator, &program.all.denominator];
        let closed = whole.map(|sum| sum.contraction().is_some_and(|(by, _)| by != 0.0));
        let added = [numerator || !closed[0], denominator || !closed[1]];
        match added {
            [true, true] => self.clear(&mut commands, self.buffers.sums, 0, 2 * volume)?,
            [true, false] => self.clear(&mut commands, self.buffers.sums, 0, volume)?,
            [false, true] => self.clear(&mut commands, self.buffers.sums, volume, volume)?,
            [false, false] => {}
        }
        self.clear_losses(&mut commands, slot)?;
        self.penalties(&mut commands, slot)?;
        let mut pending = PendingPass { commands, pass, bases, slot, losses: 0 };

        // Sums over all entries that have no closed form: an implicit-zero pass.
        let wants = PassOutputs { numerator, denominator, losses: losses && slot.is_some() };
        if wants.any() {
            let bases = self.tensors(&mut pending.commands, group, fresh)?;
            let terms = EntryTerms::implicit_zeros(&program.all, job.loss.entry_parameters().len());
            let reading = DenseReading { group, bases, wants, terms, output: &pass.indices };
            let stages = &mut Vec::new();
            pending.losses =
                self.over_all_entries(&mut pending.commands, &reading, slot, true, stages)?;
        }
        if by_role {
            self.closed_forms_by_role(&mut pending, group, &program, added)?;
        } else {
            self.closed_forms(&mut pending, &program, added)?;
            if let Some(forms) = self.forms_of_rows(group) {
                let target = RoleTarget::Forms(&forms);
                self.role_sums(&mut pending.commands, group, target, None)?;
            }
        }
        self.stored_sums(&mut pending, stored, &program)?;
        if let Some(slot) = slot.filter(|_| !by_role) {
            self.total_loss(&mut pending.commands, &program, slot)?;
        }
        self.add_losses(&mut pending.commands, slot, pending.losses)?;
        let label = format!("pass {group}");
        Ok(self.record(Recording { label, commands: pending.commands }))
    }

    /// Sums over stored entries: training entries, what masked ones change in sums over all entries,
    /// and the losses of masked ones.
    fn stored_sums(
        &mut self,
        pending: &mut PendingPass<'_>,
        stored: &StoredEntries,
        program: &SparseProgram,
    ) -> Result<()> {
        let (job, shapes, pass) = (self.job, self.shapes, pending.pass);
        let parameters: Vec<Dense> = job
            .loss
            .entry_parameters()
            .iter()
            .map(|s| Dense::from_array(&**s).in_c_order())
            .collect();
        let masked = stored.counts().masked > 0;
        let mut corrections = None;
        if masked && program.masked.change_sums() {
            let (entries, zeroed) = EntryColumns::corrections(shapes, pass, stored, &parameters);
            self.zero_rows(pending, &zeroed);
            corrections = Some((entries, correction_terms(program)));
        }
        let scale = job.value_scale;
        let train = EntryColumns::new(shapes, pass, stored, StoredPart::Train, &parameters, scale);
        let terms = train_terms(program, pending.slot.is_some());
        self.over_stored(pending, &train, &terms, Reason::Entries)?;
        drop(train);
        if let Some((entries, terms)) = corrections {
            self.over_stored(pending, &entries, &terms, Reason::Corrections)?;
        }
        if masked && pending.slot.is_some() {
            let part = StoredPart::Masked;
            let entries = EntryColumns::new(shapes, pass, stored, part, &parameters, scale);
            let terms = masked_terms(program);
            self.over_stored(pending, &entries, &terms, Reason::Entries)?;
        }
        Ok(())
    }

    /// The sums over all entries that are contractions of the factors: `added` to numerator and
    /// denominator, or in place of what is there.
    fn closed_forms(
        &mut self,
        pending: &mut PendingPass<'_>,
        program: &SparseProgram,
        added: [bool; 2],
    ) -> Result<()> {
        let pass = pending.pass;
        let volume: usize = self.shapes.sizes(&pass.indices).iter().product();
        let inputs: Vec<TensorView> = pass.others.iter().map(|&l| self.factor(l)).collect();
        let sums = [&program.all.numerator, &program.all.denominator];
        for (half, sum) in sums.into_iter().enumerate() {
            let Some((by, of)) = sum.contraction().filter(|&(by, _)| by != 0.0) else {
                continue;
            };
            let by = by as f32;
            let out = TensorView {
                buffer: self.buffers.sums,
                base: half * volume,
                indices: pass.indices.clone(),
                half: None,
            };
            if of == ZeroContraction::Gram {
                let gram = self.gram(pass.gram.as_ref())?;
                let gram = (gram, added[half]);
                self.contract_gram(&mut pending.commands, gram, &inputs, &out, by)?;
                continue;
            }
            // First where it is small, and then along the indices that it does not have.
            let indices = pass.closed.output().to_vec();
            let at = 3 * pass.closed.steps().len();
            let sum = self.result_view(self.shapes, at, &inputs, indices);
            self.contract(&mut pending.commands, &pass.closed, &inputs, &sum, 1.0, false)?;
            self.repeated(&mut pending.commands, &sum, &out, by, added[half])?;
        }
        Ok(())
    }

    /// The same where entries have roles: over the entries of each, with their losses.
    fn closed_forms_by_role(
        &mut self,
        pending: &mut PendingPass<'_>,
        group: usize,
        program: &SparseProgram,
        added: [bool; 2],
    ) -> Result<()> {
        let sums = [&program.all.numerator, &program.all.denominator];
        let output = |(half, sum): (usize, &&ZeroSum)| {
            let (by, _) = sum.contraction()?;
            Some(RoleOutput { half, by, add: added[half] })
        };
        let outputs: Vec<RoleOutput> = sums.iter().enumerate().filter_map(output).collect();
        let loss = pending.slot.map(|slot| (slot, &program.all.loss));
        let forms = self.forms_of_rows(group);
        let target = match &forms {
            Some(forms) => RoleTarget::Forms(forms),
            None => RoleTarget::Sums { outputs: &outputs, indices: &pending.pass.indices },
        };
        pending.losses += self.role_sums(&mut pending.commands, group, target, loss)?;
        Ok(())
    }

    fn gram<'g>(&self, gram: Option<&'g Gram>) -> Result<&'g Gram> {
        gram.ok_or_else(|| {
            Error::Unsupported(format!(
                "{}: too many indices to write the sum over all entries with",
                self.shapes.model()
            ))
        })
    }

    /// The contraction of all factors, under other indices, with further ones: added to `out`, or in its
    /// place.
    fn contract_gram(
        &mut self,
        commands: &mut Vec<Command>,
        (gram, add): (&Gram, bool),
        with: &[TensorView],
        out: &TensorView,
        scale: f32,
    ) -> Result<()> {
        let count = self.shapes.model().factors().len();
        let all = (0..count).map(|l| self.factor(l));
        let inputs: Vec<TensorView> = all
            .chain(with.iter().cloned())
            .zip(gram.contraction.inputs())
            .map(|(view, indices)| TensorView { indices: indices.clone(), ..view })
            .collect();
        self.contract_of(commands, &gram.shapes, &gram.contraction, &inputs, out, scale, add)
    }

    /// Adds the sum over all entries of the loss at a datum of 0, where it has a closed form.
    fn total_loss(
        &mut self,
        commands: &mut Vec<Command>,
        program: &SparseProgram,
        slot: LossSlot,
    ) -> Result<()> {
        let closed = program.all.loss.contraction().filter(|&(by, _)| by != 0.0);
        let (Some((by, of)), Some(totals)) = (closed, self.plan.implicit_totals()) else {
            return Ok(());
        };
        let base = slot as usize * SLOT_SUMS;
        let buffer = self.buffers.results;
        let out = TensorView { buffer, base, indices: Vec::new(), half: None };
        let factors = 0..self.shapes.model().factors().len();
        let all: Vec<TensorView> = factors.map(|l| self.factor(l)).collect();
        match of {
            ZeroContraction::SquareTotal => {
                let gram = self.gram(totals.square.as_ref())?;
                self.contract_gram(commands, (gram, true), &all, &out, by as f32)
            }
            ZeroContraction::EntryCount => {
                let entries = self.shapes.volume(self.shapes.model().observed());
                let (none, at) = (Vec::new(), (out.buffer, out.base));
                let by = (by * entries) as f32;
                self.contraction(commands, none.clone(), none, None, None, at, by, true)
            }
            ZeroContraction::LinearTotal
            | ZeroContraction::OtherFactors
            | ZeroContraction::Gram => {
                self.contract(commands, &totals.linear, &all, &out, by as f32, true)
            }
        }
    }

    fn pass_sizes(&self, pass: &SparsePass, halves: usize) -> PassSizes {
        let rows = pass.output.rows.len();
        PassSizes {
            k: pass.contracted_size(self.shapes),
            width: self.shapes.sizes(&pass.indices[rows..]).iter().product(),
            volume: self.shapes.sizes(&pass.indices).iter().product(),
            halves,
        }
    }

    /// Sets rows of numerator and denominator to 0.
    fn zero_rows(&mut self, pending: &mut PendingPass<'_>, rows: &[u32]) {
        let PassSizes { width, volume, .. } = self.pass_sizes(pending.pass, 2);
        let most = (self.limits.binding_bytes.min(self.limits.buffer_bytes) / 4) as usize;
        for rows in rows.chunks(most.max(1)) {
            let buffer = self.filled("rows to set to zero", bytemuck::cast_slice(rows).to_vec());
            let count = rows.len() * width;
            let fold = self.fold(count.div_ceil(64));
            let words = [rows.len(), fold[0] as usize, width, volume].map(|n| n as u32);
            let sums = self.buffers.sums;
            let bindings = vec![self.words(&words), Binding::Whole(buffer), Binding::Whole(sums)];
            let shader = self.shader(zero_rows());
            pending.commands.push(Command::Dispatch(Dispatch {
                shader,
                kind: DispatchKind::Small,
                bindings,
                workgroups: fold,
                work: 2.0 * count as f64,
            }));
        }
    }

    /// A storage buffer that begins as these bytes.
    fn filled(&mut self, label: &str, content: Vec<u8>) -> BufferId {
        let bytes = content.len().max(4) as u64;
        let id = self.program.add_buffer(label, bytes, BufferKind::Storage);
        self.program.buffers[id.0].content = content;
        id
    }

    /// Goes over stored entries, and adds what it sums to numerator, denominator and losses.
    fn over_stored(
        &mut self,
        pending: &mut PendingPass<'_>,
        entries: &EntryColumns,
        terms: &StoredTerms,
        reason: Reason,
    ) -> Result<()> {
        if entries.len() == 0 || (terms.halves() == 0 && !terms.losses()) {
            return Ok(());
        }
        let (shapes, pass) = (self.shapes, pending.pass);
        let sizes = self.pass_sizes(pass, terms.halves());
        let (tables, parameters) = (pending.bases.len(), entries.parameters());
        let made =
            sparse_shader(TableLookup { k: sizes.k, tables, parameters }, terms, self.limits)?;
        let shader = self.shader(made.shader.clone());
        let work = (6 * sizes.k * tables + 50) as f64;
        let room = self.losses_room();
        let cut = self.cut_limits(&sizes, &made, entries.words(), work);
        let together = contracted_together(pass, shapes);
        for mut part in entries.cut(&cut) {
            if terms.losses() && pending.losses > 0 && pending.losses + part.blocks > room {
                // The losses so far make room for those of this part.
                self.add_losses(&mut pending.commands, pending.slot, pending.losses)?;
                pending.losses = 0;
            }
            let together_at = part.index.len();
            if sizes.k != sizes.width {
                part.index.extend(&together);
            }
            let data = self.filled("stored entries", entries.content(&part.entries));
            let index = bytemuck::cast_slice(&part.index).to_vec();
            let index = self.filled("pieces of stored entries", index);
            let work = work * part.entries.len() as f64;
            let made = (&made, shader);
            self.stored_dispatch(pending, &part, terms, made, [data, index], work, &sizes);
            if sizes.halves > 0 {
                self.gather_pieces(pending, &part, terms, reason, (index, together_at), &sizes)?;
            }
        }
        Ok(())
    }

    /// How entries of so many words are cut, whose shader takes so much work for each.
    fn cut_limits(
        &self,
        sizes: &PassSizes,
        made: &SparseShader,
        words: usize,
        work: f64,
    ) -> CutLimits {
        let most = self.limits.binding_bytes.min(self.limits.buffer_bytes) as usize / 4;
        let scratch = (self.tuning.scratch_bytes.min(self.limits.binding_bytes) / 4) as usize;
        let pieces = CutLimits::pieces(scratch / (sizes.k * sizes.halves.max(1)).max(1))
            // Two words of a piece in the index, at most one of its block and three and a bit of
            // tasks; and one for each contracted index.
            .min(most.saturating_sub(sizes.k) / 7)
            .max(1);
        let block = made.threads.min(pieces);
        CutLimits {
            block,
            piece: made.piece.min(block),
            entries: (most / words).min((self.tuning.work / work) as usize),
            pieces,
            blocks: self.losses_room().max(1),
        }
    }

    /// Runs `sparse_pass.wgsl` on a part, with its entries and its index in these buffers.
    #[allow(clippy::too_many_arguments)]
    fn stored_dispatch(
        &mut self,
        pending: &mut PendingPass<'_>,
        part: &SparsePart,
        terms: &StoredTerms,
        (made, shader): (&SparseShader, ShaderId),
        [data, index]: [BufferId; 2],
        work: f64,
        sizes: &PassSizes,
    ) {
        let floor = (self.job.guards.prediction_floor / self.job.unit) as f32;
        let distance = part.slots * sizes.k;
        let fold = self.fold(part.blocks);
        let mut words: Vec<u32> = [
            part.entries.len(),
            fold[0] as usize,
            part.blocks,
            pending.losses,
            part.rows_at,
            part.blocks_at,
            distance,
        ]
        .map(|n| n as u32)
        .to_vec();
        words.push(floor.to_bits());
        words.extend(pending.bases.iter().map(|&base| base as u32));
        words.resize(4 * made.vectors, 0);
        let mut bindings = vec![self.words(&words)];
        bindings.extend([self.buffers.products, data, index].map(Binding::Whole));
        if sizes.halves > 0 {
            self.grow(self.buffers.partial, sizes.halves * distance);
            bindings.push(Binding::Whole(self.buffers.partial));
        }
        if terms.losses() {
            bindings.push(Binding::Whole(self.buffers.losses));
            pending.losses += part.blocks;
        }
        pending.commands.push(Command::Dispatch(Dispatch {
            shader,
            kind: DispatchKind::Data,
            bindings,
            workgroups: fold,
            work,
        }));
    }

    /// Adds what pieces summed, step by step, to numerator and denominator. The index of the part is in
    /// a buffer, with the contracted indices that belong together at some place in it.
    fn gather_pieces(
        &mut self,
        pending: &mut PendingPass<'_>,
        part: &SparsePart,
        terms: &StoredTerms,
        reason: Reason,
        (index, together_at): (BufferId, usize),
        sizes: &PassSizes,
    ) -> Result<()> {
        let &PassSizes { k, width, volume, halves } = sizes;
        let distance = part.slots * k;
        let first = if terms.numerator.is_some() { 0 } else { volume };
        // What is left of a sum over all entries cannot be negative, but for rounding.
        let corrects = reason == Reason::Corrections && terms.denominator.is_some();
        let rows = Gather::Rows { folds: k / width, clamp: corrects.then_some(halves - 1) };
        let steps = part.steps.iter().map(|&tasks| (Gather::Pieces, tasks, k));
        for (kind, tasks, width) in steps.chain([(rows, part.sums, width)]) {
            let GatherTasks { at, count } = tasks;
            let threads = halves * count * width;
            let fold = self.fold(threads.div_ceil(64));
            let words = [count, fold[0] as usize, at, distance, first, volume, width, together_at];
            let shader = self.shader(gather(k, halves, kind)?);
            let mut bindings = vec![self.words(&words.map(|n| n as u32))];
            bindings.extend([index, self.buffers.partial].map(Binding::Whole));
            if matches!(kind, Gather::Rows { .. }) {
                bindings.push(Binding::Whole(self.buffers.sums));
            }
            let dispatch = Command::Dispatch(Dispatch {
                shader,
                kind: DispatchKind::Small,
                bindings,
                workgroups: fold,
                work: threads as f64 * 8.0,
            });
            let name = self.name_in_operations(index);
            let text = gather_text(k, halves, kind, &name)?;
            let to_rows = matches!(kind, Gather::Rows { .. });
            let words = words.map(|n| n as u32);
            let operation = self.gather_operation(&text, (index, name), words, threads, to_rows);
            pending.commands.push(self.or_jointly(dispatch, vec![operation]));
        }
        Ok(())
    }
}

/// The contracted indices of a pass, those together that are the same in a row of the numerator.
fn contracted_together(pass: &SparsePass, shapes: &Shapes) -> Vec<u32> {
    let own: IndexSet = pass.indices.iter().collect();
    let sizes = shapes.sizes(&pass.contracted);
    let place = |k: usize| {
        let (mut left, mut place, mut stride) = (k, 0, 1);
        for (&x, &size) in pass.contracted.iter().zip(&sizes).rev() {
            if own.contains(x) {
                place += left % size * stride;
                stride *= size;
            }
            left /= size;
        }
        place
    };
    let mut contracted: Vec<u32> = (0..pass.contracted_size(shapes) as u32).collect();
    contracted.sort_by_key(|&k| (place(k as usize), k));
    contracted
}
