//! Which rows count: the text after `--where`.

use std::cmp::Ordering;
use std::fmt;

use crate::error::Result;
use crate::number;
use crate::text::{Cursor, mistake};

/// Comparisons that a row must pass, all of them.
///
/// `column op value`, joined by `and`, where the operator is `=`, `!=`, `<`, `<=`, `>` or `>=`. A
/// number is compared with numbers: a cell that is not a number, an empty one too, passes only
/// `!=`. Any other value, and one in quotes, is compared as text, by code points; times in ISO
/// 8601 are in the right order that way. Names and values with spaces are quoted.
///
/// ```
/// use nneinfact_table::Filter;
///
/// let filter = Filter::parse("year >= 2010 and \"home country\" != US")?;
/// assert_eq!(filter.columns().collect::<Vec<_>>(), ["year", "home country"]);
/// assert!(Filter::parse("year => 2010").is_err());
/// # Ok::<(), nneinfact_table::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Vec<Comparison>);

#[derive(Clone, Debug, PartialEq)]
struct Comparison {
    column: String,
    operator: Operator,
    value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Equal,
    Different,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Number(f64),
    Text(String),
}

impl Filter {
    /// Reads the text.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting), with carets under the mistake.
    pub fn parse(text: &str) -> Result<Filter> {
        let mut cursor = Cursor::new(text);
        let mut all = vec![comparison(&mut cursor)?];
        loop {
            cursor.skip_space();
            if cursor.rest().is_empty() {
                return Ok(Filter(all));
            }
            let (word, at) = cursor.word(char::is_whitespace);
            if !word.eq_ignore_ascii_case("and") {
                let message = "comparisons are joined by and; nothing else can stand here";
                return Err(mistake(text, &at, message));
            }
            all.push(comparison(&mut cursor)?);
        }
    }

    /// The columns that are compared, one for each comparison.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|comparison| comparison.column.as_str())
    }

    /// Joins the comparisons of another filter.
    pub(crate) fn and(&mut self, other: Filter) {
        self.0.extend(other.0);
    }

    /// Whether the cell passes comparison `i`. `None` where it is not UTF-8.
    pub(crate) fn passes(&self, i: usize, cell: &[u8]) -> Option<bool> {
        let Some(Comparison { operator, value, .. }) = self.0.get(i) else { return Some(true) };
        let order = match value {
            Value::Number(x) => match number::parse(cell) {
                Some(cell) => cell.partial_cmp(x),
                None => {
                    std::str::from_utf8(cell).ok()?;
                    None
                }
            },
            Value::Text(text) => Some(std::str::from_utf8(cell).ok()?.cmp(text)),
        };
        use Operator::{Different, Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
        Some(match (operator, order) {
            (Different, order) => order != Some(Ordering::Equal),
            (_, None) => false,
            (Equal, Some(order)) => order.is_eq(),
            (Less, Some(order)) => order.is_lt(),
            (LessOrEqual, Some(order)) => order.is_le(),
            (Greater, Some(order)) => order.is_gt(),
            (GreaterOrEqual, Some(order)) => order.is_ge(),
        })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        for (i, Comparison { column, operator, value }) in self.0.iter().enumerate() {
            let operator = match operator {
                Operator::Equal => "=",
                Operator::Different => "!=",
                Operator::Less => "<",
                Operator::LessOrEqual => "<=",
                Operator::Greater => ">",
                Operator::GreaterOrEqual => ">=",
            };
            let value = match value {
                Value::Number(x) => x.to_string(),
                Value::Text(text) => quoted(text),
            };
            let and = if i > 0 { " and " } else { "" };
            write!(f, "{and}{} {operator} {value}", quoted(column))?;
        }
        Ok(())
    }
}

fn comparison(cursor: &mut Cursor<'_>) -> Result<Comparison> {
    let text = cursor.text;
    let column = match cursor.quoted()? {
        Some((column, _)) => column,
        None => {
            let ends = |c: char| c.is_whitespace() || matches!(c, '=' | '!' | '<' | '>');
            let (word, at) = cursor.word(ends);
            if word.is_empty() {
                let message = "a comparison begins with a column, as in year >= 2010";
                return Err(mistake(text, &at, message));
            }
            word.into()
        }
    };
    cursor.skip_space();
    let start = cursor.at;
    let (sign, _) = cursor.word(|c| !matches!(c, '=' | '!' | '<' | '>'));
    let operator = match sign {
        "=" | "==" => Operator::Equal,
        "!=" => Operator::Different,
        "<" => Operator::Less,
        "<=" => Operator::LessOrEqual,
        ">" => Operator::Greater,
        ">=" => Operator::GreaterOrEqual,
        _ => {
            return Err(mistake(
                text,
                &(start..cursor.at),
                "one of =, !=, <, <=, > and >= is expected here; a column with spaces in its name is quoted",
            ));
        }
    };
    let value = match cursor.quoted()? {
        Some((value, _)) => Value::Text(value),
        None => {
            let (word, at) = cursor.word(char::is_whitespace);
            if word.is_empty() {
                return Err(mistake(text, &at, "a number or a text is expected here"));
            }
            match number::parse(word.as_bytes()) {
                Some(x) => Value::Number(x),
                None => Value::Text(word.into()),
            }
        }
    };
    Ok(Comparison { column, operator, value })
}
