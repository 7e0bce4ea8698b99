//! The shaders of the GPU engine, as files that people can read, and the text that several of them
//! include.
//!
//! The files are templates. `$name` stands for a word that is filled in for each plan; lines of their
//! own are `{{include NAME}}`, which stands for `include/NAME.wgsl`, and `{{if FLAG}}`, `{{else}}`
//! and `{{end}}` around lines that are kept where a flag is set. The crate `nneinfact-gpu` fills them
//! in (`program/template.rs`).

#![deny(missing_docs)]

/// Templates by constants of their own.
macro_rules! templates {
    ($($name:ident = $file:literal),* $(,)?) => {
        $(
            #[doc = concat!("`", $file, "`.")]
            pub const $name: &str = include_str!($file);
        )*
    };
}

templates! {
    APPLY = "apply.wgsl",
    APPLY_FLOOR = "apply_floor.wgsl",
    APPLY_SMALL = "apply_small.wgsl",
    ASLEEP = "asleep.wgsl",
    BEGIN_UPDATE = "begin_update.wgsl",
    CONTRACT = "contract.wgsl",
    CONTRACT_SHARED = "contract_shared.wgsl",
    DENSE_PASS = "dense_pass.wgsl",
    DESCEND = "descend.wgsl",
    DECIDE = "decide.wgsl",
    GATHER = "gather.wgsl",
    JOINT = "joint.wgsl",
    JOINT_APPLY = "joint/apply.wgsl",
    JOINT_BEGIN_UPDATE = "joint/begin_update.wgsl",
    JOINT_CLEAR = "joint/clear.wgsl",
    JOINT_CONTRACT = "joint/contract.wgsl",
    JOINT_CONTRACT_SHARED = "joint/contract_shared.wgsl",
    JOINT_COPY = "joint/copy.wgsl",
    JOINT_GATHER = "joint/gather.wgsl",
    JOINT_LARGEST = "joint/largest.wgsl",
    JOINT_STEP = "joint/step.wgsl",
    JOINT_SUM_LOSSES = "joint/sum_losses.wgsl",
    RESCALE = "rescale.wgsl",
    ROLE_REST = "role_rest.wgsl",
    ROLE_SUMS = "role_sums.wgsl",
    ROOFLINE = "roofline.wgsl",
    SCALE_SLICES = "scale_slices.wgsl",
    SPARSE_PASS = "sparse_pass.wgsl",
    STEP = "step.wgsl",
    SUM_LOSSES = "sum_losses.wgsl",
    SUM_POWERS = "sum_powers.wgsl",
    TILE_ENTRIES = "tile_entries.wgsl",
    TILE_SUMS = "tile_sums.wgsl",
    WEIGHTED_REST = "weighted_rest.wgsl",
    ZERO_ROWS = "zero_rows.wgsl",
}

/// The includes, by name.
macro_rules! includes {
    ($($name:literal),* $(,)?) => {
        /// What templates include: the name, and the text of `include/NAME.wgsl`.
        pub const INCLUDES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("include/", $name, ".wgsl")))),*];
    };
}

includes! {
    "add_pieces",
    "add_term",
    "begin_entry",
    "change_entry",
    "contraction_bindings",
    "finish_step",
    "gather_task",
    "output_axes",
    "penalized_step",
    "reduce_losses",
    "role_head",
    "solve_log",
    "solve_power",
    "step_entry",
    "store_output",
    "store_tile",
    "sum_lane_terms",
    "sum_lanes",
    "sum_terms",
    "term_axes",
    "workgroup_max",
}

/// Entries of a factor that a workgroup of `apply.wgsl` finds the largest of.
pub const CHUNK: usize = 1024;
/// Workgroups of `apply.wgsl` in the first dimension, where there are more.
pub const CHUNK_FOLD: usize = 32_768;
/// Columns that `tile_sums.wgsl` loads at a time, and contracted indices of `tile_entries.wgsl`.
pub const TILE_DEPTH: usize = 16;
/// Sums of losses that `sum_losses.wgsl` leaves for each role: the host adds them in double precision.
pub const LOSS_SUMS: usize = 32;
/// Words of the course of sweeps before their weights: `decide.wgsl`.
pub const COURSE_HEAD: usize = 4;
/// Chains of multiply-adds of `roofline.wgsl`.
pub const CHAINS: usize = 8;
/// Multiply-adds of a chain of `roofline.wgsl`.
pub const MULTIPLY_ADDS: usize = 512;
/// Powers, or logarithms, that a thread of `roofline.wgsl` computes.
pub const POWERS: usize = 64;

/// The text of an include.
#[must_use]
pub fn include(name: &str) -> Option<&'static str> {
    INCLUDES.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_those_of_the_shaders() {
        for (text, line) in [
            (APPLY, format!("const CHUNK = {CHUNK}u;")),
            (APPLY, format!("let chunk = group.y * {CHUNK_FOLD}u + group.x;")),
            (TILE_ENTRIES, format!("const DEPTH = {TILE_DEPTH}u;")),
            (TILE_SUMS, format!("const DEPTH = {TILE_DEPTH}u;")),
            (SUM_LOSSES, format!("const SUMS = {LOSS_SUMS}u;")),
            (JOINT_SUM_LOSSES, format!("let SUMS = {LOSS_SUMS}u;")),
            (DECIDE, format!("const SUMS = {LOSS_SUMS}u;")),
            (DECIDE, format!("const COURSE_HEAD = {COURSE_HEAD}u;")),
            (ROOFLINE, format!("const MULTIPLY_ADDS = {MULTIPLY_ADDS}u;")),
            (ROOFLINE, format!("const POWERS = {POWERS}u;")),
        ] {
            assert!(text.lines().any(|l| l.trim() == line), "{line}");
        }
        assert_eq!(ROOFLINE.matches("= fma(v").count(), CHAINS);
    }
}
