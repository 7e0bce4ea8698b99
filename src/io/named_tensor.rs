//! Sparse data with names, in `.npz` files and as the formats of the field hold them.

use std::path::Path;

use serde::{Deserialize, Serialize};

use nneinfact_core::data::{CooBuilder, CooTensor, Indices, Labels, Observations, printable};
use nneinfact_core::error::{Error, Result};
use nneinfact_fit::ModeRecord;
use nneinfact_fit::io::{self, NpzMember};
use nneinfact_table::{ScipyArrays, SparseMatrix, TableTensor};

/// Data in coordinates, with the names of modes and indices, and the letters that were given to the
/// modes beforehand.
///
/// ```
/// use nneinfact::io::{NamedTensor, Table};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("counts.npz");
/// let rides = "who,hour\nann,7\nbob,8\nann,8\n";
/// let table = Table::from_reader(rides.as_bytes(), "rides.csv").modes("w=who,h=hour")?.read()?;
/// NamedTensor::of(&table)?.save(&path)?;
///
/// // The modes in the order that a model has them.
/// let data = NamedTensor::load(&path)?.expect("it was saved there").arranged(&['h', 'w'])?;
/// assert_eq!(data.observations.shape(), [2, 2]);
/// assert_eq!(data.observations.labels()[1].index_of("bob"), Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct NamedTensor {
    /// The data.
    pub observations: Observations,
    /// The letter of each mode, where it was given one.
    pub letters: Vec<Option<char>>,
}

/// What the file says besides its arrays.
#[derive(Serialize, Deserialize)]
pub(super) struct TensorRecord {
    format: u32,
    pub(super) modes: Vec<NamedMode>,
    #[serde(default)]
    pub(super) unlisted_missing: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct NamedMode {
    #[serde(default)]
    pub(super) letter: Option<char>,
    /// The array of its labels.
    #[serde(default)]
    array: Option<String>,
    #[serde(flatten)]
    mode: ModeRecord,
}

impl TensorRecord {
    const FORMAT: u32 = 1;
    const NAME: &'static str = "table.json";

    /// What an archive with these arrays says of so many modes.
    pub(super) fn read(path: &Path, found: &[io::ArrayInfo], modes: usize) -> Result<TensorRecord> {
        let wrong = |why: String| Error::format(path, why);
        let record = match io::read_npz_text(path, TensorRecord::NAME)? {
            Some(text) => serde_json::from_str::<TensorRecord>(&text)
                .map_err(|e| wrong(format!("{}: {e}", TensorRecord::NAME)))?,
            None => by_names(path, found, modes)?,
        };
        if record.format != TensorRecord::FORMAT || record.modes.len() != modes {
            return Err(wrong(format!(
                "{} has form {} and {} modes, but form {} and {modes} modes, as the coordinates \
                 have, are expected",
                TensorRecord::NAME,
                record.format,
                record.modes.len(),
                TensorRecord::FORMAT
            )));
        }
        Ok(record)
    }

    /// The labels of each mode.
    pub(super) fn labels(&self, path: &Path) -> Result<Vec<Labels>> {
        let of = |mode: &NamedMode| {
            let Some(array) = &mode.array else { return Ok(mode.mode.labels(None)) };
            match io::read_npz_strings(path, array)? {
                Some(texts) => Ok(mode.mode.labels(Some(texts))),
                None => {
                    Err(Error::format(path, format!("there is no array \"{}\"", printable(array))))
                }
            }
        };
        self.modes.iter().map(of).collect()
    }
}

impl From<Observations> for NamedTensor {
    fn from(observations: Observations) -> NamedTensor {
        let letters = vec![None; observations.shape().len()];
        NamedTensor { observations, letters }
    }
}

impl NamedTensor {
    /// What a table became.
    ///
    /// # Errors
    /// As [`TableTensor::observations`].
    pub fn of(table: &TableTensor) -> Result<NamedTensor> {
        let letters = table.modes.iter().map(|mode| mode.letter).collect();
        Ok(NamedTensor { observations: table.observations()?, letters })
    }

    /// The same with the modes in the order of these letters. Modes without letters are taken as they
    /// stand.
    ///
    /// # Errors
    /// [`Error::Setting`] where the letters of the modes are others than these.
    pub fn arranged(self, letters: &[char]) -> Result<NamedTensor> {
        let order = arrangement(&self.letters, letters)?;
        if order.iter().enumerate().all(|(to, &from)| to == from) {
            return Ok(self);
        }
        let NamedTensor { observations, letters } = self;
        let coo = coordinates(&observations)?;
        let shape: Vec<usize> = order.iter().map(|&mode| coo.shape()[mode]).collect();
        let mut builder = CooBuilder::new(order.len());
        let mut index = vec![0; order.len()];
        for i in 0..coo.len() {
            for (to, &mode) in index.iter_mut().zip(&order) {
                *to = coo.indices()[mode].get(i).unwrap_or(0);
            }
            builder.push(&index, coo.values().get(i).unwrap_or(0.0))?;
        }
        let mut arranged = Observations::new(builder.finish(Some(&shape))?);
        if observations.is_unlisted_missing() {
            arranged = arranged.unlisted_missing();
        }
        let labels = observations.labels();
        if !labels.is_empty() {
            let labels: Vec<Labels> = order.iter().map(|&mode| labels[mode].clone()).collect();
            arranged = arranged.with_labels(labels)?;
        }
        let letters = order.iter().map(|&mode| letters[mode]).collect();
        Ok(NamedTensor { observations: arranged, letters })
    }

    /// Writes it to a compressed `.npz`: `coords` (modes × entries, counted from 0), `values`,
    /// `shape`, `modes` (their names), for every mode with labels `labels_w` with its letter, or
    /// `labels_name` with its name, and the text `table.json`, which says which is whose.
    ///
    /// # Errors
    /// [`Error::File`] where the file cannot be written; what stood there before is then still there.
    /// [`Error::Unsupported`] where the data have a value for every entry.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let coo = coordinates(&self.observations)?;
        let rows: Result<Vec<&[u32]>> = coo
            .indices()
            .iter()
            .map(|list| match list {
                Indices::U32(list) => Ok(&list[..]),
                Indices::U64(_) => Err(Error::Unsupported(
                    "modes of more than 2^32 indices are not written".into(),
                )),
            })
            .collect();
        let values: Vec<f64> = (0..coo.len()).map(|i| coo.values().get(i).unwrap_or(0.0)).collect();
        let names: Vec<String> = (0..self.letters.len()).map(|mode| self.name(mode)).collect();
        let arrays = self.arrays(&names);
        let unknown = Labels::default();
        let labels = |mode: usize| self.observations.labels().get(mode).unwrap_or(&unknown);
        let mut members = vec![
            ("coords".to_string(), NpzMember::Rows(rows?)),
            (
                "values".to_string(),
                NpzMember::Numbers(ndarray::ArrayView1::from(&values).into_dyn()),
            ),
            ("shape".to_string(), NpzMember::Lengths(coo.shape())),
            ("modes".to_string(), NpzMember::Texts(&names)),
        ];
        let mut modes = Vec::with_capacity(names.len());
        for (mode, array) in arrays.into_iter().enumerate() {
            let indices = labels(mode).indices();
            if let Some(indices) = indices {
                members.push((array.clone(), NpzMember::Texts(indices)));
            }
            modes.push(NamedMode {
                letter: self.letters[mode],
                array: indices.map(|_| array),
                mode: ModeRecord::of(labels(mode)),
            });
        }
        let record = TensorRecord {
            format: TensorRecord::FORMAT,
            modes,
            unlisted_missing: self.observations.is_unlisted_missing(),
        };
        let text = serde_json::to_string_pretty(&record)
            .map_err(|e| Error::file(path, std::io::Error::other(e)))?;
        members.push((TensorRecord::NAME.into(), NpzMember::Text(&text)));
        io::write_members(path, &members)
    }

    /// What a mode is called: its name, its letter, or its number counted from 1.
    fn name(&self, mode: usize) -> String {
        let name = self.observations.labels().get(mode).and_then(Labels::name);
        let letter = self.letters.get(mode).copied().flatten();
        name.map(String::from)
            .or_else(|| letter.map(String::from))
            .unwrap_or_else(|| (mode + 1).to_string())
    }

    /// The names of the arrays of labels, each there once.
    fn arrays(&self, names: &[String]) -> Vec<String> {
        let mut arrays: Vec<String> = Vec::new();
        for (mode, (name, letter)) in names.iter().zip(&self.letters).enumerate() {
            // A slash would be a folder in the archive.
            let plain = |c: char| if c.is_control() || "/\\".contains(c) { '_' } else { c };
            let name: String = match letter {
                Some(letter) => letter.to_string(),
                None => name.chars().map(plain).take(100).collect(),
            };
            let array = format!("labels_{name}");
            let taken = arrays.contains(&array);
            arrays.push(if taken { format!("labels_{}_{name}", mode + 1) } else { array });
        }
        arrays
    }

    /// Reads what [`NamedTensor::save`] wrote, or an `.npz` of `coords` and `values` that another
    /// program wrote, with `shape`, `modes` and `labels_…` of those names if it has them; `None` where
    /// there are no `coords` and `values`.
    ///
    /// # Errors
    /// [`Error::File`] where the file cannot be read; [`Error::Format`] where its arrays do not go
    /// together.
    pub fn load(path: impl AsRef<Path>) -> Result<Option<NamedTensor>> {
        let path = path.as_ref();
        let found = io::npz_names(path)?;
        let has = |name: &str| found.iter().any(|info| info.name == name);
        if !(has("coords") && has("values")) {
            return Ok(None);
        }
        let wrong = |why: String| Error::format(path, why);
        let coo = read_coordinates(path, has("shape"))?;
        let record = TensorRecord::read(path, &found, coo.shape().len())?;
        let mut observations = Observations::new(coo);
        if record.unlisted_missing {
            observations = observations.unlisted_missing();
        }
        let labels = record.labels(path)?;
        if !labels.iter().all(Labels::is_empty) {
            observations = observations.with_labels(labels).map_err(|e| wrong(e.to_string()))?;
        }
        let letters = record.modes.iter().map(|mode| mode.letter).collect();
        Ok(Some(NamedTensor { observations, letters }))
    }
}

/// What the arrays of another program say of the modes.
fn by_names(path: &Path, found: &[io::ArrayInfo], modes: usize) -> Result<TensorRecord> {
    let has = |name: &str| found.iter().any(|info| info.name == name);
    let names = if has("modes") { io::read_npz_strings(path, "modes")? } else { None };
    let named = |mode: usize| -> NamedMode {
        let name = names.as_ref().and_then(|names| names.get(mode)).cloned();
        let array = name.as_ref().map(|name| format!("labels_{name}")).filter(|array| has(array));
        let mode = ModeRecord { name, ..ModeRecord::default() };
        NamedMode { letter: None, array, mode }
    };
    Ok(TensorRecord {
        format: TensorRecord::FORMAT,
        modes: (0..modes).map(named).collect(),
        unlisted_missing: false,
    })
}

fn coordinates(observations: &Observations) -> Result<&CooTensor> {
    observations.coordinates().map(std::sync::Arc::as_ref).ok_or_else(|| {
        Error::Unsupported(
            "these data have a value for every entry, and no coordinates: keep them as .npy".into(),
        )
    })
}

/// The numbers of modes and of entries of `coords`, where these go with so many values.
pub(super) fn lengths(path: &Path, coords: &[usize], values: usize) -> Result<[usize; 2]> {
    let wrong = |why: String| Error::format(path, why);
    let &[modes, entries] = coords else {
        return Err(wrong(format!(
            "coords has shape {coords:?}, but modes × entries are expected"
        )));
    };
    if entries != values {
        let hint = if modes == values { ": transpose it" } else { "" };
        return Err(wrong(format!(
            "coords has shape [{modes}, {entries}] and there are {values} values, but modes × \
             entries are expected{hint}"
        )));
    }
    Ok([modes, entries])
}

/// The tensor of the arrays `coords`, `values` and, where it is there, `shape`.
fn read_coordinates(path: &Path, with_shape: bool) -> Result<CooTensor> {
    let wrong = |why: String| Error::format(path, why);
    let coords = io::read_npz(path, Some("coords"))?;
    let values: Vec<f64> = io::read_npz(path, Some("values"))?.iter().collect();
    let [modes, entries] = lengths(path, coords.shape(), values.len())?;
    let mut lists: Vec<Vec<u64>> = vec![Vec::with_capacity(entries); modes];
    for (i, x) in coords.iter().enumerate() {
        if !(x >= 0.0 && x.fract() == 0.0) {
            return Err(wrong(format!(
                "coords holds {x}, but indices counted from 0 are expected"
            )));
        }
        lists[i / entries.max(1)].push(x as u64);
    }
    let shape: Vec<usize> = match with_shape {
        true => io::read_npz(path, Some("shape"))?.iter().map(|n| n as usize).collect(),
        false => lists
            .iter()
            .map(|list| list.iter().max().map_or(0, |&most| most as usize + 1))
            .collect(),
    };
    CooTensor::new(&shape, &lists, &values).map_err(|e| wrong(e.to_string()))
}

/// Reads a matrix that `scipy.sparse.save_npz` wrote, of its formats `csr`, `csc` and `coo`; `None`
/// where the `.npz` holds something else.
///
/// # Errors
/// [`Error::File`] where the file cannot be read; [`Error::Format`] where its arrays do not go
/// together; [`Error::Unsupported`] for scipy's other formats.
pub fn read_scipy(path: impl AsRef<Path>) -> Result<Option<SparseMatrix>> {
    let path = path.as_ref();
    let found = io::npz_names(path)?;
    let has = |name: &str| found.iter().any(|info| info.name == name);
    if !["format", "shape", "data"].iter().all(|name| has(name)) {
        return Ok(None);
    }
    let format = io::read_npz_strings(path, "format")?.and_then(|texts| texts.into_iter().next());
    let numbers = |name: &str| -> Result<Vec<f64>> {
        Ok(if has(name) { io::read_npz(path, Some(name))?.iter().collect() } else { Vec::new() })
    };
    let whole = |name: &str| -> Result<Vec<i64>> {
        Ok(numbers(name)?.into_iter().map(|x| x as i64).collect())
    };
    let [shape, indices, indptr] = [whole("shape")?, whole("indices")?, whole("indptr")?];
    let [row, col] = [whole("row")?, whole("col")?];
    let format = format.unwrap_or_default();
    let arrays = ScipyArrays {
        format: &format,
        shape: &shape,
        data: &numbers("data")?,
        indices: &indices,
        indptr: &indptr,
        row: &row,
        col: &col,
    };
    let matrix = arrays.matrix().map_err(|e| match e {
        Error::Unsupported(why) => Error::Unsupported(format!("{}: {why}", path.display())),
        e => Error::format(path, e.to_string()),
    })?;
    Ok(Some(matrix))
}

/// For each of a model's letters the mode that has it.
///
/// ```
/// use nneinfact::io::arrangement;
///
/// assert_eq!(arrangement(&[Some('w'), Some('h')], &['h', 'w'])?, [1, 0]);
/// // Modes without letters are those of the model in their order.
/// assert_eq!(arrangement(&[None, None], &['h', 'w'])?, [0, 1]);
/// assert!(arrangement(&[Some('x'), None], &['h', 'w']).is_err());
/// # Ok::<(), nneinfact::Error>(())
/// ```
///
/// # Errors
/// [`Error::Setting`] where the letters of the modes are others than the model's, or only some modes
/// have letters and these stand elsewhere than in the model.
pub fn arrangement(modes: &[Option<char>], model: &[char]) -> Result<Vec<usize>> {
    let in_place = || {
        let fits = |(mode, letter): (&Option<char>, &char)| mode.is_none_or(|own| own == *letter);
        modes.iter().zip(model).all(fits)
    };
    let written =
        |letters: &mut dyn Iterator<Item = String>| letters.collect::<Vec<_>>().join(", ");
    let own = || {
        let mut letters =
            modes.iter().map(|letter| letter.map_or_else(|| "…".into(), String::from));
        written(&mut letters)
    };
    let wanted = || written(&mut model.iter().map(char::to_string));
    if modes.len() != model.len() {
        let count = |n: usize| format!("{n} mode{}", if n == 1 { "" } else { "s" });
        let hint = match modes.iter().any(Option::is_some) {
            true => format!(": {}", own()),
            false => String::new(),
        };
        return Err(Error::Setting(format!(
            "the data have {}{hint}, but the model has {} after its arrow: {}",
            count(modes.len()),
            count(model.len()),
            wanted()
        )));
    }
    if in_place() {
        return Ok((0..model.len()).collect());
    }
    let place = |letter: &char| modes.iter().position(|mode| *mode == Some(*letter));
    model.iter().map(place).collect::<Option<Vec<usize>>>().ok_or_else(|| {
        Error::Setting(format!(
            "the modes of the data have the letters {}, but those of the model are {}",
            own(),
            wanted()
        ))
    })
}
