//! Closed forms where the factors are fitted to some entries only: `Σ W V` and `Σ W V Vᵀ` over the entries of each
//! role, without forming ŷ, by lists (or weights) that stay on the device.

mod pass;
mod role_lists;
mod shaders;

pub(crate) use pass::{RoleOutput, RoleTarget};
pub(crate) use role_lists::{RoleLists, role_pass};
