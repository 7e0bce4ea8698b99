//! The fused dense pass: numerator, denominator and losses in one reading of the data.
//!
//! A pass is a *fused MTTKRP*. With Ŷ the model's prediction, V the product of all other factors and W
//! the weights of the entries, it computes the numerator Σ W a(Y, Ŷ)·V, the denominator Σ W b(Y, Ŷ)·V and
//! the losses Σ W ℓ(Y, Ŷ), where each sum runs over the modes that the output does not have. Neither Ŷ
//! nor `a`, `b` or ℓ ever exists as a tensor.
//!
//! The plan lays every pass out as a batched matrix product: Ŷ = A·B, with A the operands that have the
//! row modes, B those that have the column modes, and K the contracted modes. A *tile* of a few rows by
//! some hundred columns is read; its Ŷ is computed by a small GEMM; the loss's expressions are evaluated on
//! it; and its share of numerator and denominator is added by two more GEMMs, all within the second-level
//! cache. The files, from the bottom up:
//!
//! - `axis`: modes flattened into axes, and their offsets in memory
//! - `kernel`: the GEMM microkernels
//! - `strategy`: which kernels a pass uses
//! - `geometry`: how a pass is cut into tiles
//! - `work`: what a pass reads and computes, and its work items
//! - `evaluate`: reading entries, and `a`, `b` and the losses by the tape of any loss
//! - `register_block`: microkernels that form `a`, `b` and the losses of a block in registers
//! - `kl`: what they form under the Kullback–Leibler divergence, the default loss
//! - `power`: what they form at implicit zeros whose denominator is a power of ŷ
//! - `panel`: the A and B panels of a tile
//! - `tile`: a thread's buffers, and the work on one tile
//! - `stream`: the schedule of work items where data stay in a file
//! - `pass`: the schedule in memory

mod axis;
mod evaluate;
mod geometry;
mod kernel;
mod kl;
mod panel;
mod pass;
mod power;
mod register_block;
mod strategy;
mod stream;
mod tile;
mod work;

pub(crate) use evaluate::sum;
pub(crate) use geometry::{Geometry, aligned};
pub(crate) use pass::{DenseSums, run};
pub(crate) use stream::Schedule;
pub(crate) use work::{Source, Wants};
