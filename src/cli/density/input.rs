//! What the commands read: samples, index tuples, weights, trains.

use std::path::Path;

use ndarray::{ArrayD, Dimension};

use nneinfact_core::error::{Error, Result};
use nneinfact_density::{Indices, NonnegativeTrain, TensorTrain};
use nneinfact_fit::SavedTrain;
use nneinfact_fit::io;

/// Reads rows of values of variables, such as samples: a matrix of whole numbers, counted from 0.
/// Variables are told of counted from 1.
pub fn index_rows(path: &Path, sizes: &[usize]) -> Result<Indices> {
    let array = io::read_array_f64(path, None)?;
    let &[_, columns] = array.shape() else {
        return Err(Error::format(
            path,
            format!(
                "rows of {} values are expected, one for each variable, as a matrix; the array has shape \
                 {:?}",
                sizes.len(),
                array.shape()
            ),
        ));
    };
    if columns != sizes.len() {
        return Err(Error::format(
            path,
            format!("its rows have {columns} values, but there are {} variables", sizes.len()),
        ));
    }
    let mut data = Vec::with_capacity(array.len());
    for (at, &x) in array.indexed_iter() {
        let (row, mode) = (at.slice()[0], at.slice()[1]);
        if !(x >= 0.0 && x.fract() == 0.0 && x < sizes[mode] as f64) {
            return Err(Error::format(
                path,
                format!(
                    "row {row} has the value {x} of variable {}, which has {}: 0 to {} (rows and values \
                     count from 0, variables from 1)",
                    mode + 1,
                    values(sizes[mode]),
                    sizes[mode] - 1
                ),
            ));
        }
        data.push(x as usize);
    }
    Indices::new(columns, data)
}

/// A number of values in words.
fn values(n: usize) -> String {
    if n == 1 { "one value".into() } else { format!("{n} values") }
}

/// Reads a vector of numbers.
pub fn vector(path: &Path, what: &str) -> Result<Vec<f64>> {
    let array = io::read_array_f64(path, None)?;
    let side = array.shape().iter().copied().max().unwrap_or(1);
    if side != array.len() {
        return Err(Error::format(
            path,
            format!("{what} are expected as a vector; the array has shape {:?}", array.shape()),
        ));
    }
    Ok(array.iter().copied().collect())
}

/// The functions `f_1`, …, `f_d` of a file, one of each variable.
pub fn functions(path: &Path, sizes: &[usize]) -> Result<Vec<Vec<f64>>> {
    let arrays = io::read_npz_arrays(path)?;
    let of = |k: usize| -> Result<Vec<f64>> {
        let name = format!("f_{}", k + 1);
        let Some((_, array)) = arrays.iter().find(|(other, _)| *other == name) else {
            return Err(Error::format(
                path,
                format!("there is no array {name}: f_1 to f_{} are expected", sizes.len()),
            ));
        };
        check_function(path, &name, array, sizes[k])?;
        Ok(array.iter().copied().collect())
    };
    (0..sizes.len()).map(of).collect()
}

fn check_function(path: &Path, name: &str, array: &ArrayD<f64>, size: usize) -> Result<()> {
    if array.shape() != [size] {
        return Err(Error::format(
            path,
            format!(
                "{name} has shape {:?}, but one number for each of its variable's values is expected, \
                 [{size}]",
                array.shape()
            ),
        ));
    }
    match array.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(i) => Err(Error::format(
            path,
            format!("{name} is {} at value {i}; it has to be finite", array[[i].as_slice()]),
        )),
    }
}

/// Reads a train without negative entries.
pub fn nonnegative(path: &Path) -> Result<NonnegativeTrain> {
    SavedTrain::load(path)?.nonnegative().map_err(|e| Error::format(path, e.to_string()))
}

/// A train in words.
pub fn about(train: &TensorTrain) -> String {
    let numbers: usize = train.cores().iter().map(|c| c.data().len()).sum();
    let sizes = shortened(&train.sizes());
    let ranks = match train.ranks().as_slice() {
        [] => String::new(),
        ranks => format!(", ranks {}", shortened(ranks)),
    };
    let variables = if train.order() == 1 { "variable" } else { "variables" };
    format!("{} {variables} with {sizes} values{ranks}: {numbers} numbers", train.order())
}

/// A list of numbers: repetitions as one, the middle of long ones left out.
pub fn shortened(list: &[usize]) -> String {
    const SHOWN: usize = 12;
    let text = |list: &[usize]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    match list {
        [first, _, _, rest @ ..] if list.iter().all(|x| x == first) => {
            format!("{first} × {}", rest.len() + 3)
        }
        list if list.len() > SHOWN => {
            let (from, to) = (&list[..SHOWN / 2], &list[list.len() - SHOWN / 2..]);
            format!("{},…,{}", text(from), text(to))
        }
        list => text(list),
    }
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn lists_are_short() {
        assert_eq!(shortened(&[2, 2]), "2,2");
        assert_eq!(shortened(&[2; 30]), "2 × 30");
        assert_eq!(shortened(&[2, 3, 4]), "2,3,4");
        let long: Vec<usize> = (0..20).collect();
        assert_eq!(shortened(&long), "0,1,2,3,4,5,…,14,15,16,17,18,19");
    }
}
