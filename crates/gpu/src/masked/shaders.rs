//! The shaders of sums over the entries of each role: `role_sums.wgsl` and `role_rest.wgsl`.

use crate::program::recording::{Access, GpuLimits, Shader};
use crate::program::template::fill;
use nneinfact_core::engine::role_lists::ROWS;
use nneinfact_core::error::Result;
use nneinfact_core::plan::ROLE_BLOCK;

/// Threads of a workgroup that sums over lists, where the device allows as many.
const THREADS: u32 = 256;
/// The same of one that goes over lines: `role_rest.wgsl`.
pub(super) const REST_THREADS: usize = 64;

/// A shader that sums over listed columns, with what a dispatch of it depends on.
pub(super) struct RoleSumsShader {
    pub shader: Shader,
    /// Lines of a workgroup.
    pub lines: usize,
    /// Workgroups that share the numbers of a line.
    pub tiles: usize,
}

/// Sums for each role, or only what training entries need, of so many numbers a line.
pub(super) fn role_sums(k: usize, roles: bool, limits: &GpuLimits) -> Result<RoleSumsShader> {
    let threads = limits.most_threads(THREADS) as usize;
    let room = limits.workgroup_bytes as usize / (4 * ROLE_BLOCK);
    let tiles = k.div_ceil(room.clamp(1, threads));
    let lanes = k.div_ceil(tiles);
    let lines = threads / lanes;
    let panel = ROLE_BLOCK * lanes;
    let words = [
        ("k", format!("{k}u")),
        ("lanes", format!("{lanes}u")),
        ("lines", format!("{lines}u")),
        ("threads", format!("{threads}u")),
        ("tiles", format!("{tiles}u")),
        ("block", format!("{ROLE_BLOCK}u")),
        ("chunk", format!("{ROWS}u")),
        ("slots", format!("{}u", slots(roles))),
        ("panel", format!("{panel}")),
    ];
    let read = Access::Read;
    let shader = Shader {
        label: "sums over listed columns".into(),
        source: fill(nneinfact_shaders::ROLE_SUMS, &[("roles", roles)], &words)?,
        bindings: vec![Access::Uniform, read, read, read, Access::ReadWrite],
        invocations: threads as u32,
        workgroup_bytes: 4 * panel as u32,
    };
    Ok(RoleSumsShader { shader, lines, tiles })
}

/// Sums that a line has of each of its numbers.
pub(super) fn slots(roles: bool) -> usize {
    if roles { 4 } else { 1 }
}

/// What lists leave, with sums of predictions where they are wanted.
pub(super) fn role_rest(k: usize, losses: bool) -> Result<Shader> {
    let words = [
        ("k", format!("{k}u")),
        ("block", format!("{ROLE_BLOCK}u")),
        ("own_loss", "loss".into()),
        ("loss_place", "uniforms[3].y + workgroup".into()),
    ];
    let read = Access::Read;
    let mut bindings = vec![Access::Uniform, read, read, read, read, read, Access::ReadWrite];
    if losses {
        bindings.extend([read, Access::ReadWrite]);
    }
    let flags = [("losses", losses), ("roles", losses)];
    Ok(Shader {
        label: "what lists leave".into(),
        source: fill(nneinfact_shaders::ROLE_REST, &flags, &words)?,
        bindings,
        invocations: REST_THREADS as u32,
        workgroup_bytes: if losses { 16 * REST_THREADS as u32 } else { 0 },
    })
}
