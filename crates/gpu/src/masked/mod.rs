//! Closed forms where the factors are fitted to some entries only: `Σ W V` over the entries of each role,
//! without forming ŷ, by lists that stay on the device.

mod lists;
mod pass;
mod shaders;

pub(crate) use lists::RoleLists;
pub(crate) use pass::RoleOutput;
