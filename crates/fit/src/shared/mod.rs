//! Fits whose data are cut into slabs, on one process or on several: the same bits whatever their number.
//!
//! What slabs say adds up ([`engine`]) in a fixed tree over their numbers ([`tree`]); [`slabs`] says how the
//! data are cut and who has what, [`whole`] and [`agreed`] what has to be known of all data and processes
//! beforehand, [`matrices`] what a start from singular vectors sees of them, [`link`] how a failure of one
//! ends all.

mod agreed;
mod engine;
mod link;
mod matrices;
mod plan;
mod prepare;
mod rows;
mod slabs;
mod tree;
mod whole;

use nneinfact_core::engine::Reducer;

pub(crate) use self::prepare::{Held, open};
pub use self::slabs::{slab_ranges, slabs_of_processes, split_mode};
pub use nneinfact_core::engine::collectives::together;

/// A process by itself.
pub(crate) fn alone() -> Box<dyn Reducer> {
    Box::new(link::Alone)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ndarray::ArrayD;
    use nneinfact_core::data::{CooTensor, Observations};
    use nneinfact_core::model::Shapes;

    use crate::builder::NNEinFact;
    use crate::closed_forms::Steps;
    use crate::constraints::Constraints;
    use crate::device::Device;
    use crate::settings::Format;
    use crate::{format, prepare};

    /// A slab of a list is a copy of its entries: once an engine has sorted them, a process is not to hold them
    /// a second time.
    #[test]
    fn an_engine_lets_go_of_the_list_that_it_has_sorted() {
        let indices = [(0..90).map(|n| n % 9).collect(), (0..90).map(|n| n * 7 % 11).collect()];
        let list = CooTensor::new(&[9, 11], &indices, &[1.0; 90]).unwrap();
        let list = Arc::new(list);
        let held = Arc::downgrade(&list);
        let fit = NNEinFact::new("ir,jr->ij").unwrap().ranks([('r', 2)]).data_as(Format::Sparse);
        let settings = fit.settings;
        let shapes = Shapes::new(&settings.model, &[9, 11], &settings.ranks).unwrap();
        let constraints = Constraints::new(&settings, &shapes).unwrap();
        let steps = Steps::new(&settings, &constraints, true);
        let data = Observations::new(list).prepare().unwrap();
        let planned = format::choose(&settings, &shapes, data, steps).unwrap();
        let start = (0..2).map(|l| ArrayD::from_elem(shapes.factor(l), 0.5)).collect();
        let (job, given) = prepare::job(&settings, planned, constraints, start, 1.0).unwrap();
        drop(given);
        assert!(held.upgrade().is_some());
        let mut engine = Device::cpu().open(job, settings.precision).unwrap();
        assert!(held.upgrade().is_none());
        // Neither passes nor losses ask for it.
        engine.evaluate().unwrap();
        engine.pass(0).unwrap();
        engine.update(0).unwrap();
        assert!(engine.sums().unwrap()[0].train.is_finite());
    }
}
