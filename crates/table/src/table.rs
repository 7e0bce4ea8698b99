//! Tables of events, and what is asked of them.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::finish;
use crate::reading;
use crate::settings::{Input, Settings, Source, Values};
use crate::source;
use crate::spec::{Function, Modes};
use crate::tensor::{Implicit, TableTensor};
use crate::text::{listed, shown};
use crate::time::{TimeFormat, Zones};

/// A table of events or observations, one a row, that becomes a tensor with names.
///
/// Files are text with a separator (CSV, TSV, …) in UTF-8, with or without a byte order mark;
/// lines end in `\n`, `\r\n` or `\r`; cells in quotes may hold separators and line breaks; empty
/// lines are passed over; what is packed by gzip is unpacked. Rows are streamed: memory is that of
/// the distinct entries and labels. Where rayon has a second thread, files and standard input are unpacked and
/// told apart into cells on one, while another makes the entries. Modes as `bin(column, N)` and `top(column, N)` need all rows
/// before the first can be placed: ordinary files are then read twice, unless the cells needed of
/// all rows fit in 64 MiB; those of a stream are kept whatever they take, up to the
/// [limit](Table::memory_limit).
///
/// With the feature `parquet`, files of that format are read too, by row groups and only the columns that
/// are needed. Their cells are those that a file of text would have; separators and quotes do not matter
/// for them, and of a row the number stands in messages, not the line.
///
/// A row that cannot be read is an error with line and column, or skipped and counted
/// ([`Table::skip_bad`]): one with another number of cells than the first row has; one whose cell
/// for a mode or the value is [missing](Table::missing), is no finite number where a number is
/// needed, no time where a time is needed, or not UTF-8. Columns that are not asked for are not
/// looked at. The filter comes first: rows that it drops may hold anything. Bins from the smallest
/// value to the largest and the most frequent values are those of all rows that pass the filter and
/// can be read, also of rows that another mode drops. Values of bare columns, and the first and the
/// last year, week or date, are those of rows that are in the tensor.
///
/// The rows of an entry are added one after the other in the order of the table, as
/// `numpy.add.at` does it (pandas' `groupby` compensates its sums, and so can differ in the last
/// bits). Only where texts of one number (`1` and `1.0`) become one label, the sums of these texts
/// are added.
///
/// ```
/// use nneinfact_table::Table;
///
/// let rides = "time,lat,who\n\
///     2014-04-01 00:11:00,40.76,b\n\
///     2014-04-02 00:17:00,40.72,a\n\
///     2014-04-02 00:21:00,40.73,a\n";
/// let tensor = Table::from_reader(rides.as_bytes(), "rides.csv")
///     .modes("d=date(time),h=hour(time),i=bin(lat,2),who")?
///     .read()?;
/// assert_eq!(tensor.shape(), [2, 24, 2, 2]);
/// assert_eq!(tensor.modes[3].labels, ["a", "b"]);
/// assert_eq!(tensor.coords, [[0, 1], [0, 0], [1, 0], [1, 0]]);
/// assert_eq!(tensor.values, [1.0, 2.0]);
/// # Ok::<(), nneinfact_table::Error>(())
/// ```
pub struct Table<'a> {
    source: Source<'a>,
    settings: Settings,
}

impl<'a> Table<'a> {
    fn new(source: Source<'a>) -> Table<'a> {
        let missing = ["", "NA", "N/A", "NaN", "nan", "NULL", "null"];
        let settings = Settings {
            modes: Modes::none(),
            values: Values::Count,
            implicit: None,
            filter: None,
            orders: Vec::new(),
            header: true,
            separator: None,
            quote: Some(b'"'),
            skip_bad: false,
            missing: missing.iter().map(|text| text.as_bytes().to_vec()).collect(),
            time_format: TimeFormat::Automatic,
            zones: Zones::default(),
            memory: None,
            cancel: None,
        };
        Table { source, settings }
    }

    /// The table in a file.
    #[must_use]
    pub fn open(path: impl Into<PathBuf>) -> Table<'a> {
        Table::new(Source::Files(vec![path.into()]))
    }

    /// The table whose rows are in several files, one after the other. Each has a header of its
    /// own, if they have any; columns may stand in another order.
    #[must_use]
    pub fn open_all<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Table<'a> {
        Table::new(Source::Files(paths.into_iter().map(Into::into).collect()))
    }

    /// The table whose rows are in the files that a pattern stands for, `rides-*.csv.gz` say, in
    /// the order of their names.
    ///
    /// # Errors
    /// [`Error::Setting`] where the pattern cannot be read, [`Error::File`] where there is no file.
    pub fn matching(pattern: &str) -> Result<Table<'a>> {
        Ok(Table::new(Source::Files(source::matching(pattern)?)))
    }

    /// The table that comes on standard input.
    #[must_use]
    pub fn standard_input() -> Table<'a> {
        let name = PathBuf::from("standard input");
        Table::new(Source::Stream { from: Some(Input::Standard), name })
    }

    /// The table that comes from anywhere; `name` stands for the file in messages, and its ending
    /// tells the separator.
    #[must_use]
    pub fn from_reader(from: impl Read + 'a, name: impl AsRef<Path>) -> Table<'a> {
        let name = name.as_ref().to_path_buf();
        Table::new(Source::Stream { from: Some(Input::Reader(Box::new(from))), name })
    }

    /// The modes of the tensor; see [`Modes`].
    ///
    /// # Errors
    /// [`Error::Setting`], with carets under the mistake.
    pub fn modes(mut self, text: &str) -> Result<Self> {
        self.settings.modes = Modes::parse(text)?;
        Ok(self)
    }

    /// What the values are; counts, if nothing is said.
    #[must_use]
    pub fn values(mut self, values: Values) -> Self {
        self.settings.values = values;
        self
    }

    /// The sum of a column.
    #[must_use]
    pub fn sum(self, column: impl Into<String>) -> Self {
        self.values(Values::Sum(column.into()))
    }

    /// The mean of a column.
    #[must_use]
    pub fn mean(self, column: impl Into<String>) -> Self {
        self.values(Values::Mean(column.into()))
    }

    /// The largest value of a column.
    #[must_use]
    pub fn max(self, column: impl Into<String>) -> Self {
        self.values(Values::Max(column.into()))
    }

    /// What entries without a row are, instead of what [`Values::implicit`] says.
    #[must_use]
    pub fn implicit(mut self, implicit: Implicit) -> Self {
        self.settings.implicit = Some(implicit);
        self
    }

    /// Which rows count; see [`Filter`]. Several filters must all be passed.
    ///
    /// # Errors
    /// [`Error::Setting`], with carets under the mistake.
    pub fn filter(mut self, text: &str) -> Result<Self> {
        let filter = Filter::parse(text)?;
        match &mut self.settings.filter {
            Some(before) => before.and(filter),
            none => *none = Some(filter),
        }
        Ok(self)
    }

    /// The labels of a mode, all of them, in their order. `mode` is its letter, its name or its
    /// column. A label of the table that is not among them is an error; one that no row has stays.
    #[must_use]
    pub fn order(mut self, mode: impl Into<String>, labels: Vec<String>) -> Self {
        self.settings.orders.push((mode.into(), labels));
        self
    }

    /// [`Table::order`] from a file with a label on each line. A first line `# Weekday`, or `#`
    /// alone, is no label.
    ///
    /// # Errors
    /// [`Error::File`] where the file cannot be read, [`Error::Format`] where it is not UTF-8.
    pub fn order_file(self, mode: impl Into<String>, path: impl AsRef<Path>) -> Result<Self> {
        Ok(self.order(mode, label_file(path.as_ref())?))
    }

    /// Whether the first row names the columns, as it does if nothing is said. Columns without
    /// names are called 1, 2, 3 and so on.
    #[must_use]
    pub fn header(mut self, there: bool) -> Self {
        self.settings.header = there;
        self
    }

    /// What stands between cells. If nothing is said, a tab in files that end in `.tsv` or `.tab`,
    /// and a comma in all others.
    #[must_use]
    pub fn separator(mut self, separator: u8) -> Self {
        self.settings.separator = Some(separator);
        self
    }

    /// What stands around cells that hold separators; `None` where quotes are ordinary
    /// characters. `"`, if nothing is said.
    #[must_use]
    pub fn quote(mut self, quote: Option<u8>) -> Self {
        self.settings.quote = quote;
        self
    }

    /// Whether rows that cannot be read are skipped and counted instead of being an error.
    #[must_use]
    pub fn skip_bad(mut self, skip: bool) -> Self {
        self.settings.skip_bad = skip;
        self
    }

    /// The texts that stand for a missing value, besides a cell of nothing but spaces. If nothing
    /// is said: `NA`, `N/A`, `NaN`, `nan`, `NULL` and `null`.
    #[must_use]
    pub fn missing<T: Into<String>>(mut self, texts: impl IntoIterator<Item = T>) -> Self {
        self.settings.missing = texts.into_iter().map(|text| text.into().into_bytes()).collect();
        self.settings.missing.push(Vec::new());
        self
    }

    /// How times are written: `auto`, `unix`, `unix-ms`, `unix-us`, `unix-ns`, or a format as that
    /// of `strptime`, `%m/%d/%Y %H:%M:%S` say. If nothing is said, `auto`: ISO 8601, and Unix time
    /// of 9 or 10 digits (seconds) or 12 or 13 digits (milliseconds).
    ///
    /// # Errors
    /// [`Error::Setting`] where the format cannot be read.
    pub fn time_format(mut self, format: &str) -> Result<Self> {
        self.settings.time_format = TimeFormat::parse(format)?;
        Ok(self)
    }

    /// The time zone that times are shown in, by its name (`America/New_York`). It holds for Unix
    /// times, which are otherwise in UTC, and for times that say how far they are from UTC, which
    /// are otherwise taken as the clock shows them. Times that do not say it are taken as they
    /// stand; `UTC->America/New_York` says which zone they are from. Of the hour that there is
    /// twice when daylight saving ends the first is meant, and a time in the hour that is skipped
    /// is an hour later.
    ///
    /// # Errors
    /// [`Error::Setting`] where the zone is not known.
    pub fn time_zone(mut self, zone: &str) -> Result<Self> {
        self.settings.zones = Zones::parse(zone)?;
        Ok(self)
    }

    /// The most memory that entries, labels and kept cells may take together, in bytes.
    #[must_use]
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.settings.memory = Some(bytes);
        self
    }

    /// A switch that ends the reading from another thread or from a signal handler, between two rows:
    /// [`read`](Table::read) gives [`Error::Cancelled`] then.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicBool, Ordering};
    ///
    /// use nneinfact_table::{Error, Table};
    ///
    /// let cancel = Arc::new(AtomicBool::new(false));
    /// let table = Table::from_reader("a\n1\n2\n".as_bytes(), "t.csv").modes("a")?;
    /// cancel.store(true, Ordering::Relaxed); // From elsewhere.
    /// let read = table.cancel(cancel).read();
    /// assert!(matches!(read, Err(Error::Cancelled(_))));
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn cancel(mut self, switch: Arc<AtomicBool>) -> Self {
        self.settings.cancel = Some(switch);
        self
    }

    /// The names of the columns, as the first row has them; of a table without a header their
    /// numbers. Reads no further.
    ///
    /// # Errors
    /// [`Error::File`] where the file cannot be read; [`Error::Format`] where it is empty or no text.
    pub fn columns(self) -> Result<Vec<String>> {
        reading::columns(self.source, &self.settings)
    }

    /// Reads the table.
    ///
    /// # Errors
    /// [`Error::Setting`] where there are no modes, or settings do not fit the table.
    /// [`Error::File`] where a file cannot be read. [`Error::Format`] where a column is not there
    /// or a row cannot be read, and where no row is left. [`Error::Memory`] where the
    /// [limit](Table::memory_limit) or the memory is too small. [`Error::Cancelled`] where the
    /// [switch](Table::cancel) was thrown. [`Error::Unsupported`] where there
    /// would be more than 2^128 cells or 2^32 labels, and for files whose names are those of a
    /// [format that is not read](crate::describe_foreign).
    pub fn read(self) -> Result<TableTensor> {
        self.settings.check()?;
        if let Source::Files(paths) = &self.source
            && paths.is_empty()
        {
            return Err(Error::Setting("no file is given to read a table from".into()));
        }
        reading::read(self.source, &self.settings)
    }

    /// Where the rows are, and what is asked of them.
    pub(crate) fn into_parts(self) -> (Source<'a>, Settings) {
        (self.source, self.settings)
    }
}

impl Settings {
    pub(crate) fn check(&self) -> Result<()> {
        if self.modes.as_slice().is_empty() {
            return Err(Error::Setting(
                "no modes are given: say which columns, or functions of them, the modes of the tensor are, as in week(time),bin(lat,100)".into(),
            ));
        }
        let separator = self.separator.unwrap_or(b',');
        if self.quote == Some(separator) {
            return Err(Error::Setting("the separator cannot be the quote as well".into()));
        }
        let possible = |byte: u8| byte.is_ascii() && !matches!(byte, b'\n' | b'\r');
        if !possible(separator) || !self.quote.is_none_or(possible) {
            return Err(Error::Setting(
                "separator and quote are one ASCII character each, and no line break".into(),
            ));
        }
        self.check_bins()?;
        for (i, (mode, labels)) in self.orders.iter().enumerate() {
            let place = self.mode_called(mode)?;
            let twice = |(other, _): &(String, _)| self.mode_called(other).ok() == Some(place);
            if self.orders[..i].iter().any(twice) {
                return Err(Error::Setting(format!("two orders are given for the mode {mode}")));
            }
            let mut sorted: Vec<&String> = labels.iter().collect();
            sorted.sort_unstable();
            if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(Error::Setting(format!(
                    "the order of the mode {mode} has the label {} twice",
                    shown(pair[0].as_bytes())
                )));
            }
        }
        Ok(())
    }

    /// Whether the bins that are asked for and their labels fit in the memory.
    fn check_bins(&self) -> Result<()> {
        let bins = self.modes.as_slice().iter().map(|mode| match mode.function {
            Function::Bins(n) | Function::Range { bins: n, .. } => u64::from(n),
            _ => 0,
        });
        let bins: u64 = bins.sum();
        let needed = bins * (finish::LABEL + 8);
        match self.memory {
            Some(limit) if needed > limit => Err(Error::Memory {
                what: format!("{bins} bins with their labels"),
                needed,
                available: limit,
                help: "fewer bins, or a higher limit, would fit".into(),
            }),
            _ => Ok(()),
        }
    }

    /// The mode that has this letter, name or column.
    pub fn mode_called(&self, called: &str) -> Result<usize> {
        let modes = self.modes.as_slice();
        let names = self.modes.names();
        let mut chars = called.chars();
        let letter = chars.next().filter(|_| chars.next().is_none());
        let by_letter = modes.iter().position(|mode| letter.is_some() && mode.letter == letter);
        let by_name = || names.iter().position(|name| name == called);
        let by_column = || {
            let mut all = modes.iter().enumerate().filter(|(_, mode)| mode.column == called);
            let first = all.next().map(|(i, _)| i);
            if all.next().is_some() { None } else { first }
        };
        by_letter.or_else(by_name).or_else(by_column).ok_or_else(|| {
            Error::Setting(format!(
                "an order is given for {}, which is no mode: the modes are {}",
                shown(called.as_bytes()),
                listed(names.iter().map(String::as_str))
            ))
        })
    }
}

/// The labels in a file, one a line.
pub(crate) fn label_file(path: &Path) -> Result<Vec<String>> {
    let mut bytes = Vec::new();
    source::open(path)?.read_to_end(&mut bytes).map_err(|e| source::fault(path, e))?;
    let text =
        String::from_utf8(bytes).map_err(|_| Error::format(path, "the labels are not UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut lines: Vec<&str> = text.lines().collect();
    while lines.last().is_some_and(|line| line.trim().is_empty()) {
        lines.pop();
    }
    let head = lines.first().and_then(|line| line.strip_prefix('#'));
    let head = head.filter(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
    let lines = lines.iter().skip(usize::from(head.is_some()));
    Ok(lines.map(|line| line.trim().to_string()).collect())
}
