//! The columns of stored entries, and how they are cut.

use super::*;
use crate::tests::jobs::{few, job_stored};
use nneinfact_core::data::{Implicit, Observations};
use nneinfact_core::engine::Job;
use nneinfact_core::loss::Loss;
use nneinfact_core::plan::Grouping;

fn stored(y: &ndarray::ArrayD<f64>, observe: impl Fn(Observations) -> Observations) -> Job {
    let ranks = [('r', 2)];
    let (loss, grouping) = (Loss::kl(), Grouping::Block);
    job_stored(y, "ir,jr,ar->ija", &ranks, loss, grouping, Implicit::Zeros, observe)
}

/// Adds up numbers of entries as `sparse_pass.wgsl` and `gather.wgsl` do, by the row of the output.
fn sums(
    columns: &EntryColumns,
    parts: &[SparsePart],
    cut: &CutLimits,
    rows: usize,
    x: &[f64],
) -> Vec<f64> {
    let mut sums = vec![0.0; rows];
    let mut end = 0;
    for part in parts {
        assert_eq!(part.entries.start, end, "parts follow one another");
        end = part.entries.end;
        let index = |at: usize| part.index[at] as usize;
        let mut slots = vec![f64::NAN; part.slots];
        for block in 0..part.blocks {
            let (first, end) = (index(part.blocks_at + block), index(part.blocks_at + block + 1));
            assert!((1..=cut.block).contains(&(index(end) - index(first))));
            for (piece, slot) in slots.iter_mut().enumerate().take(end).skip(first) {
                let entries = index(piece)..index(piece + 1);
                assert!((1..=cut.piece).contains(&entries.len()));
                let entries = part.entries.start + entries.start..part.entries.start + entries.end;
                let row =
                    columns.rows.iter().position(|&r| r as usize == index(part.rows_at + piece));
                let row = row.expect("a row with entries");
                assert!(
                    columns.starts[row] <= entries.start && entries.end <= columns.starts[row + 1]
                );
                *slot = x[entries].iter().sum();
            }
        }
        let task = |at: usize| [index(at), index(at + 1), index(at + 2)];
        for step in &part.steps {
            for i in 0..step.count {
                let [to, from, end] = task(step.at + 3 * i);
                assert!(end - from <= FAN && slots[to].is_nan() && to >= end);
                slots[to] = slots[from..end].iter().sum();
            }
        }
        for i in 0..part.sums.count {
            let [row, from, end] = task(part.sums.at + 3 * i);
            assert!(end - from <= FAN);
            sums[row] += slots[from..end].iter().sum::<f64>();
        }
    }
    assert_eq!(end, columns.len());
    sums
}

#[test]
fn every_entry_is_summed_once_into_its_row() {
    // A row with most of the entries, rows with a few, and rows without any.
    let y = ndarray::ArrayD::from_shape_fn(vec![9, 90, 80], |at| {
        let chance = match at[0] {
            4 => 100,
            2 | 7 => 0,
            _ => 2,
        };
        let hash = ((at[0] * 90 + at[1]) * 80 + at[2]).wrapping_mul(2_654_435_761) >> 8;
        if hash % 100 < chance { 1.0 } else { 0.0 }
    });
    let job = stored(&y, |o| o);
    let (plan, entries) = (&job.plan, job.stored.as_ref().expect("stored entries"));
    let pass = &plan.sparse_passes()[0];
    let columns = EntryColumns::new(plan.shapes(), pass, entries, StoredPart::Train, &[], 1.0);
    assert!(columns.len() > 7000);
    let x: Vec<f64> = (0..columns.len()).map(|i| (i % 13) as f64).collect();
    let mut expected = vec![0.0; 9];
    for (row, bounds) in columns.rows.iter().zip(columns.starts.windows(2)) {
        expected[*row as usize] = x[bounds[0]..bounds[1]].iter().sum();
    }
    for (block, piece) in [(1, 1), (7, 3), (128, 16), (128, 128)] {
        for (entries, pieces, blocks) in [(1 << 20, 1 << 20, 1 << 20), (500, 300, 5), (1, 1, 1)] {
            let cut = CutLimits { block, piece, entries, pieces: pieces.max(block), blocks };
            let parts = columns.cut(&cut);
            assert_eq!(sums(&columns, &parts, &cut, 9, &x), expected, "{cut:?}");
            for part in &parts {
                let most = (1..).find(|&slots| CutLimits::pieces(slots) >= part.rows_at - 1);
                assert!(part.slots <= most.expect("a number of places"));
            }
        }
    }
}

#[test]
fn rows_with_little_left_are_summed_as_they_are() {
    let y = few(&[4, 6, 5]);
    // Missing: nothing of row 0, a bit of row 1, most of row 2, all of row 3.
    let mask = ndarray::ArrayD::from_shape_fn(vec![4, 6, 5], |at| match at[0] {
        0 => true,
        1 => at[1] != 3,
        2 => at[1] == 4 && at[2] != 0,
        _ => false,
    });
    let job = stored(&y, |o| o.mask(&mask).expect("a mask"));
    let (plan, entries) = (&job.plan, job.stored.as_ref().expect("stored entries"));
    let pass = &plan.sparse_passes()[0];
    let (found, zeroed) = EntryColumns::corrections(plan.shapes(), pass, entries, &[]);
    assert_eq!(zeroed, [2, 3]);
    assert_eq!((found.rows.as_slice(), found.starts.as_slice()), (&[1, 2][..], &[0, 5, 9][..]));
    let signs: Vec<f32> =
        found.columns[pass.operands.len()].iter().map(|&x| f32::from_bits(x)).collect();
    assert_eq!(signs, [[-1.0; 5].as_slice(), &[1.0; 4]].concat());
    let along = |mode: char| {
        let index = nneinfact_core::model::Index::new(mode).expect("an index");
        pass.operands.iter().position(|t| t.rows == [index])
    };
    if let (Some(j), Some(a)) = (along('j'), along('a')) {
        assert_eq!(found.columns[j], [3, 3, 3, 3, 3, 4, 4, 4, 4]);
        assert_eq!(found.columns[a], [0, 1, 2, 3, 4, 1, 2, 3, 4]);
    } else {
        // One table of both.
        assert_eq!(found.columns[0], [15, 16, 17, 18, 19, 21, 22, 23, 24]);
    }
}
