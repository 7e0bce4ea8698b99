//! What the modes of the tensor are: the text after `--modes`.

use std::fmt;
use std::ops::Range;

use crate::error::Result;
use crate::text::{Cursor, mistake};

/// How a column of the table becomes a mode of the tensor.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Function {
    /// The values of the column, as they stand.
    Values,
    /// The year of a time, from the first to the last without gaps.
    Year,
    /// The year and month of a time (`2014-04`), from the first to the last without gaps.
    YearMonth,
    /// The month of a time: always twelve.
    Month,
    /// The ISO week of a time (`2014-W14`), from the first to the last without gaps.
    Week,
    /// The day of a time, from the first to the last without gaps.
    Date,
    /// The weekday of a time: always seven, from Monday.
    Weekday,
    /// The hour of a time: always 24.
    Hour,
    /// The minute within the hour of a time: always 60.
    Minute,
    /// So many bins of equal width from the smallest value to the largest, as `numpy.histogram`.
    Bins(u32),
    /// Bins of equal width over a given range. What lies outside is dropped and counted.
    Range {
        /// Where the first bin begins.
        from: f64,
        /// Where the last bin ends; it belongs to that bin.
        to: f64,
        /// The width of a bin.
        step: f64,
        /// How many bins there are.
        bins: u32,
    },
    /// The most frequent values of the column.
    Top {
        /// How many.
        count: u32,
        /// Whether the others are one label more, at the end, instead of being dropped.
        other: bool,
    },
    /// Numbers, rounded to so many digits after the point (before it, if negative).
    Round(i32),
    /// So many characters that a value begins with: the class of a code.
    Prefix(u32),
}

impl Function {
    /// The functions of a time, by name.
    fn of_time(name: &str) -> Option<Function> {
        Some(match name {
            "year" => Function::Year,
            "yearmonth" => Function::YearMonth,
            "month" => Function::Month,
            "week" => Function::Week,
            "date" => Function::Date,
            "weekday" => Function::Weekday,
            "hour" => Function::Hour,
            "minute" => Function::Minute,
            _ => return None,
        })
    }

    /// Whether the column is read as a time.
    #[must_use]
    pub fn is_of_time(&self) -> bool {
        use Function::{Date, Hour, Minute, Month, Week, Weekday, Year, YearMonth};
        matches!(self, Year | YearMonth | Month | Week | Date | Weekday | Hour | Minute)
    }
}

/// One mode of the tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct ModeSpec {
    /// The letter that stands before it, if one does.
    pub letter: Option<char>,
    /// The column that it is made of.
    pub column: String,
    /// How.
    pub function: Function,
}

impl ModeSpec {
    /// The mode as it is written, without its letter.
    fn expression(&self) -> String {
        let column = quoted_if_needed(&self.column);
        match &self.function {
            Function::Values => column,
            Function::Year => format!("year({column})"),
            Function::YearMonth => format!("yearmonth({column})"),
            Function::Month => format!("month({column})"),
            Function::Week => format!("week({column})"),
            Function::Date => format!("date({column})"),
            Function::Weekday => format!("weekday({column})"),
            Function::Hour => format!("hour({column})"),
            Function::Minute => format!("minute({column})"),
            Function::Bins(n) => format!("bin({column},{n})"),
            Function::Range { from, to, step, .. } => format!("bin({column},{from}:{to}:{step})"),
            Function::Top { count, other: false } => format!("top({column},{count})"),
            Function::Top { count, other: true } => format!("top({column},{count},other)"),
            Function::Round(digits) => format!("round({column},{digits})"),
            Function::Prefix(length) => format!("prefix({column},{length})"),
        }
    }
}

impl fmt::Display for ModeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(letter) = self.letter {
            write!(f, "{letter}=")?;
        }
        f.write_str(&self.expression())
    }
}

/// The modes of the tensor, in their order.
///
/// A mode is a column, whose values are the labels, or a function of one: `year`, `yearmonth`,
/// `month`, `week`, `date`, `weekday`, `hour`, `minute` of a time, `bin(column, N)`,
/// `bin(column, from:to:step)`, `top(column, N)`, `top(column, N, other)`, `round(column, digits)`,
/// `prefix(column, N)`. A letter may stand before each. Names of columns with commas, brackets or `=` in them are quoted.
///
/// ```
/// use nneinfact_table::Modes;
///
/// let modes = Modes::parse("w=week(time), i=bin(lat,100), \"a, b\"")?;
/// assert_eq!(modes.to_string(), "w=week(time),i=bin(lat,100),\"a, b\"");
/// assert_eq!(modes.names(), ["week(time)", "lat", "a, b"]);
///
/// let error = Modes::parse("hour(time),bin(lat)").unwrap_err();
/// assert_eq!(error.to_string(), "\
/// bin takes a number of bins, as bin(lat,100), or a range, as bin(lat,from:to:step)
///   hour(time),bin(lat)
///              ^^^^^^^^");
/// # Ok::<(), nneinfact_table::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Modes(Vec<ModeSpec>);

/// More bins are of no use, and would only take memory.
const MOST_BINS: u32 = 1 << 24;

/// More modes than the most letters there are make no sense.
const MOST_MODES: usize = 52;

impl Modes {
    /// Reads the text.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting), with carets under the mistake.
    pub fn parse(text: &str) -> Result<Modes> {
        let mut cursor = Cursor::new(text);
        let mut modes: Vec<ModeSpec> = Vec::new();
        if text.trim().is_empty() {
            return Err(mistake(
                text,
                &(0..0),
                "no modes: columns or functions of them are expected, as in week(time),bin(lat,100)",
            ));
        }
        loop {
            let start = cursor.at;
            let mode = mode(&mut cursor)?;
            let at = start + leading(&text[start..cursor.at])..cursor.at;
            if let Some(letter) = mode.letter
                && modes.iter().any(|other| other.letter == Some(letter))
            {
                return Err(mistake(text, &at, format!("the letter {letter} is there twice")));
            }
            let same = |o: &&ModeSpec| o.column == mode.column && o.function == mode.function;
            if modes.iter().find(same).is_some() {
                return Err(mistake(text, &at, "this mode is there twice"));
            }
            if modes.len() == MOST_MODES {
                return Err(mistake(text, &at, format!("more than {MOST_MODES} modes")));
            }
            modes.push(mode);
            if !cursor.eat(',') {
                break;
            }
        }
        cursor.skip_space();
        match cursor.peek() {
            None => Ok(Modes(modes)),
            Some(c) => Err(mistake(
                text,
                &(cursor.at..cursor.at + c.len_utf8()),
                "a comma or the end is expected here; names of columns with brackets, commas or = in them are quoted",
            )),
        }
    }

    /// No modes, until some are given.
    pub(crate) fn none() -> Modes {
        Modes(Vec::new())
    }

    /// The modes.
    #[must_use]
    pub fn as_slice(&self) -> &[ModeSpec] {
        &self.0
    }

    /// What the modes are called: by their columns, functions of a time and several modes of one
    /// column as they are written.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let name = |mode: &ModeSpec| {
            let same = self.0.iter().filter(|other| other.column == mode.column).count();
            if mode.function.is_of_time() || same > 1 {
                mode.expression()
            } else {
                mode.column.clone()
            }
        };
        self.0.iter().map(name).collect()
    }
}

impl fmt::Display for Modes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mode) in self.0.iter().enumerate() {
            write!(f, "{}{mode}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

fn leading(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

fn is_special(c: char) -> bool {
    matches!(c, ',' | '(' | ')' | '=')
}

fn quoted_if_needed(column: &str) -> String {
    let plain = !column.is_empty()
        && column.trim() == column
        && !column.starts_with(['"', '\'', '`'])
        && !column.contains(is_special);
    if plain { column.into() } else { format!("\"{}\"", column.replace('"', "\"\"")) }
}

/// The name of a column, quoted or up to the next special character.
fn column(cursor: &mut Cursor<'_>) -> Result<(String, Range<usize>)> {
    if let Some(quoted) = cursor.quoted()? {
        return Ok(quoted);
    }
    let (word, at) = cursor.word(is_special);
    if word.is_empty() {
        return Err(mistake(cursor.text, &at, "the name of a column is expected here"));
    }
    Ok((word.into(), at))
}

fn mode(cursor: &mut Cursor<'_>) -> Result<ModeSpec> {
    let text = cursor.text;
    if let Some((column, _)) = cursor.quoted()? {
        return Ok(ModeSpec { letter: None, column, function: Function::Values });
    }
    let (mut word, mut at) = cursor.word(is_special);
    let mut letter = None;
    if cursor.peek() == Some('=') {
        let mut chars = word.chars();
        letter = chars.next().filter(|c| c.is_ascii_alphabetic() && chars.next().is_none());
        if letter.is_none() {
            return Err(mistake(text, &at, "one letter, A–Z or a–z, stands before the ="));
        }
        cursor.eat('=');
        if let Some((column, _)) = cursor.quoted()? {
            return Ok(ModeSpec { letter, column, function: Function::Values });
        }
        (word, at) = cursor.word(is_special);
    }
    if word.is_empty() {
        let message = "a column or a function of one is expected here";
        return Err(mistake(text, &at, message));
    }
    if cursor.peek() != Some('(') {
        return Ok(ModeSpec { letter, column: word.into(), function: Function::Values });
    }
    let known = Function::of_time(word);
    if known.is_none() && !matches!(word, "bin" | "top" | "round" | "prefix") {
        return Err(mistake(
            text,
            &at,
            format!(
                "{word} is not a function: there are year, yearmonth, month, week, date, weekday, hour, minute, bin, top, round and prefix"
            ),
        ));
    }
    cursor.eat('(');
    let (column, _) = column(cursor)?;
    let mut arguments = Vec::new();
    while cursor.eat(',') {
        arguments.push(cursor.word(is_special));
    }
    if !cursor.eat(')') {
        let message = format!("the bracket of {word}( is not closed");
        return Err(mistake(text, &(at.start..cursor.at), message));
    }
    let call = Call { text, whole: at.start..cursor.at, column: &column, arguments };
    let function = match known {
        Some(function) if call.arguments.is_empty() => function,
        Some(_) => return Err(call.wrong(format!("{word} takes a column and nothing else"))),
        None if word == "bin" => call.bin()?,
        None if word == "top" => call.top()?,
        None if word == "prefix" => call.prefix()?,
        None => call.round()?,
    };
    Ok(ModeSpec { letter, column, function })
}

/// A function with its arguments after the column.
struct Call<'a> {
    text: &'a str,
    whole: Range<usize>,
    column: &'a str,
    arguments: Vec<(&'a str, Range<usize>)>,
}

impl Call<'_> {
    fn wrong(&self, message: impl AsRef<str>) -> crate::Error {
        mistake(self.text, &self.whole, message)
    }

    /// A whole number from 1.
    fn count(&self, (word, at): &(&str, Range<usize>), what: &str) -> Result<u32> {
        match word.parse::<u32>() {
            Ok(n) if n >= 1 => Ok(n),
            _ => Err(mistake(
                self.text,
                at,
                format!("{what}: a whole number from 1 to {} is expected", u32::MAX),
            )),
        }
    }

    fn bin(&self) -> Result<Function> {
        let column = quoted_if_needed(self.column);
        let [argument] = &self.arguments[..] else {
            return Err(self.wrong(format!(
                "bin takes a number of bins, as bin({column},100), or a range, as bin({column},from:to:step)"
            )));
        };
        if !argument.0.contains(':') {
            let bins = self.count(argument, "the number of bins")?;
            if bins > MOST_BINS {
                let message = format!("more than {MOST_BINS} bins");
                return Err(mistake(self.text, &argument.1, message));
            }
            return Ok(Function::Bins(bins));
        }
        let fault = |message: String| mistake(self.text, &argument.1, message);
        let numbers: Option<Vec<f64>> = argument
            .0
            .split(':')
            .map(|part| part.trim().parse().ok().filter(|x: &f64| x.is_finite()))
            .collect();
        let Some([from, to, step]) = numbers.as_deref() else {
            return Err(fault("a range is three numbers, from:to:step".into()));
        };
        let (from, to, step) = (*from, *to, *step);
        if !(step > 0.0 && from < to) {
            return Err(fault("from must be below to, and the step above 0".into()));
        }
        let steps = (to - from) / step;
        if !(steps.round() >= 1.0 && steps.round() <= f64::from(MOST_BINS)) {
            return Err(fault(format!("this makes no bin, or more than {MOST_BINS}")));
        }
        if (steps - steps.round()).abs() > 1e-6 {
            return Err(fault(format!(
                "from {from} to {to} is not a whole number of steps of {step}: {} would be, or the step {}",
                from + steps.ceil() * step,
                (to - from) / steps.ceil()
            )));
        }
        Ok(Function::Range { from, to, step, bins: steps.round() as u32 })
    }

    fn top(&self) -> Result<Function> {
        match &self.arguments[..] {
            [count] => Ok(Function::Top { count: self.count(count, "how many")?, other: false }),
            [count, ("other", _)] => {
                Ok(Function::Top { count: self.count(count, "how many")?, other: true })
            }
            [_, (_, at)] => Err(mistake(
                self.text,
                at,
                "only the word other can stand here: the others are then one label more",
            )),
            _ => Err(self.wrong("top takes a column and how many, as top(column,50), and may end in other, as top(column,50,other)")),
        }
    }

    fn prefix(&self) -> Result<Function> {
        match &self.arguments[..] {
            [length] => Ok(Function::Prefix(self.count(length, "how many characters")?)),
            _ => {
                Err(self
                    .wrong("prefix takes a column and a number of characters, as prefix(code,2)"))
            }
        }
    }

    fn round(&self) -> Result<Function> {
        let [(word, at)] = &self.arguments[..] else {
            return Err(
                self.wrong("round takes a column and a number of digits, as round(price,1)")
            );
        };
        match word.parse::<i32>() {
            Ok(digits) if digits.abs() <= 15 => Ok(Function::Round(digits)),
            _ => Err(mistake(self.text, at, "a whole number from -15 to 15 is expected")),
        }
    }
}
