//! The readers as their users see them.

mod edges;
mod functions;
mod robust;
mod sparse;
mod specs;
