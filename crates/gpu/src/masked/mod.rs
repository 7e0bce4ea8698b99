//! Closed forms where the factors are fitted to some entries only: `Σ W V` over the entries of each role,
//! without forming ŷ, by lists that stay on the device.

mod pass;
mod role_lists;
mod shaders;

pub(crate) use pass::RoleOutput;
pub(crate) use role_lists::RoleLists;
