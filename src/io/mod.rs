//! Files: tables of events, `.npy`, `.npz` and `.tns`, sparse matrices.
//!
//! A [`Table`] of events or observations becomes a tensor whose modes and indices have names, and
//! the names go with it into the fit, its file and its report:
//!
//! ```
//! use nneinfact::io::Table;
//! use nneinfact::NNEinFact;
//!
//! let rides = "time,zone\n\
//!     2014-04-01 08:10:00,Harlem\n\
//!     2014-04-01 08:50:00,Harlem\n\
//!     2014-04-02 23:15:00,SoHo\n";
//! let table = Table::from_reader(rides.as_bytes(), "rides.csv").modes("hour(time),zone")?;
//! let data = table.read()?.observations()?;
//!
//! let fit = NNEinFact::new("hr,zr->hz")?.ranks([('r', 2)]).fit(&data)?;
//! let zone = fit.labels('z').expect("the table has them").find("Harlem")?;
//! assert!((fit.predict(&[8, zone])? - 2.0).abs() < 1e-3);
//! # Ok::<(), nneinfact::Error>(())
//! ```

mod named_tensor;
mod npz_lists;

pub use named_tensor::{NamedTensor, arrangement, read_scipy};
pub use nneinfact_fit::io::{
    ArrayInfo, FileKind, FileLock, NpyExtent, NpzMember, NpzRun, SLAB_BYTES, TnsOptions, Unpack,
    map_bool, map_bool_part, map_npy, map_npy_in, map_npy_part, npy_extent, npz_extent, npz_names,
    read_array_f64, read_bool, read_bool_part, read_dense, read_npy, read_npy_from, read_npy_part,
    read_npz, read_npz_arrays, read_npz_arrays_from, read_npz_from, read_npz_part, read_npz_runs,
    read_npz_strings, read_npz_strings_from, read_npz_text, read_npz_text_from, read_tns,
    read_tns_from, read_tns_from_with, read_tns_shared, read_tns_with, write_json, write_members,
    write_members_to, write_npy, write_npy_integers, write_npz, write_npz_with, write_text,
};
pub use nneinfact_table::{
    Axis, Counts, Filter, Function, Implicit, Mode, ModeSpec, Modes, SparseMatrix, Table,
    TableTensor, Values as TableValues, describe_foreign, is_10x, read_10x, read_matrix_market,
    read_matrix_market_from, read_names,
};
pub use npz_lists::{KeepPart, read_scipy_part};
#[cfg(feature = "cli")]
pub(crate) use npz_lists::{is_coordinates, is_scipy, labels_of_part};
