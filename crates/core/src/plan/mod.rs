//! The planner: from a model, its sizes and a description of the data to what a fit will do.
//!
//! A sweep of a fit updates every factor once. Factors are partitioned into *groups*; one *pass*
//! over the data serves one group. It is a *fused MTTKRP*: it forms ŷ entry by entry, evaluates the
//! loss's `a` and `b` there, and multiplies both with the Khatri–Rao products of the other factors,
//! in one go: `N = Σ W a(Y, Ŷ) V` and `D = Σ W b(Y, Ŷ) V`, the numerator and the denominator of the
//! group's product tensor (the *output*), from which all factors of the group are updated without
//! touching the data again. The planner decides
//!
//! - which factors form a group (the *cut*),
//! - for each pass, which products of the other factors are stored as *operands* and which stay
//!   *virtual*, their product being formed tile by tile inside the pass,
//! - for each pass, its *layout*: which indices run inside a tile as *rows* and *columns*, and
//!   which are looped over outside (*batch*), such that the data are read in the order they lie in
//!   memory and no operand depends on rows and columns at once,
//! - for every small contraction, the pairwise order of least work.
//!
//! Data that are mostly zeros are planned as stored entries ([`SparseInfo`]): a *sparse pass*
//! ([`SparsePass`]) forms ŷ at the stored entries only (an SDDMM) and sums over them (a sparse
//! MTTKRP), looking up rows of Khatri–Rao products. What the *implicit entries*, which are not
//! stored, add to the denominator is a contraction of factors, or takes an *implicit-zero pass*: a
//! dense pass that reads no values.
//!
//! A [`Plan`] is a plain value. It is built without a device, can be printed ([`Plan`] implements
//! [`Display`](std::fmt::Display)), and any plan is correct: a plan changes the speed and, for
//! grouped algorithms, the path of a fit, never what it converges on.
//!
//! ```
//! use nneinfact::model::{Model, Shapes};
//! use nneinfact::plan::{DataInfo, Grouping, Plan, PlanSettings};
//!
//! let model = Model::parse("wr,dr,hr,irk,jrk->wdhij")?;
//! let shapes = Shapes::new(&model, &[27, 7, 24, 100, 100], &[('r', 10), ('k', 6)])?;
//! let plan = Plan::new(&shapes, &DataInfo::c_order(&shapes, 2), &PlanSettings::default())?;
//! assert_eq!(plan.groups().len(), 2);
//! println!("{plan}");
//! # Ok::<(), nneinfact::Error>(())
//! ```

mod arrange;
mod balancing;
mod contraction;
mod cost;
mod error;
mod explain;
mod input;
mod large;
mod layout;
mod quadratic;
mod role_pass;
mod search;
mod sparse;
mod sparse_search;
mod value;

pub use balancing::opposites;
pub use balancing::{Balancing, Rescaling, RescalingStep};
pub use contraction::{Contraction, ContractionInput, ContractionStep};
pub use error::PlanError;
pub use input::{DataInfo, Grouping, PlanSettings};
pub use layout::{Layout, Operand, OperandSide};
pub use quadratic::{Coupling, Quadratic};
pub use role_pass::{ROLE_BLOCK, RolePass, RoleTerm};
pub use sparse::{Gram, ImplicitForm, ImplicitTotals, KhatriRaoTable, SparseInfo, SparsePass};
pub use value::{Group, Pass, Plan};
