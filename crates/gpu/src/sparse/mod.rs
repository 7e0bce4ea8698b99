//! Passes over stored entries (SDDMM and sparse MTTKRP in one), and what implicit entries add.
//!
//! [`columns`] lays stored entries out for a device, once, on the host; [`shaders`] fills in the shaders
//! that go over them; [`pass`] makes commands of them and of closed forms over all entries.

pub(crate) mod columns;
pub(crate) mod pass;
pub(crate) mod shaders;
