//! How to get from a question to an answer, case by case.
//!
#![doc = include_str!("guide/links.md")]
#![doc = include_str!("../docs/guide/README.md")]

// The chapters are files, to be read as they are, and part of the documentation, so that their snippets are
// compiled and run with the tests. Links between chapters lead to files there and to modules here: of two
// definitions of a link the first one counts, and `guide/links.md` comes first.

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/tables.md")]
pub mod tables {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/models.md")]
pub mod models {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/losses.md")]
pub mod losses {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/missing.md")]
pub mod missing {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/ranks.md")]
pub mod ranks {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/constraints.md")]
pub mod constraints {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/structure.md")]
pub mod structure {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/reports.md")]
pub mod reports {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/questions.md")]
pub mod questions {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/densities.md")]
pub mod densities {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/speed.md")]
pub mod speed {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/clusters.md")]
pub mod clusters {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/programs.md")]
pub mod programs {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/method.md")]
pub mod method {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/acceleration.md")]
pub mod acceleration {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/limits.md")]
pub mod limits {}
