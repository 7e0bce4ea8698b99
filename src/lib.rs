//! Fits any nonnegative tensor factorization that can be written as an einsum string.
//!
//! A model is written `f_1,f_2,…->out`, every factor and the data by the letters of its axes.
//! Letters after the arrow are the modes of the data; the others are latent and take a rank. So
//! `ir,jr->ij` is NMF, `ir,jr,kr->ijk` nonnegative CP, `ia,jb,kc,abc->ijk` Tucker, and
//! `wr,dr,hr,irk,jrk->wdhij` a model of one's own. Given nonnegative data, [`NNEinFact`] finds
//! nonnegative factors under one of many [losses](loss), with missing or weighted entries.
//!
//! ```
//! use ndarray::Array3;
//! use nneinfact::{Device, Loss, NNEinFact};
//!
//! let y = Array3::from_shape_fn((12, 10, 8), |(i, j, k)| ((i * j + k) % 7) as f32);
//!
//! let fit = NNEinFact::new("ik,jqk,aiq,q->ija")?
//!     .ranks([('k', 3), ('q', 2)])
//!     .loss(Loss::alpha_beta(0.7, 0.0)?)
//!     .device(Device::cpu())
//!     .max_iter(50)
//!     .fit(&y)?;
//!
//! assert_eq!(fit.factors()[1].shape(), [10, 2, 3]);
//! assert!(fit.history().last_loss() < fit.history().loss[0]);
//! # Ok::<(), nneinfact::Error>(())
//! ```
//!
//! Masks, weights, missing values and held-out entries are part of [`Observations`]:
//!
//! ```
//! use ndarray::array;
//! use nneinfact::{NNEinFact, Observations};
//!
//! let y = array![[4.0, 2.0, f64::NAN], [2.0, 1.0, 3.0], [8.0, 4.0, 12.0]];
//! let observations = Observations::new(&y).nan_missing();
//! let fit = NNEinFact::new("ir,jr->ij")?.ranks([('r', 1)]).fit(&observations)?;
//! assert!((fit.predict(&[0, 2])? - 6.0).abs() < 0.01);
//! # Ok::<(), nneinfact::Error>(())
//! ```
//!
//! # Where to look
//!
//! - [`guide`]: which model and which loss for which question, held-out data, ranks, speed, limits.
//! - [`fit`]: settings, algorithms, stopping, history, observers, predictions.
//! - [`loss`]: the losses, and how to write one of your own.
//! - [`density`]: distributions over many variables as nonnegative tensor trains.
//! - [`data`]: masks, weights, splits; tensors in the smallest type that holds them.
//! - [`compare`]: many fits to the same data, a table of them, and which components they agree on.
//! - [`io`]: tables of events, and `.npy`, `.npz`, `.tns` and other files.
//! - [`plan`]: what a fit will do, without doing it.
//! - [`report`]: a fit as a page with plots.
//! - [`query`]: what a fit answers without ŷ being formed.
//! - [`reference`](mod@reference): the method in naive loops, to check everything else against.
//!
//! # Guarantees
//!
//! The training loss never rises from sweep to sweep (up to rounding; Adam, which is there for
//! comparisons, is the exception). The same input, seed and device give the same bits, with any
//! number of threads, and over [slabs](NNEinFact::slabs) with any number of processes. Bad input is an [`Error`] that says what is wrong, where, and what would be
//! accepted. Nothing reachable from this interface panics but the few functions whose documentation
//! says when, under *Panics*: the [reference](mod@reference), and parts to build engines from, such
//! as [`loss::Tape`] and [`data::Dense::load`]. A fit that would take more memory than there is, is
//! an error before its factors, sums and products are allocated; a process whose memory runs out
//! nevertheless is ended by its system, as any is.
//!
//! The method is NNEinFact (Hood & Schein 2026, arXiv 2602.02759), with grouped joint
//! majorization for fewer passes over the data.

#![deny(missing_docs)]

#[cfg(feature = "cli")]
pub mod cli;
pub mod guide;
pub mod io;

/// Many fits to the same data, a table of them, and which components they agree on.
pub mod compare {
    pub use nneinfact_insight::compare::*;
}

/// Observations: values, masks, weights, splits; tensors in the smallest type that holds them.
pub mod data {
    pub use nneinfact_core::data::{
        Column, CooBuilder, CooTensor, Dense, DenseBuilder, Element, Implicit, Indices, LabelKind,
        Labels, Mapped, Observations, Order, Outside, Part, Portion, Prepared, Role, Roles,
        SplitKind, Storage, StoredCounts, StoredEntries, Strata, Stratum, Values, describe_index,
        printable, uniform_u32,
    };
}

/// Distributions over many discrete variables as nonnegative tensor trains: from a function, from samples,
/// and what to ask of them.
///
/// ```
/// use nneinfact::density::{Density, Sketch, TrainFit};
/// # use nneinfact::density::NonnegativeTrain;
/// # let truth = Density::new(&NonnegativeTrain::random(&[2, 3, 2, 2], &[2, 2, 2], 7)?)?;
/// # let samples = truth.sample(5000, 1)?;
///
/// // `samples` are rows of values of four variables: a train of any sign, then one without negatives.
/// let sketch = Sketch::new(vec![2, 3, 2, 2]).rank(2).run(&samples, None)?;
/// let fit = TrainFit::new().rank(3).sweeps(20).run(&sketch.train)?;
///
/// let density = Density::new(&fit.train)?;
/// let both = density.marginal(&[0, 3])?;
/// assert_eq!(both.shape(), [2, 2]);
/// assert!(density.nll(&samples, None)?.mean < (2.0 * 3.0 * 2.0 * 2.0f64).ln());
/// # Ok::<(), nneinfact::Error>(())
/// ```
pub mod density {
    pub use nneinfact_density::{
        Conditional, Core, Covariance, Cross, CrossTrain, DataNewton, Dense, Density, Em, EmFit,
        Entries, FittedTrain, History, Indices, LineSearch, Method, NegativeLogLikelihood, Network,
        NetworkFit, NetworkFitted, NonnegativeTrain, Schedule, Sketch, SketchTrain, Solver,
        StoppedBy, SweepReport, Table, TensorTrain, TrainFit,
    };
    pub use nneinfact_fit::{SavedTrain, TrainHistory, TrainRecord, read_cores};
}

/// What a fit runs on, and the interface of an engine.
pub mod engine {
    pub use nneinfact_core::engine::{
        AdapterInfo, AdapterKind, Constraint, Engine, EngineState, Extrapolation, Guards, Job,
        LossSlot, LossSums, PassTime, Point, Precision, Reducer, RooflinePeaks, SparseProgram,
        SparseStep, SweepEnd, ZeroContraction, ZeroSum, ZeroSums,
    };
    pub use nneinfact_core::memory::available_memory;
    #[cfg(feature = "gpu")]
    pub use nneinfact_fit::DriverLock;
    pub use nneinfact_fit::{Device, DeviceInfo};
}

/// Settings, algorithms, stopping, history, observers, predictions, files of fits.
pub mod fit {
    pub use nneinfact_fit::{
        Algorithm, Balance, Cancel, Checkpoint, Coupled, CoupledFit, DataRecord,
        EntryParameterRecord, Every, Fit, Flow, Format, History, LossRecord, ModeRecord, NNEinFact,
        Norm, Observer, Part, ReadyFits, Record, Saved, ScalesInto, Smooth, Source, Splines,
        SplitPlan, Start, StoppedBy, Sweep, TableRecord, Target, Unfinished, ValuesRecord,
        balanced, slab_ranges, slabs_of_processes, split_mode, together,
    };
}

/// What a fit answers: entries, sums, products, samples, the largest entries.
pub mod query {
    pub use nneinfact_fit::{Blocks, FactoredTensor, LargestEntry};
}

/// The losses, and how to write one of your own.
pub mod loss {
    pub use nneinfact_core::loss::{
        AtZero, DifferencedAxis, Differences, Domain, EntryParameter, Expr, LOSSES, Loss,
        LossBuilder, LossParameter, LossParameters, LossSpec, Majorizer, Monomial, NAMES, Penalty,
        PredictionPower, ScaleWith, Scratch, Separable, Share, Tape, Trials, ZeroTerm,
        wgsl_function,
    };
}

/// Which components of two fits belong together.
pub mod matching {
    pub use nneinfact_insight::matching::*;
}

/// Models: einsum strings, letters, shapes; mistakes with carets under the text.
pub mod model {
    pub use nneinfact_core::model::{Index, IndexSet, Model, ModelError, Shapes};
}

/// What a fit will do, without doing it.
pub mod plan {
    pub use nneinfact_core::plan::{
        Balancing, Contraction, ContractionInput, ContractionStep, Coupling, DataInfo, Gram, Group,
        Grouping, ImplicitForm, ImplicitTotals, KhatriRaoTable, Layout, Operand, OperandSide, Pass,
        Plan, PlanError, PlanSettings, Quadratic, Rescaling, RescalingStep, RolePass, RoleTerm,
        SparseInfo, SparsePass,
    };
}

/// The method in naive loops, to check everything else against.
pub mod reference {
    pub use nneinfact_core::reference::*;
}

/// A fit as a page with plots.
pub mod report {
    pub use nneinfact_insight::report::*;
}

/// What connects the processes of one fit: threads, MPI, or anything else that is a
/// [`Reducer`](engine::Reducer).
pub mod transport {
    pub use nneinfact_core::engine::collectives::{Shares, all_gather, all_to_all};
    pub use nneinfact_fit::transport::*;
    pub use nneinfact_mpi::{Mpi, Session, start as start_mpi};
}

pub use nneinfact_core::data::Observations;
pub use nneinfact_core::engine::Precision;
pub use nneinfact_core::error::{Error, Result};
pub use nneinfact_core::loss::Loss;
pub use nneinfact_fit::{Algorithm, Device, FactoredTensor, Fit, NNEinFact};
/// The version of wgpu that this crate is built with, for programs that own a GPU device and pass it
/// to [`Device::from_wgpu`].
#[cfg(feature = "gpu")]
pub use wgpu;

/// The README's examples, as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
