//! The header of an `.npy` array.

use std::io::Read;

use super::dtype::Dtype;
use nneinfact_core::data::Order;

/// What a header says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    /// The element type, or in words what there is instead of numbers.
    pub dtype: Result<Dtype, String>,
    /// The element type as it is written.
    pub descr: String,
    pub order: Order,
    pub shape: Vec<usize>,
    /// The product of the shape.
    pub entries: usize,
    /// The length of the header, in bytes.
    pub len: u64,
}

/// A header of one array is some hundred bytes. Longer ones only name the fields of structured
/// types, which are not read.
const LONGEST: u32 = 1 << 20;
/// numpy's own limit.
const MOST_MODES: usize = 64;

/// Why a header cannot be read.
#[derive(Debug)]
pub(super) enum Fault {
    /// Reading failed.
    Io(std::io::Error),
    /// It is not a header, or says something impossible.
    Text(String),
}

impl From<std::io::Error> for Fault {
    fn from(e: std::io::Error) -> Self {
        match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Fault::Text("the file ends inside the header of the array".into())
            }
            _ => Fault::Io(e),
        }
    }
}

impl Header {
    /// Reads a header, up to where the data begin.
    pub fn read(from: &mut impl Read) -> Result<Header, Fault> {
        let mut start = Vec::with_capacity(8);
        from.take(8).read_to_end(&mut start)?;
        if start.is_empty() {
            return Err(Fault::Text("the file is empty".into()));
        }
        let magic = b"\x93NUMPY";
        if !start.starts_with(&magic[..start.len().min(6)]) {
            return Err(Fault::Text("not an .npy array: it does not begin with \\x93NUMPY".into()));
        }
        let &[_, _, _, _, _, _, major, minor] = start.as_slice() else {
            return Err(Fault::Text("the file ends inside the header of the array".into()));
        };
        let (len, before) = match major {
            1 => {
                let mut len = [0; 2];
                from.read_exact(&mut len)?;
                (u32::from(u16::from_le_bytes(len)), 10)
            }
            2 | 3 => {
                let mut len = [0; 4];
                from.read_exact(&mut len)?;
                (u32::from_le_bytes(len), 12)
            }
            _ => {
                return Err(Fault::Text(format!(
                    "version {major}.{minor} of the .npy format is unknown: 1, 2 and 3 are read"
                )));
            }
        };
        if len > LONGEST {
            return Err(Fault::Text(format!(
                "the header announces {len} bytes of text; at most {LONGEST} are read"
            )));
        }
        let mut text = Vec::new();
        from.take(len.into()).read_to_end(&mut text)?;
        if text.len() < len as usize {
            return Err(Fault::Text("the file ends inside the header of the array".into()));
        }
        // Versions 1 and 2 are Latin-1, but letters beyond ASCII only stand in names of fields.
        let text = String::from_utf8_lossy(&text);
        let mut header = parse(&text).map_err(|what| {
            let shown: String = text.trim_end().chars().take(200).collect();
            Fault::Text(format!("the header of the array cannot be read: {what} in {shown:?}"))
        })?;
        header.len = before + u64::from(len);
        Ok(header)
    }
}

impl Header {
    /// The array that it announces, in words.
    pub fn announced(&self, dtype: Dtype) -> String {
        let bytes = self.entries as u64 * dtype.size();
        format!("an array of shape {:?} and type {}: {bytes} bytes", self.shape, self.descr)
    }

    /// Whether header and data together are `len` bytes long.
    pub fn check_len(&self, dtype: Dtype, len: u64) -> Result<(), String> {
        let there = len.saturating_sub(self.len);
        if there != self.entries as u64 * dtype.size() {
            let announced = self.announced(dtype);
            return Err(format!("the header announces {announced}, but {there} bytes follow"));
        }
        Ok(())
    }
}

/// Reads the text, a Python dictionary.
fn parse(text: &str) -> Result<Header, String> {
    let mut p = Parser { rest: text };
    p.expect('{')?;
    let (mut descr, mut order, mut shape) = (None, None, None);
    while !p.eat('}') {
        let key = p.string()?;
        p.expect(':')?;
        let twice = match key {
            "descr" => descr.replace(p.descr()?).is_some(),
            "fortran_order" => order.replace(p.order()?).is_some(),
            "shape" => shape.replace(p.shape()?).is_some(),
            _ => return Err(format!("the unknown key '{key}'")),
        };
        if twice {
            return Err(format!("'{key}' is given twice"));
        }
        if !p.eat(',') {
            p.expect('}')?;
            break;
        }
    }
    if !p.rest.trim_matches(|c: char| c.is_whitespace() || c == '\0').is_empty() {
        return Err("text after the dictionary".into());
    }
    let descr = descr.ok_or("no 'descr'")?;
    let order = order.ok_or("no 'fortran_order'")?;
    let shape = shape.ok_or("no 'shape'")?;
    if shape.len() > MOST_MODES {
        return Err(format!("{} modes (at most {MOST_MODES} are read)", shape.len()));
    }
    // Modes of length 0 must not hide that the others overflow.
    let entries = shape.iter().try_fold(1usize, |n, &m| n.checked_mul(m.max(1)));
    if entries.is_none_or(|n| n > isize::MAX as usize / 16) {
        return Err(format!("the impossible shape {shape:?}"));
    }
    let entries = shape.iter().product();
    let (dtype, descr) = match descr {
        Some(name) => (Dtype::parse(name), name.to_string()),
        None => (Err("structured data, not numbers".into()), "structured".to_string()),
    };
    Ok(Header { dtype, descr, order, shape, entries, len: 0 })
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn eat(&mut self, c: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, c: char) -> Result<(), String> {
        if self.eat(c) { Ok(()) } else { Err(format!("'{c}' is missing")) }
    }

    fn string(&mut self) -> Result<&'a str, String> {
        let quote = ['\'', '"'].into_iter().find(|&q| self.eat(q)).ok_or("a string is missing")?;
        let end = self.rest.find(quote).ok_or("a string does not end")?;
        let (inside, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        Ok(inside)
    }

    /// `None` for a list of fields, the type of a structured array.
    fn descr(&mut self) -> Result<Option<&'a str>, String> {
        self.rest = self.rest.trim_start();
        if !self.rest.starts_with(['[', '(']) {
            return self.string().map(Some);
        }
        let mut depth = 0usize;
        for (at, c) in self.rest.char_indices() {
            match c {
                '[' | '(' => depth += 1,
                ']' | ')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok(None);
            }
        }
        Err("a list does not end".into())
    }

    fn order(&mut self) -> Result<Order, String> {
        self.rest = self.rest.trim_start();
        for (name, order) in [("True", Order::Fortran), ("False", Order::C)] {
            if let Some(rest) = self.rest.strip_prefix(name) {
                self.rest = rest;
                return Ok(order);
            }
        }
        Err("'fortran_order' is neither True nor False".into())
    }

    fn shape(&mut self) -> Result<Vec<usize>, String> {
        self.expect('(')?;
        let mut shape = Vec::new();
        while !self.eat(')') {
            self.rest = self.rest.trim_start();
            if self.rest.starts_with('-') {
                return Err("a negative length in the shape".into());
            }
            let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
            let (digits, rest) = self.rest.split_at(end);
            if digits.is_empty() {
                return Err("a length of the shape is not a whole number".into());
            }
            shape.push(
                digits
                    .parse()
                    .map_err(|_| format!("the impossible length {digits} in the shape"))?,
            );
            // Python 2 wrote long integers with an L.
            self.rest = rest.strip_prefix('L').unwrap_or(rest);
            if !self.eat(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_numpy_writes() {
        let h =
            parse("{'descr': '<i8', 'fortran_order': False, 'shape': (27, 24), }   \n").unwrap();
        assert_eq!((h.shape.as_slice(), h.entries, h.order), (&[27, 24][..], 648, Order::C));
        assert_eq!(h.dtype, Dtype::parse("<i8"));
        let h = parse("{\"shape\":(3L,),'fortran_order':True,'descr':'>f4'}").unwrap();
        assert_eq!((h.shape.as_slice(), h.order), (&[3][..], Order::Fortran));
        let h =
            parse("{'descr': [('a', '<i4', (2,))], 'fortran_order': False, 'shape': ()}").unwrap();
        assert!(h.dtype.unwrap_err().contains("structured"));
        assert!(h.shape.is_empty());
    }

    #[test]
    fn says_what_is_wrong() {
        let ok = "{'descr': '<i8', 'fortran_order': False, 'shape': (2,)}";
        assert!(parse(ok).is_ok());
        for (text, says) in [
            ("", "'{' is missing"),
            ("[1, 2]", "'{' is missing"),
            ("{}", "no 'descr'"),
            ("{'descr': '<i8', 'fortran_order': False}", "no 'shape'"),
            ("{'descr': '<i8', 'fortran_order': 0, 'shape': (2,)}", "neither True nor False"),
            ("{'descr': '<i8', 'fortran_order': False, 'shape': (-2,)}", "negative"),
            ("{'descr': '<i8', 'fortran_order': False, 'shape': (2.5,)}", "')' is missing"),
            ("{'descr': '<i8', 'fortran_order': False, 'shape': (x,)}", "not a whole number"),
            ("{'descr': '<i8', 'fortran_order': False, 'shape': (2,)", "'}' is missing"),
            ("{'descr': '<i8', 'fortran_order': False, 'shape': (2,)} 1", "after the dictionary"),
            ("{'descr': '<i8', 'descr': '<i8'}", "given twice"),
            ("{'more': '<i8'}", "unknown key"),
            ("{'descr': [('a', ", "does not end"),
            ("{'descr': '<i8", "does not end"),
            (
                "{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999999999999,)}",
                "impossible length",
            ),
            (
                "{'descr': '<i8', 'fortran_order': False, 'shape': (4294967296, 4294967296)}",
                "impossible shape",
            ),
            (
                "{'descr': '<i8', 'fortran_order': False, 'shape': (0, 4294967296, 4294967296)}",
                "impossible shape",
            ),
        ] {
            let found = parse(text).unwrap_err();
            assert!(found.contains(says), "{text}: {found}");
        }
    }
}
