//! The shaders of the GPU engine, as files that people can read. Words in `{{…}}` are filled in for each plan.

/// `apply.wgsl`.
pub const APPLY: &str = include_str!("apply.wgsl");
/// `apply_whole.wgsl`.
pub const APPLY_WHOLE: &str = include_str!("apply_whole.wgsl");
/// `begin.wgsl`.
pub const BEGIN: &str = include_str!("begin.wgsl");
/// `contract.wgsl`.
pub const CONTRACT: &str = include_str!("contract.wgsl");
/// `contract_shared.wgsl`.
pub const CONTRACT_SHARED: &str = include_str!("contract_shared.wgsl");
/// `drop.wgsl`.
pub const DROP: &str = include_str!("drop.wgsl");
/// `entries.wgsl`.
pub const ENTRIES: &str = include_str!("entries.wgsl");
/// `gather.wgsl`.
pub const GATHER: &str = include_str!("gather.wgsl");
/// `listed.wgsl`.
pub const LISTED: &str = include_str!("listed.wgsl");
/// `losses.wgsl`.
pub const LOSSES: &str = include_str!("losses.wgsl");
/// `pass.wgsl`.
pub const PASS: &str = include_str!("pass.wgsl");
/// `powers.wgsl`.
pub const POWERS: &str = include_str!("powers.wgsl");
/// `raise.wgsl`.
pub const RAISE: &str = include_str!("raise.wgsl");
/// `rates.wgsl`.
pub const RATES: &str = include_str!("rates.wgsl");
/// `scale.wgsl`.
pub const SCALE: &str = include_str!("scale.wgsl");
/// `step.wgsl`.
pub const STEP: &str = include_str!("step.wgsl");
/// `sums.wgsl`.
pub const SUMS: &str = include_str!("sums.wgsl");
/// `trade.wgsl`.
pub const TRADE: &str = include_str!("trade.wgsl");
