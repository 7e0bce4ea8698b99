//! What the shaders of a dense pass are made from.

use super::entries::{EntryFormat, EntryTerms, PassOutputs};
use super::geometry::Geometry;
use crate::program::recording::GpuLimits;
use nneinfact_core::plan::Plan;

/// What the text of a shader depends on.
#[derive(Clone, Copy)]
pub(crate) struct PassText<'a> {
    pub plan: &'a Plan,
    pub geometry: &'a Geometry,
    pub format: &'a EntryFormat,
    pub terms: &'a EntryTerms,
    pub wants: PassOutputs,
    pub limits: &'a GpuLimits,
}
