//! The shaders of sums over the entries of each role: `role_sums.wgsl` and `role_rest.wgsl`; where entries count by
//! their weights, `weighted_rest.wgsl` in place of the latter.

use crate::program::recording::{Access, GpuLimits, Shader};
use crate::program::template::fill;
use nneinfact_core::engine::role_lists::ROWS;
use nneinfact_core::error::Result;
use nneinfact_core::plan::{ROLE_BLOCK, RoleTerm};

/// Threads of a workgroup that sums over lists, where the device allows as many.
const THREADS: u32 = 256;
/// The same of one that goes over lines: `role_rest.wgsl`.
pub(super) const REST_THREADS: usize = 64;

/// The numbers that a line has.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineNumbers {
    pub term: RoleTerm,
    /// Values of the latent indices.
    pub latent: usize,
}

impl LineNumbers {
    /// Those that are summed over lists: latent indices, or pairs of them, each once.
    pub fn listed(self) -> usize {
        match self.term {
            RoleTerm::Linear => self.latent,
            RoleTerm::Pairs => self.latent * (self.latent + 1) / 2,
        }
    }

    /// Those of its sums: of pairs a square matrix.
    pub fn all(self) -> usize {
        match self.term {
            RoleTerm::Linear => self.latent,
            RoleTerm::Pairs => self.latent * self.latent,
        }
    }

    fn are_pairs(self) -> bool {
        self.term == RoleTerm::Pairs
    }

    /// The word for the latent indices, where a shader has it.
    fn latent_word(self) -> Option<(&'static str, String)> {
        self.are_pairs().then(|| ("latent", format!("{}u", self.latent)))
    }
}

/// Which columns of a line count, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// Those of training entries.
    Train,
    /// Those of each role, apart.
    Roles,
    /// All, by weights.
    Weights,
}

impl Counted {
    /// Sums that a line has of each of its numbers.
    pub fn slots(self) -> usize {
        if self == Counted::Roles { 4 } else { 1 }
    }
}

/// The shader that sums over columns, with what a dispatch of it depends on.
pub(super) struct RoleSumsShader {
    pub shader: Shader,
    /// Lines of a workgroup.
    pub lines: usize,
    /// Workgroups that share the numbers of a line.
    pub tiles: usize,
}

/// Sums over the columns of lines.
pub(super) fn role_sums(
    numbers: LineNumbers,
    counted: Counted,
    limits: &GpuLimits,
) -> Result<RoleSumsShader> {
    let (k, pairs) = (numbers.listed(), numbers.are_pairs());
    let threads = limits.most_threads(THREADS) as usize;
    // A column of a panel, and for pairs which two latent indices it is made of.
    let column = ROLE_BLOCK + if pairs { 2 } else { 0 };
    let room = limits.workgroup_bytes as usize / (4 * column);
    let tiles = k.div_ceil(room.clamp(1, threads));
    let lanes = k.div_ceil(tiles);
    let lines = threads / lanes;
    let mut words = vec![
        ("k", format!("{k}u")),
        ("lanes", format!("{lanes}u")),
        ("lines", format!("{lines}u")),
        ("threads", format!("{threads}u")),
        ("tiles", format!("{tiles}u")),
        ("block", format!("{ROLE_BLOCK}u")),
        ("chunk", format!("{ROWS}u")),
        ("slots", format!("{}u", counted.slots())),
        ("panel", format!("{}", ROLE_BLOCK * lanes)),
    ];
    words.extend(numbers.latent_word());
    let weighted = counted == Counted::Weights;
    let flags = [("roles", counted == Counted::Roles), ("pairs", pairs), ("weighted", weighted)];
    let read = Access::Read;
    let mut bindings = vec![Access::Uniform, read, read];
    if !weighted {
        bindings.push(read);
    }
    bindings.push(Access::ReadWrite);
    let shader = Shader {
        label: if weighted { "sums over weighted columns" } else { "sums over listed columns" }
            .into(),
        source: fill(nneinfact_shaders::ROLE_SUMS, &flags, &words)?,
        bindings,
        invocations: threads as u32,
        workgroup_bytes: (4 * column * lanes) as u32,
    };
    Ok(RoleSumsShader { shader, lines, tiles })
}

/// What lists leave, with sums of predictions where they are wanted.
pub(super) fn role_rest(numbers: LineNumbers, losses: bool) -> Result<Shader> {
    let mut words = vec![
        ("k", format!("{}u", numbers.all())),
        ("width", format!("{}u", numbers.listed())),
        ("block", format!("{ROLE_BLOCK}u")),
        ("own_loss", "loss".into()),
        ("loss_place", "uniforms[3].y + workgroup".into()),
    ];
    words.extend(numbers.latent_word());
    let read = Access::Read;
    let mut bindings = vec![Access::Uniform, read, read, read, read, read, Access::ReadWrite];
    if losses {
        bindings.extend([read, Access::ReadWrite]);
    }
    let flags = [("losses", losses), ("roles", losses), ("pairs", numbers.are_pairs())];
    Ok(Shader {
        label: "what lists leave".into(),
        source: fill(nneinfact_shaders::ROLE_REST, &flags, &words)?,
        bindings,
        invocations: REST_THREADS as u32,
        workgroup_bytes: if losses { 16 * REST_THREADS as u32 } else { 0 },
    })
}

/// The sums of splits as a matrix for every line.
pub(super) fn weighted_rest(numbers: LineNumbers) -> Result<Shader> {
    let words = [("latent", format!("{}u", numbers.latent))];
    Ok(Shader {
        label: "sums over weighted columns as matrices".into(),
        source: fill(nneinfact_shaders::WEIGHTED_REST, &[], &words)?,
        bindings: vec![Access::Uniform, Access::Read, Access::ReadWrite],
        invocations: REST_THREADS as u32,
        workgroup_bytes: 0,
    })
}
