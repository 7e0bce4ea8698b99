//! The private module `nneinfact._nneinfact`: conversions, waiting, errors. What users see is written
//! in Python, in `nneinfact/`.
//!
//! Nothing of Python runs in the threads of a fit: [`wait`] says how callbacks and interrupts work.

mod arrays;
mod compare;
mod coupled;
mod density;
mod device;
mod errors;
mod fit;
mod fork;
mod labels;
mod losses;
mod observations;
mod program;
mod saved;
mod settings;
mod shared;
mod table;
mod wait;

/// What the package is made of; private.
#[pyo3::pymodule(gil_used = false)]
mod _nneinfact {
    #[pymodule_export]
    use crate::compare::compare;
    #[pymodule_export]
    use crate::coupled::fit_coupled;
    #[pymodule_export]
    use crate::density::{Density, Train, cross, fit_train, maximise_likelihood, sketch};
    #[pymodule_export]
    use crate::device::{Device, devices};
    #[pymodule_export]
    use crate::fit::{explain, fit, gradient};
    #[pymodule_export]
    use crate::losses::{Loss, loss_names};
    #[pymodule_export]
    use crate::observations::Observations;
    #[pymodule_export]
    use crate::program::{available_memory, program, version};
    #[pymodule_export]
    use crate::saved::Saved;
    #[pymodule_export]
    use crate::shared::part_of;
    #[pymodule_export]
    use crate::table::read_table;
}
