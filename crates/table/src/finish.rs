//! From codes to the tensor: labels in their order, entries in theirs.

use std::collections::HashMap;
use std::path::Path;

use crate::encoder::Encoder;
use crate::entry_store::{EntryStore, Finish, refused};
use crate::error::{Error, Result};
use crate::labels::{LabelKind, NOWHERE, Ordered};
use crate::settings::Settings;
use crate::tensor::{Counts, Mode, TableTensor};
use crate::text::shown;

/// What a label takes besides its text, and the text of a function.
pub(crate) const LABEL: u64 = 40;

/// Makes the tensor of all rows.
pub(crate) fn finish(
    encoders: Vec<Encoder>,
    mut cells: EntryStore,
    counts: Counts,
    settings: &Settings,
    path: &Path,
) -> Result<TableTensor> {
    if cells.len() == 0 {
        return Err(Error::format(path, format!("no row is left for the tensor: {counts}")));
    }
    let mut used: Vec<Vec<bool>> =
        encoders.iter().map(|encoder| vec![false; encoder.codes()]).collect();
    cells.visit(&mut |codes| {
        for (used, &code) in used.iter_mut().zip(codes) {
            if let Some(used) = used.get_mut(code as usize) {
                *used = true;
            }
        }
    });

    let needed = within_limit(&encoders, &used, cells.memory(), settings)?;
    if let Some(limit) = settings.memory {
        cells.allowance = limit.saturating_sub(needed);
    }

    let names = settings.modes.names();
    let mut all: Vec<Ordered> = Vec::with_capacity(encoders.len());
    for (encoder, used) in encoders.into_iter().zip(&used) {
        all.push(encoder.finish(used));
    }
    for (called, order) in &settings.orders {
        let mode = settings.mode_called(called)?;
        all[mode] = given(&all[mode], &used[mode], order, &names[mode])?;
    }
    let shape: Vec<usize> = all.iter().map(|mode| mode.labels.len()).collect();
    let finish = Finish {
        maps: all.iter().map(|mode| &mode.places[..]).collect(),
        shape: &shape,
        merges: all.iter().any(Ordered::merges),
    };
    let entries = cells.finish(&finish).map_err(|e| refused(e, settings.memory))?;

    let modes = all.into_iter().zip(names).zip(settings.modes.as_slice());
    Ok(TableTensor {
        modes: modes
            .map(|((mode, name), spec)| Mode {
                name,
                letter: spec.letter,
                labels: mode.labels,
                kind: mode.kind,
            })
            .collect(),
        coords: entries.coords,
        values: entries.values,
        implicit: settings.implicit.unwrap_or(settings.values.implicit()),
        counts,
    })
}

/// What labels and texts take, in bytes; an error where that and the entries are more than the limit.
pub(crate) fn within_limit(
    encoders: &[Encoder],
    used: &[Vec<bool>],
    entries: u64,
    settings: &Settings,
) -> Result<u64> {
    let labels: u64 = encoders.iter().zip(used).map(|(e, used)| e.most_labels(used)).sum();
    let texts: u64 = encoders.iter().map(Encoder::memory).sum();
    let needed = LABEL * labels + texts;
    match settings.memory {
        Some(limit) if needed + entries > limit => Err(Error::Memory {
            what: format!("the {labels} labels of the tensor"),
            needed: needed + entries,
            available: limit,
            help: "are there times far from the others? a filter drops them; so do fewer labels help, or a higher limit".into(),
        }),
        _ => Ok(needed),
    }
}

/// Puts labels in the order that was given.
pub(crate) fn given(
    found: &Ordered,
    used: &[bool],
    order: &[String],
    name: &str,
) -> Result<Ordered> {
    if let LabelKind::Bins { .. } = found.kind {
        return Err(Error::Setting(format!(
            "an order is given for the mode {name}, but bins have theirs"
        )));
    }
    let place_of: HashMap<&str, u32> = order.iter().map(String::as_str).zip(0u32..).collect();
    let mut places = Vec::with_capacity(found.places.len());
    for (i, &place) in found.places.iter().enumerate() {
        let in_use = place != NOWHERE && used.get(i).copied().unwrap_or(false);
        let label = found.labels.get(place as usize).filter(|_| in_use);
        places.push(match label {
            None => NOWHERE,
            Some(label) => *place_of.get(label.as_str()).ok_or_else(|| {
                Error::Setting(format!(
                    "the label {} of the mode {name} is not in the order given for it",
                    shown(label.as_bytes())
                ))
            })?,
        });
    }
    let kind = match &found.kind {
        LabelKind::Number | LabelKind::Date => LabelKind::Text,
        kind if order.len() != found.labels.len() && *kind == LabelKind::Cycle => LabelKind::Text,
        kind => kind.clone(),
    };
    Ok(Ordered { kind, labels: order.to_vec(), places })
}
