//! What has to be the same on all processes of a fit: settings, and the labels of the data.

use std::ops::Range;
use std::sync::Arc;

use super::link::Link;
use super::slabs::Split;
use crate::checkpoint::Checkpoint;
use crate::settings::{FactorSetting, Settings, Start};
use nneinfact_core::data::{Labels, digest};
use nneinfact_core::engine::collectives::{bytes, numbers};
use nneinfact_core::error::{Error, Result};

/// Refuses settings that are not those of process 0.
pub(super) fn same_settings(
    link: &mut Link,
    settings: &Settings,
    split: &Split,
    resume: Option<&Checkpoint>,
) -> Result<()> {
    let own = describe(settings, split, resume);
    let first = link.first(&own.join("\n"))?;
    let differs = own.iter().zip(first.lines()).find(|(own, first)| *own != first);
    let own = match differs {
        None if own.len() == first.lines().count() => Ok(()),
        None => Err(Error::Setting("process 0 runs another version of this program".into())),
        Some((own, first)) => Err(Error::Setting(format!(
            "processes of one fit have the same settings, but process {} has {own}, and process 0 has {first}",
            link.rank()
        ))),
    };
    link.together(own)
}

/// A line for each setting that decides what all processes compute.
fn describe(settings: &Settings, split: &Split, resume: Option<&Checkpoint>) -> Vec<String> {
    let numbers = |array: &ndarray::ArrayD<f64>| {
        let bits = array.shape().iter().map(|&n| n as u64).chain(array.iter().map(|x| x.to_bits()));
        format!("{:016x}", digest(bits))
    };
    let all = |arrays: &[ndarray::ArrayD<f64>]| arrays.iter().map(numbers).collect::<String>();
    let start = match &settings.start {
        Start::Factors(factors) => format!("factors {}", all(factors)),
        Start::Grown(factors) => format!("grown from {}", all(factors)),
        start @ (Start::Random | Start::Gamma { .. } | Start::Svd) => format!("{start:?}"),
    };
    let of_factors = settings.factor_settings.iter().map(|(name, setting)| match setting {
        FactorSetting::Penalty(penalty) => format!("{name} {penalty:?}"),
        FactorSetting::Bounds(lower, upper) => format!("{name} from {lower} to {upper}"),
        FactorSetting::Fixed(values) => format!("{name} fixed {}", numbers(values)),
        FactorSetting::Smooth(smooth) => {
            // With the edges of a graph.
            let all = format!("{smooth:?}");
            format!("{} {:016x}", smooth.describe(name), digest(all.bytes().map(u64::from)))
        }
        FactorSetting::Simplex(over) => format!("{name} adds up to 1 over {over:?}"),
    });
    let Settings { model, ranks, loss, precision, algorithm, .. } = settings;
    let mut lines = vec![
        concat!("the program nneinfact ", env!("CARGO_PKG_VERSION")).to_string(),
        format!(
            "{} (the environment variable NNEINFACT_SIMD holds all processes to one instruction set)",
            nneinfact_cpu::simd_name()
        ),
        format!("the model {model} with ranks {ranks:?}"),
        format!("the data {:?}, {}", split.shape, split.record()),
        format!("the loss {}", loss.name()),
        format!("the precision {precision:?}"),
        format!("the algorithm {algorithm:?}, groups {:?}", settings.groups),
        format!("the learning rate {:?}", settings.learning_rate),
        format!("the device {}", settings.device.as_ref().map_or("", |device| device.kind_name())),
        format!("the start {start}, seed {} and {} starts", settings.seed, settings.starts),
        format!("the ties {:?}", settings.ties),
        format!("the factors {}", of_factors.collect::<Vec<String>>().join(", ")),
        format!("the penalty {:?}, balance {:?}", settings.penalty, settings.balance),
        format!("at most {} sweeps, tolerance {}", settings.max_iter, settings.tolerance),
        format!("early stopping {}, every {}", settings.early_stopping, settings.eval_every),
        format!("floors {:?} and {}", settings.prediction_floor, settings.factor_floor),
        format!("{} inner cycles", settings.inner_cycles),
        format!("the memory limit {:?}, data as {}", settings.memory_limit, settings.data_as),
        format!("the KKT residual {}", settings.kkt_residual),
        format!("checkpoints {:?}", settings.checkpoint.as_ref().map(|(_, every)| every)),
    ];
    lines.push(match resume {
        None => "no checkpoint to go on from".into(),
        Some(checkpoint) => {
            let state = &checkpoint.state;
            let bits = state.factors.iter().flatten().map(|x| x.to_bits());
            format!("a checkpoint of sweep {}, {:016x}", checkpoint.sweeps(), digest(bits))
        }
    });
    // A name with an end of line in it would be two lines.
    lines.iter().map(|line| line.replace(['\n', '\r'], " ")).collect()
}

/// The labels of the whole data, of which this process has those of its part along the mode that the data
/// are cut along. `part` is that part, `None` where it has all.
pub(super) fn labels(
    link: &mut Link,
    split: &Split,
    own: &[Labels],
    part: Option<Range<usize>>,
) -> Result<Arc<[Labels]>> {
    let Some(part) = part else { return Ok(own.into()) };
    let given = own.get(split.mode).and_then(Labels::indices);
    if link.agree(Ok(u64::from(given.is_some() && !part.is_empty())))? == 0 {
        return Ok(own.into());
    }
    let of_slab = |slab: usize| -> Vec<u8> {
        let range = &split.ranges[slab];
        let own = range.start - part.start..range.end - part.start;
        let labels = given.and_then(|labels| labels.get(own));
        labels.and_then(|labels| serde_json::to_vec(labels).ok()).unwrap_or_default()
    };
    let texts: Vec<Vec<u8>> = split.own().map(of_slab).collect();
    let lengths = texts.iter().map(|text| Some(vec![text.len() as f64])).collect();
    let lengths = link.join(&vec![1; split.ranges.len()], lengths)?;
    let lengths: Vec<usize> = lengths.into_iter().map(|n| n as usize).collect();
    let counts: Vec<usize> = lengths.iter().map(|n| n.div_ceil(8)).collect();
    let texts = texts.iter().map(|text| Some(numbers(text))).collect();
    let all = link.join(&counts, texts)?;
    let mut rest = all.as_slice();
    let mut found: Vec<String> = Vec::new();
    for (length, count) in lengths.into_iter().zip(counts) {
        let (own, after) = rest.split_at(count);
        rest = after;
        let labels = serde_json::from_slice::<Vec<String>>(&bytes(own, length));
        found.extend(labels.unwrap_or_default());
    }
    if found.len() != split.shape[split.mode] || own.len() != split.shape.len() {
        return Ok(Arc::new([]));
    }
    let mut labels = own.to_vec();
    let old = &labels[split.mode];
    let mut new = Labels::new(found).with_kind(old.kind().clone());
    if let Some(name) = old.name() {
        new = new.with_name(name);
    }
    labels[split.mode] = new;
    Ok(labels.into())
}
