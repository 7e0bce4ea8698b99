//! What modes and their indices are called.

use nneinfact::data::{LabelKind, Labels};
use pyo3::PyResult;

use crate::errors::value_error;

/// The labels of a mode: its name, one for each index, what they are in a word, and the edges of bins.
pub type LabelFields = (Option<String>, Option<Vec<String>>, String, Vec<f64>);

/// Nothing is known.
pub fn no_labels() -> LabelFields {
    (None, None, "text".into(), Vec::new())
}

/// Labels for Python.
pub fn label_fields(labels: &Labels) -> LabelFields {
    let (kind, edges) = match labels.kind() {
        LabelKind::Number => ("number", Vec::new()),
        LabelKind::Date => ("date", Vec::new()),
        LabelKind::Cycle => ("cycle", Vec::new()),
        LabelKind::Bins { edges } => ("bins", edges.clone()),
        // Text, and what there will be.
        _ => ("text", Vec::new()),
    };
    let indices = labels.indices().map(<[String]>::to_vec);
    (labels.name().map(Into::into), indices, kind.into(), edges)
}

/// Labels from Python.
pub fn read_labels((name, indices, kind, edges): LabelFields) -> PyResult<Labels> {
    let kind = match kind.as_str() {
        "number" => LabelKind::Number,
        "date" => LabelKind::Date,
        "cycle" => LabelKind::Cycle,
        "bins" => LabelKind::Bins { edges },
        "text" => LabelKind::Text,
        other => return Err(value_error(format!("there is no kind of labels {other:?}"))),
    };
    let labels = indices.map_or_else(Labels::default, Labels::new).with_kind(kind);
    Ok(match name {
        Some(name) => labels.with_name(name),
        None => labels,
    })
}
