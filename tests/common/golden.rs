//! The golden cases of `tests/golden`: data, a start, and what ten sweeps of block updates make of
//! it, computed by an independent program in double precision.

use std::path::Path;

use ndarray::ArrayD;
use nneinfact::io::{read_array_f64, read_bool, read_npz_arrays};
use nneinfact::loss::LossParameters;
use nneinfact::model::{Model, Shapes};
use nneinfact::{Loss, Observations};

/// One folder of `tests/golden`.
pub struct Case {
    pub name: String,
    pub shapes: Shapes,
    pub ranks: Vec<(char, usize)>,
    pub loss: Loss,
    pub y: ArrayD<f64>,
    pub mask: Option<ArrayD<bool>>,
    /// The weights, or the mask as weights of 0 and 1.
    pub weights: Option<ArrayD<f64>>,
    pub start: Vec<ArrayD<f64>>,
    pub expected: Vec<ArrayD<f64>>,
    pub history: Vec<f64>,
    pub iterations: usize,
}

/// ŷ is clamped to this in the golden files.
pub const PREDICTION_FLOOR: f64 = 1e-10;
/// How many cases there are: one that is not found is an error too.
const COUNT: usize = 16;

/// All cases, by name.
///
/// # Panics
/// Where one cannot be read.
pub fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut folders: Vec<_> = std::fs::read_dir(&root)
        .expect("tests/golden is there")
        .map(|entry| entry.expect("tests/golden can be listed").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    assert_eq!(folders.len(), COUNT, "cases in {}", root.display());
    let read = |folder: &std::path::PathBuf| {
        Case::read(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    };
    folders.iter().map(read).collect()
}

type Failure = Box<dyn std::error::Error>;

impl Case {
    fn read(folder: &Path) -> Result<Case, Failure> {
        let name = folder.file_name().ok_or("no name")?.to_string_lossy().into_owned();
        let text = std::fs::read_to_string(folder.join("case.json"))?;
        let json: serde_json::Value = serde_json::from_str(&text)?;
        let missing = |what: &str| format!("case.json has no {what}");

        let model = Model::parse(json["model"].as_str().ok_or_else(|| missing("model"))?)?;
        let mut ranks = Vec::new();
        for (letter, rank) in json["ranks"].as_object().ok_or_else(|| missing("ranks"))? {
            let letter = letter.parse::<char>()?;
            ranks.push((letter, rank.as_u64().ok_or_else(|| missing("rank"))? as usize));
        }
        let kind = json["loss"]["kind"].as_str().ok_or_else(|| missing("loss"))?;
        let parameter = |name: &str| json["loss"][name].as_f64();
        let parameters = LossParameters {
            alpha: parameter("alpha"),
            beta: parameter("beta"),
            dispersion: parameter("dispersion").map(Into::into),
            trials: parameter("trials").map(Into::into),
            power: None,
        };
        let loss = Loss::named(kind, &parameters)?;

        let y = read_array_f64(folder.join("data.npy"), None)?;
        let shapes = Shapes::new(&model, y.shape(), &ranks)?;
        let (mask, weights) = match json["weighting"].as_str() {
            None => (None, None),
            Some("mask") => {
                let mask = read_bool(folder.join("mask.npy"))?;
                let weights = mask.mapv(|m| f64::from(u8::from(m)));
                (Some(mask), Some(weights))
            }
            Some("weights") => (None, Some(read_array_f64(folder.join("weights.npy"), None)?)),
            Some(other) => return Err(format!("unknown weighting {other}").into()),
        };
        let history: Option<Vec<f64>> = json["loss_history"]
            .as_array()
            .and_then(|values| values.iter().map(serde_json::Value::as_f64).collect());
        let history = history.ok_or_else(|| missing("loss_history"))?;
        let iterations = json["iterations"].as_u64().ok_or_else(|| missing("iterations"))?;
        if history.len() as u64 != iterations + 1 {
            return Err("loss_history has not one element per iteration and one more".into());
        }
        Ok(Case {
            name,
            start: factors(&folder.join("init.npz"), &shapes)?,
            expected: factors(&folder.join("expected.npz"), &shapes)?,
            shapes,
            ranks,
            loss,
            y,
            mask,
            weights,
            history,
            iterations: iterations as usize,
        })
    }

    /// What a fit is given.
    pub fn observations(&self) -> Observations {
        let observations = Observations::new(&self.y);
        match (&self.mask, &self.weights) {
            (Some(mask), _) => observations.mask(mask),
            (None, Some(weights)) => observations.weights(weights),
            (None, None) => Ok(observations),
        }
        .expect("golden masks and weights fit")
    }
}

/// The arrays `theta_1`, `theta_2`, … of a file.
fn factors(path: &Path, shapes: &Shapes) -> Result<Vec<ArrayD<f64>>, Failure> {
    let mut arrays = read_npz_arrays(path)?;
    let mut found = Vec::new();
    for l in 0..shapes.model().factors().len() {
        let name = format!("theta_{}", l + 1);
        let at = arrays.iter().position(|(n, _)| *n == name);
        let (_, array) = arrays.swap_remove(at.ok_or_else(|| format!("no {name} in {path:?}"))?);
        if array.shape() != shapes.factor(l) {
            return Err(format!("{name} in {path:?} has shape {:?}", array.shape()).into());
        }
        found.push(array);
    }
    if !arrays.is_empty() {
        return Err(format!("{path:?} holds arrays that the model has no factor for").into());
    }
    Ok(found)
}
