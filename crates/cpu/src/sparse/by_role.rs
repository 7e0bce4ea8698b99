//! What implicit zeros with roles add to a sparse pass: closed forms over the entries of each role.

use super::{GroupPass, GroupSums, add};
use crate::masked::{MaskedSums, RoleTotals};
use nneinfact_core::algebra::rearrange;
use nneinfact_core::data::Role;
use nneinfact_core::engine::{SparseProgram, ZeroContraction};
use nneinfact_core::plan::RoleTerm;
use nneinfact_simd::Elementwise;

impl<T: Elementwise> GroupPass<'_, T> {
    /// Adds the sums over the entries of each role. In an exact fit Q takes the place of the
    /// denominator.
    pub(super) fn role_sums(
        &self,
        program: &SparseProgram,
        masked: &MaskedSums,
        sums: &mut GroupSums,
    ) {
        let &GroupPass { engine, group, pass, wants, .. } = self;
        let (plan, data) = (&engine.job.plan, &engine.job.data);
        let loss = program.all.loss.contraction().filter(|_| wants.losses);
        let predicted = loss.is_some_and(|(_, of)| of != ZeroContraction::EntryCount);
        let RoleTotals { train, predicted } =
            masked.run::<T>(plan, data, group, &engine.factors, predicted);
        if let Some((by, of)) = loss {
            let total = |role: Role| match of {
                ZeroContraction::EntryCount => by * data.count(role) as f64,
                _ => by * predicted[role as usize],
            };
            sums.losses.train += total(Role::Train);
            sums.losses.validation += total(Role::Validation);
            sums.losses.held_out += total(Role::HeldOut);
        }
        if masked.pass(group).term == RoleTerm::Pairs {
            sums.denominator = train;
            return;
        }
        let terms = [
            (wants.numerator, &program.all.numerator, &mut sums.numerator),
            (wants.denominator, &program.all.denominator, &mut sums.denominator),
        ];
        for (wanted, sum, to) in terms {
            if let (true, Some((by, _))) = (wanted, sum.contraction()) {
                let indices = masked.pass(group).indices();
                let full = rearrange(self.shapes(), indices, &train, &pass.indices);
                add(to, full.into_iter().map(|x| x * by).collect());
            }
        }
    }
}
