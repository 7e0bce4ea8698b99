//! What a coupled fit is, so that a checkpoint is resumed by the same fit only.

use super::plan::Ready;
use crate::checkpoint::Identity;
use crate::constraints::Constraints;
use crate::device::Device;
use crate::settings::Settings;
use nneinfact_core::model::Shapes;

/// The identity of a fit to several tensors, before its start is taken out of the settings.
pub(super) fn identity(
    settings: &Settings,
    ready: &[Ready],
    constraints: &Constraints,
    shapes: &Shapes,
    groups: &[Vec<usize>],
    device: &Device,
) -> Identity {
    let mut list = Vec::new();
    for (t, part) in ready.iter().enumerate() {
        let mut own = Identity::data(&part.settings, &part.shapes, part.data.fingerprint());
        own.push(("form of the data".into(), part.settings.data_as.to_string()));
        own.push(("weight".into(), part.weight.to_string()));
        let numbered =
            own.into_iter().map(|(what, how)| (format!("tensor {}: {what}", t + 1), how));
        list.extend(numbered);
    }
    let names: Vec<&str> = ready.iter().map(|part| part.settings.loss.name()).collect();
    list.push(("loss".into(), names.join(" + ")));
    list.extend(Identity::fit(settings, shapes, constraints, format!("{groups:?}"), device));
    Identity::of(list)
}
