//! The arguments about what holds within and among factors: ties, smooth modes, rows that add up to 1,
//! bases.

use std::path::{Path, PathBuf};

use nneinfact_core::error::{Error, Result};
use nneinfact_fit::{Smooth, Splines, io};

/// Factors that are the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Tie(Vec<String>);

impl Tie {
    /// Their names.
    pub fn factors(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// Factors joined by equals signs.
pub fn tie(text: &str) -> Result<Tie, String> {
    let names: Vec<String> = text.split('=').map(|name| name.trim().to_string()).collect();
    match names.len() > 1 && names.iter().all(|name| !name.is_empty()) {
        true => Ok(Tie(names)),
        false => Err("two factors or more are expected, as in ir=jr".into()),
    }
}

/// A factor with smooth modes.
#[derive(Clone, Debug, PartialEq)]
pub struct Smoothing {
    factor: String,
    along: Option<String>,
    weight: f64,
    neighbours: Neighbours,
}

#[derive(Clone, Debug, PartialEq)]
enum Neighbours {
    Line,
    Circle,
    Graph(PathBuf),
}

impl Smoothing {
    /// The factor's name.
    pub fn factor(&self) -> &str {
        &self.factor
    }

    /// The file that a graph is in.
    pub fn input(&self) -> Option<&Path> {
        match &self.neighbours {
            Neighbours::Graph(path) => Some(path),
            Neighbours::Line | Neighbours::Circle => None,
        }
    }

    /// The same with a graph whose path is relative to a folder.
    pub fn near(&self, folder: &Path) -> Smoothing {
        let neighbours = match &self.neighbours {
            Neighbours::Graph(path) => Neighbours::Graph(folder.join(path)),
            other => other.clone(),
        };
        Smoothing { neighbours, ..self.clone() }
    }

    /// The penalty; reads the graph.
    pub fn smooth(&self) -> Result<Smooth> {
        let smooth = match &self.neighbours {
            Neighbours::Line => Smooth::line(self.weight),
            Neighbours::Circle => Smooth::circle(self.weight),
            Neighbours::Graph(path) => Smooth::graph(self.weight, edges(path)?),
        };
        Ok(match &self.along {
            Some(letters) => smooth.along(letters),
            None => smooth,
        })
    }
}

/// The edges of a graph: a square array whose entry (i, j) is the weight of the edge between both. Each
/// edge may stand there once or twice.
fn edges(path: &Path) -> Result<Vec<(usize, usize, f64)>> {
    let weights = io::read_array_f64(path, None)?;
    let &[rows, columns] = weights.shape() else {
        return Err(Error::format(
            path,
            format!("a graph is a square array of weights, not one of shape {:?}", weights.shape()),
        ));
    };
    if rows != columns {
        return Err(Error::format(
            path,
            format!(
                "a graph is a square array of weights, not one of {rows} rows and {columns} columns"
            ),
        ));
    }
    let pairs = (0..rows).flat_map(|i| (i + 1..rows).map(move |j| (i, j)));
    let weight = |(i, j): (usize, usize)| {
        let [x, y] = [weights[[i, j]], weights[[j, i]]];
        // What is no number is refused with its edge.
        (
            i,
            j,
            if x.is_nan() || y.is_nan() {
                f64::NAN
            } else if y == 0.0 {
                x
            } else if x == 0.0 {
                y
            } else {
                x.max(y)
            },
        )
    };
    Ok(pairs.map(weight).filter(|(_, _, w)| *w != 0.0).collect())
}

/// A factor, letters of it, a weight, and what neighbours are.
pub fn smooth(text: &str) -> Result<Smoothing, String> {
    let expected = "a factor and a weight are expected, as in hr=0.1, hr=0.1,cyclic or ikr:i=0.1";
    let (which, rest) = text.split_once('=').ok_or(expected)?;
    let (weight, kind) = match rest.split_once(',') {
        Some((weight, kind)) => (weight, Some(kind.trim())),
        None => (rest, None),
    };
    let neighbours = match kind {
        None => Neighbours::Line,
        Some("cyclic") => Neighbours::Circle,
        Some(kind) => match kind.strip_prefix("graph=") {
            Some(path) if !path.is_empty() => Neighbours::Graph(path.into()),
            _ => return Err(format!("`{kind}` is neither cyclic nor graph=FILE: {expected}")),
        },
    };
    let weight = weight.trim();
    let weight = weight
        .parse::<f64>()
        .map_err(|_| format!("the weight `{weight}` is not a number: {expected}"))?;
    if !(weight >= 0.0 && weight.is_finite()) {
        return Err(format!("the weight must be a finite number of at least 0, not {weight}"));
    }
    let (factor, along) = named(which, expected)?;
    Ok(Smoothing { factor, along, weight, neighbours })
}

/// A factor whose rows add up to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Simplex {
    /// The factor's name.
    pub factor: String,
    /// The letters that sums go over, where they are not the latent ones.
    pub over: Option<String>,
}

/// A factor, and letters of it.
pub fn simplex(text: &str) -> Result<Simplex, String> {
    let (factor, over) = named(text, "a factor is expected, as in wr or wr:w")?;
    Ok(Simplex { factor, over })
}

/// A factor, and letters of it behind a colon.
fn named(text: &str, expected: &str) -> Result<(String, Option<String>), String> {
    let (factor, letters) = match text.split_once(':') {
        Some((factor, letters)) => (factor.trim(), Some(letters.trim())),
        None => (text.trim(), None),
    };
    if factor.is_empty() || letters.is_some_and(str::is_empty) || factor.contains(['=', ',']) {
        return Err(expected.into());
    }
    Ok((factor.into(), letters.map(Into::into)))
}

/// A mode and the functions along it.
pub fn basis(text: &str) -> Result<(char, Splines), String> {
    let expected =
        "a letter and a number of splines are expected, as in h=spline:12 or h=spline:12,cyclic";
    let (mode, rest) = text.split_once('=').ok_or(expected)?;
    let mut letters = mode.trim().chars();
    let (Some(mode), None) = (letters.next(), letters.next()) else { return Err(expected.into()) };
    let count = rest.trim().strip_prefix("spline:").ok_or(expected)?;
    let (count, cyclic) = match count.split_once(',') {
        Some((count, kind)) if kind.trim() == "cyclic" => (count, true),
        Some(_) => return Err(expected.into()),
        None => (count, false),
    };
    let count = count
        .trim()
        .parse::<usize>()
        .map_err(|_| format!("`{}` is no number: {expected}", count.trim()))?;
    let basis = Splines::new(count);
    Ok((mode, if cyclic { basis.cyclic() } else { basis }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_and_rows() {
        assert_eq!(tie("ir = jr=kr"), Ok(Tie(vec!["ir".into(), "jr".into(), "kr".into()])));
        for bad in ["", "ir", "ir=", "=jr", "ir==jr"] {
            assert!(tie(bad).is_err(), "{bad}");
        }
        assert_eq!(simplex("wr"), Ok(Simplex { factor: "wr".into(), over: None }));
        assert_eq!(simplex("wr:w"), Ok(Simplex { factor: "wr".into(), over: Some("w".into()) }));
        for bad in ["", ":w", "wr:", "wr=1"] {
            assert!(simplex(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn smooth_modes_and_bases() {
        let found = smooth("ikr:i = 1e-2, cyclic").expect("a smooth mode");
        assert_eq!(
            (found.factor(), found.along.as_deref(), found.weight),
            ("ikr", Some("i"), 0.01)
        );
        assert_eq!(found.neighbours, Neighbours::Circle);
        let graph = smooth("sr=1,graph=E.npy").expect("a graph");
        assert_eq!(graph.input(), Some(Path::new("E.npy")));
        for bad in ["", "hr", "hr=", "hr=x", "hr=-1", "hr=inf", "hr=1,round", "hr=1,graph=", ":h=1"]
        {
            assert!(smooth(bad).is_err(), "{bad}");
        }
        assert_eq!(basis("h=spline:12"), Ok(('h', Splines::new(12))));
        assert_eq!(basis("h = spline:5,cyclic"), Ok(('h', Splines::new(5).cyclic())));
        for bad in ["", "h", "h=12", "h=spline", "h=spline:x", "hr=spline:3", "h=spline:3,line"] {
            assert!(basis(bad).is_err(), "{bad}");
        }
    }
}
