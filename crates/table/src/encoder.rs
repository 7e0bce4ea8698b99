//! How the cells of a column become codes, and codes become labels.

use crate::bins::Bins;
use crate::calendar;
use crate::dictionary::{self, Dictionary, NumberLabels};
use crate::error::Error;
use crate::labels::{LabelKind, NOWHERE, Ordered, order};
use crate::number;
use crate::spec::Function;
use crate::text::shown;
use crate::time::Moment;
use crate::wire::{Reader, Writer, broken};

/// What was read from a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Raw {
    Code(u32),
    Number(f64),
}

/// Where a row belongs along a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    At(u32),
    /// Outside the bins.
    Outside,
    /// Not among the most frequent.
    Rare,
    /// Not as it was when the table was read first.
    Changed,
}

/// Why a cell could not be read.
#[derive(Debug, PartialEq)]
pub(crate) enum Fault {
    Bad(String),
    Full,
}

impl From<dictionary::LabelRefusal> for Fault {
    fn from(refusal: dictionary::LabelRefusal) -> Fault {
        match refusal {
            dictionary::LabelRefusal::Full => Fault::Full,
            dictionary::LabelRefusal::NotText => Fault::Bad(String::new()),
        }
    }
}

/// Codes of one mode.
#[derive(Clone, Debug)]
pub(crate) enum Encoder {
    /// Texts as they stand, or their first characters.
    Text(Dictionary, Option<u32>),
    Rounded {
        digits: i32,
        numbers: NumberLabels,
    },
    /// Years, months of years, weeks or dates.
    Interval {
        of: Interval,
        numbers: NumberLabels,
    },
    Cycle(Cycle),
    /// Bins over a given range.
    Range {
        bins: Bins,
    },
    /// Bins from the smallest value to the largest.
    Spread {
        count: u32,
        least: f64,
        most: f64,
        bins: Option<Bins>,
    },
    Top(Top),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interval {
    Year,
    YearMonth,
    Week,
    Date,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cycle {
    Month,
    Weekday,
    Hour,
    Minute,
}

/// The most frequent texts.
#[derive(Clone, Debug)]
pub(crate) struct Top {
    count: u32,
    other: bool,
    texts: Dictionary,
    rows: Vec<u64>,
    /// Once all rows were seen: the place of every text, and the labels.
    chosen: Option<(Vec<Place>, Ordered)>,
}

impl Encoder {
    /// `None` where the bins of a range are too many or too narrow for floats.
    pub fn new(function: &Function) -> Option<Encoder> {
        let interval = |of| Encoder::Interval { of, numbers: NumberLabels::default() };
        Some(match *function {
            Function::Values => Encoder::Text(Dictionary::default(), None),
            Function::Prefix(length) => Encoder::Text(Dictionary::default(), Some(length)),
            Function::Year => interval(Interval::Year),
            Function::YearMonth => interval(Interval::YearMonth),
            Function::Week => interval(Interval::Week),
            Function::Date => interval(Interval::Date),
            Function::Month => Encoder::Cycle(Cycle::Month),
            Function::Weekday => Encoder::Cycle(Cycle::Weekday),
            Function::Hour => Encoder::Cycle(Cycle::Hour),
            Function::Minute => Encoder::Cycle(Cycle::Minute),
            Function::Bins(count) => {
                let (least, most) = (f64::INFINITY, f64::NEG_INFINITY);
                Encoder::Spread { count, least, most, bins: None }
            }
            Function::Range { from, to, bins, .. } => {
                Encoder::Range { bins: Bins::new(from, to, bins)? }
            }
            Function::Top { count, other } => Encoder::Top(Top {
                count,
                other,
                texts: Dictionary::default(),
                rows: Vec::new(),
                chosen: None,
            }),
            Function::Round(digits) => {
                Encoder::Rounded { digits, numbers: NumberLabels::default() }
            }
        })
    }

    /// Whether all rows must be seen before the first can be placed.
    pub fn looks_ahead(&self) -> bool {
        matches!(self, Encoder::Spread { .. } | Encoder::Top(_))
    }

    /// Whether cells are read as numbers that are kept as such.
    pub fn keeps_numbers(&self) -> bool {
        matches!(self, Encoder::Spread { .. } | Encoder::Range { .. })
    }

    /// The bits that codes take, or are likely to.
    pub fn width(&self) -> u32 {
        match self {
            Encoder::Cycle(cycle) => bits(cycle.len() - 1),
            Encoder::Range { bins } => bits(bins.len() as u32 - 1),
            Encoder::Spread { count, .. } => bits(count - 1),
            Encoder::Text(..) | Encoder::Rounded { .. } | Encoder::Top(_) => 6,
            Encoder::Interval { .. } => 4,
        }
    }

    /// The memory that it takes, in bytes.
    pub fn memory(&self) -> u64 {
        match self {
            Encoder::Text(texts, _) => texts.memory(),
            Encoder::Rounded { numbers, .. } | Encoder::Interval { numbers, .. } => {
                numbers.memory()
            }
            Encoder::Cycle(_) => 0,
            Encoder::Range { bins } | Encoder::Spread { bins: Some(bins), .. } => {
                8 * bins.len() as u64
            }
            Encoder::Spread { bins: None, .. } => 0,
            Encoder::Top(top) => top.texts.memory() + 8 * top.rows.capacity() as u64,
        }
    }

    /// Reads a cell, or the time that it holds.
    #[inline]
    pub fn read(&mut self, cell: &[u8], moment: Moment) -> Result<Raw, Fault> {
        let number = |cell| {
            number::parse(cell)
                .ok_or_else(|| Fault::Bad(format!("{} is not a finite number", shown(cell))))
        };
        let not_text = |e| match Fault::from(e) {
            Fault::Full => Fault::Full,
            Fault::Bad(_) => Fault::Bad(format!("{} is not UTF-8", shown(cell))),
        };
        Ok(match self {
            Encoder::Text(texts, None) => Raw::Code(texts.intern(cell).map_err(not_text)?),
            Encoder::Text(texts, Some(length)) => {
                Raw::Code(texts.intern(beginning(cell, *length)).map_err(not_text)?)
            }
            Encoder::Top(top) => Raw::Code(top.texts.intern(cell).map_err(not_text)?),
            Encoder::Rounded { digits, numbers } => {
                let x = number::round(number(cell)?, *digits);
                Raw::Code(numbers.intern(x.to_bits() as i64)?)
            }
            Encoder::Interval { of, numbers } => Raw::Code(numbers.intern(of.number(moment))?),
            Encoder::Cycle(cycle) => Raw::Code(cycle.place(moment)),
            Encoder::Range { .. } | Encoder::Spread { .. } => Raw::Number(number(cell)?),
        })
    }

    /// Takes note of a cell of a row that counts, before any row is placed.
    #[inline]
    pub fn note(&mut self, raw: Raw) {
        match (self, raw) {
            (Encoder::Spread { least, most, .. }, Raw::Number(x)) => {
                *least = least.min(x);
                *most = most.max(x);
            }
            (Encoder::Top(top), Raw::Code(code)) => {
                let code = code as usize;
                if code >= top.rows.len() {
                    top.rows.resize(code + 1, 0);
                }
                top.rows[code] += 1;
            }
            _ => {}
        }
    }

    /// Tells what was noted, for another process to [add](Encoder::note_all) it to what it noted.
    pub fn tell_notes(&self, to: &mut Writer) {
        match self {
            Encoder::Spread { least, most, .. } => {
                to.f64(*least);
                to.f64(*most);
            }
            Encoder::Top(top) => {
                to.u64(top.rows.len() as u64);
                for (id, &rows) in (0u32..).zip(&top.rows) {
                    to.u64(rows);
                    to.bytes(top.texts.get(id).as_bytes());
                }
            }
            _ => {}
        }
    }

    /// Adds what another process noted of rows that follow those of this one.
    pub fn note_all(&mut self, from: &mut Reader<'_>) -> Result<(), Error> {
        match self {
            Encoder::Spread { least, most, .. } => {
                *least = least.min(from.f64()?);
                *most = most.max(from.f64()?);
            }
            Encoder::Top(top) => {
                for _ in 0..from.u64()? {
                    let rows = from.u64()?;
                    let code = top.texts.intern(from.bytes()?).map_err(|_| broken())? as usize;
                    if code >= top.rows.len() {
                        top.rows.resize(code + 1, 0);
                    }
                    top.rows[code] += rows;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Tells what a code stands for, for another process to [know](Encoder::code_of) it by.
    pub fn tell_code(&self, code: u32, to: &mut Writer) {
        match self {
            Encoder::Text(texts, _) => to.bytes(texts.get(code).as_bytes()),
            Encoder::Rounded { numbers, .. } | Encoder::Interval { numbers, .. } => {
                to.u64(numbers.values().get(code as usize).copied().unwrap_or(0) as u64);
            }
            // These are the same everywhere.
            Encoder::Cycle(_)
            | Encoder::Range { .. }
            | Encoder::Spread { .. }
            | Encoder::Top(_) => to.u32(code),
        }
    }

    /// The code that another process's stands for here, a new one if it was not seen before.
    pub fn code_of(&mut self, from: &mut Reader<'_>) -> Result<u32, Error> {
        match self {
            Encoder::Text(texts, _) => texts.intern(from.bytes()?).map_err(|_| broken()),
            Encoder::Rounded { numbers, .. } | Encoder::Interval { numbers, .. } => {
                numbers.intern(from.u64()? as i64).map_err(|_| broken())
            }
            Encoder::Cycle(_)
            | Encoder::Range { .. }
            | Encoder::Spread { .. }
            | Encoder::Top(_) => {
                let code = from.u32()?;
                if (code as usize) < self.codes() { Ok(code) } else { Err(broken()) }
            }
        }
    }

    /// Fixes bins and choices when all rows were seen. The error says what is wrong.
    pub fn finish_column(&mut self) -> Result<(), String> {
        match self {
            Encoder::Spread { count, least, most, bins } if *least <= *most => {
                let made = Bins::new(*least, *most, *count).ok_or_else(|| {
                    format!("{count} bins from {least} to {most} are too many for floats to tell apart, or for the memory")
                })?;
                *bins = Some(made);
            }
            Encoder::Top(top) => top.choose(),
            _ => {}
        }
        Ok(())
    }

    /// Where a row belongs.
    #[inline]
    pub fn place(&self, raw: Raw) -> Place {
        match (self, raw) {
            (Encoder::Range { bins }, Raw::Number(x)) => {
                bins.index(x).map_or(Place::Outside, Place::At)
            }
            (Encoder::Spread { bins: Some(bins), .. }, Raw::Number(x)) => {
                bins.index(x).map_or(Place::Changed, Place::At)
            }
            (Encoder::Top(Top { chosen: Some((places, _)), .. }), Raw::Code(code)) => {
                places.get(code as usize).copied().unwrap_or(Place::Changed)
            }
            (Encoder::Spread { .. } | Encoder::Top(_), _) | (_, Raw::Number(_)) => Place::Changed,
            (_, Raw::Code(code)) => Place::At(code),
        }
    }

    /// How many codes there are.
    pub fn codes(&self) -> usize {
        match self {
            Encoder::Text(texts, _) => texts.len(),
            Encoder::Rounded { numbers, .. } | Encoder::Interval { numbers, .. } => {
                numbers.values().len()
            }
            Encoder::Cycle(cycle) => cycle.len() as usize,
            Encoder::Range { bins } => bins.len(),
            Encoder::Spread { bins, .. } => bins.as_ref().map_or(0, Bins::len),
            Encoder::Top(top) => top.chosen.as_ref().map_or(0, |(_, labels)| labels.labels.len()),
        }
    }

    /// How many labels there will be at most, with the codes that entries have.
    pub fn most_labels(&self, used: &[bool]) -> u64 {
        match self {
            Encoder::Interval { numbers, .. } => {
                let (least, most) = range(numbers, used);
                (most - least + 1).max(0) as u64
            }
            _ => self.codes() as u64,
        }
    }

    /// The labels in their order, and the index of every code that an entry has.
    pub fn finish(self, used: &[bool]) -> Ordered {
        match self {
            Encoder::Text(texts, _) => {
                let ids: Vec<u32> = of_entries(used).collect();
                let seen: Vec<&str> = ids.iter().map(|&id| texts.get(id)).collect();
                scattered(order(&seen), &ids, used.len())
            }
            Encoder::Rounded { digits, numbers } => {
                let value = |id: u32| f64::from_bits(numbers.values()[id as usize] as u64);
                let mut ids: Vec<u32> = of_entries(used).collect();
                ids.sort_by(|&a, &b| value(a).total_cmp(&value(b)));
                let digits = digits.max(0) as usize;
                let labels = ids.iter().map(|&id| format!("{:.digits$}", value(id))).collect();
                scattered(Ordered::as_they_are(LabelKind::Number, labels), &ids, used.len())
            }
            Encoder::Interval { of, numbers } => {
                let (least, most) = range(&numbers, used);
                let labels = (least..=most).map(|number| of.label(number)).collect();
                let place = |(&number, &used): (&i64, &bool)| match used {
                    true => (number - least) as u32,
                    false => NOWHERE,
                };
                let places = numbers.values().iter().zip(used).map(place).collect();
                Ordered { kind: LabelKind::Date, labels, places }
            }
            Encoder::Cycle(cycle) => Ordered::as_they_are(LabelKind::Cycle, cycle.labels()),
            Encoder::Range { bins } | Encoder::Spread { bins: Some(bins), .. } => {
                let kind = LabelKind::Bins { edges: bins.edges().to_vec() };
                Ordered::as_they_are(kind, bins.labels())
            }
            Encoder::Spread { bins: None, .. } => {
                Ordered::as_they_are(LabelKind::Bins { edges: Vec::new() }, Vec::new())
            }
            Encoder::Top(top) => match top.chosen {
                Some((_, labels)) => labels,
                None => Ordered::as_they_are(LabelKind::Text, Vec::new()),
            },
        }
    }
}

/// The first characters of a text. Bytes that are no text are looked at as a whole.
fn beginning(cell: &[u8], length: u32) -> &[u8] {
    let Ok(text) = std::str::from_utf8(cell) else { return cell };
    let end = text.char_indices().nth(length as usize).map_or(text.len(), |(at, _)| at);
    &cell[..end]
}

/// The bits that a code takes.
fn bits(code: u32) -> u32 {
    (32 - code.leading_zeros()).max(1)
}

fn of_entries(used: &[bool]) -> impl Iterator<Item = u32> + '_ {
    used.iter().zip(0u32..).filter(|(used, _)| **used).map(|(_, id)| id)
}

/// The smallest and the largest number that an entry has.
fn range(numbers: &NumberLabels, used: &[bool]) -> (i64, i64) {
    let seen = || numbers.values().iter().zip(used).filter(|(_, used)| **used).map(|(n, _)| *n);
    (seen().min().unwrap_or(0), seen().max().unwrap_or(-1))
}

/// Gives the places of some codes to all codes.
fn scattered(ordered: Ordered, ids: &[u32], codes: usize) -> Ordered {
    let mut places = vec![NOWHERE; codes];
    for (&id, &place) in ids.iter().zip(&ordered.places) {
        places[id as usize] = place;
    }
    Ordered { places, ..ordered }
}

impl Interval {
    fn number(self, moment: Moment) -> i64 {
        match self {
            Interval::Year => calendar::civil_from_days(moment.days).0.into(),
            Interval::YearMonth => {
                let (year, month, _) = calendar::civil_from_days(moment.days);
                12 * i64::from(year) + i64::from(month) - 1
            }
            Interval::Week => calendar::week(moment.days).into(),
            Interval::Date => moment.days.into(),
        }
    }

    fn label(self, number: i64) -> String {
        match self {
            Interval::Year => format!("{number:04}"),
            Interval::YearMonth => {
                format!("{:04}-{:02}", number.div_euclid(12), number.rem_euclid(12) + 1)
            }
            Interval::Week => calendar::week_text(number as i32),
            Interval::Date => calendar::date_text(number as i32),
        }
    }
}

impl Cycle {
    fn len(self) -> u32 {
        match self {
            Cycle::Month => 12,
            Cycle::Weekday => 7,
            Cycle::Hour => 24,
            Cycle::Minute => 60,
        }
    }

    fn place(self, moment: Moment) -> u32 {
        match self {
            Cycle::Month => calendar::civil_from_days(moment.days).1 - 1,
            Cycle::Weekday => calendar::weekday(moment.days),
            Cycle::Hour => moment.second / 3600,
            Cycle::Minute => moment.second / 60 % 60,
        }
    }

    fn labels(self) -> Vec<String> {
        match self {
            Cycle::Month => calendar::MONTHS.map(String::from).into(),
            Cycle::Weekday => calendar::WEEKDAYS.map(String::from).into(),
            Cycle::Hour => (0..24).map(|hour| format!("{hour:02}:00")).collect(),
            Cycle::Minute => (0..60).map(|minute| format!(":{minute:02}")).collect(),
        }
    }
}

impl Top {
    /// Chooses the texts that are most frequent; of equally frequent ones the first in order.
    fn choose(&mut self) {
        let seen: Vec<u32> =
            (0..self.rows.len() as u32).filter(|&id| self.rows[id as usize] > 0).collect();
        let texts: Vec<&str> = seen.iter().map(|&id| self.texts.get(id)).collect();
        let all = order(&texts);
        let mut rows = vec![0u64; all.labels.len()];
        for (&id, &label) in seen.iter().zip(&all.places) {
            rows[label as usize] += self.rows[id as usize];
        }
        let mut ranked: Vec<u32> = (0..rows.len() as u32).collect();
        ranked.sort_by_key(|&label| (std::cmp::Reverse(rows[label as usize]), label));
        ranked.truncate(self.count as usize);
        ranked.sort_unstable();

        let mut labels: Vec<String> =
            ranked.iter().map(|&label| all.labels[label as usize].clone()).collect();
        let rare = if self.other && ranked.len() < rows.len() {
            let mut name = String::from("other");
            while labels.contains(&name) {
                name = format!("({name})");
            }
            labels.push(name);
            Place::At(ranked.len() as u32)
        } else {
            Place::Rare
        };
        let mut place_of_label = vec![rare; rows.len()];
        for (place, &label) in (0u32..).zip(&ranked) {
            place_of_label[label as usize] = Place::At(place);
        }
        let mut places = vec![Place::Changed; self.texts.len()];
        for (&id, &label) in seen.iter().zip(&all.places) {
            places[id as usize] = place_of_label[label as usize];
        }
        let part = labels.len() != all.labels.len();
        let kind = match all.kind {
            LabelKind::Cycle if part => LabelKind::Text,
            _ if rare != Place::Rare => LabelKind::Text,
            kind => kind,
        };
        self.chosen = Some((places, Ordered::as_they_are(kind, labels)));
    }
}
