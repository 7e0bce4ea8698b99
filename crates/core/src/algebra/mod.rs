//! The small algebra of factors, in double precision on the host: contractions, the
//! multiplicative update, balancing, coordinate descent.

pub mod balance;
pub mod contract;
pub mod eigen;
mod neighbour_descent;
pub mod quadratic;
pub mod twofold;
pub mod update;

pub use contract::{contract, contract_within, rearrange};
pub use twofold::{Twofold, contract_twofold};
pub use update::{apply_floor, overflowed};
