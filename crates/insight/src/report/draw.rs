//! What all drawings share: text that is safe inside markup, numbers as people read them, ticks.

use std::fmt::Write as _;

use nneinfact_core::error::steers;

/// A piece of SVG of a known size, for an `<svg>` of its own or a place in a figure.
#[derive(Clone, Debug)]
pub(super) struct Drawing {
    pub width: f64,
    pub height: f64,
    pub body: String,
    /// What it shows, for those who do not see it.
    pub label: String,
}

impl Drawing {
    pub fn new(width: f64, height: f64, label: impl Into<String>) -> Drawing {
        Drawing { width, height, body: String::new(), label: label.into() }
    }

    /// As an element of a page.
    pub fn inline(&self, class: &str) -> String {
        format!(
            "<svg class=\"{class}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\" xmlns=\"http://www.w3.org/2000/svg\">{}</svg>",
            at(self.width),
            at(self.height),
            escape(&self.label),
            self.body
        )
    }

    /// As a part of a figure, its corner at a place.
    pub fn placed(&self, x: f64, y: f64) -> String {
        format!("<g transform=\"translate({} {})\">{}</g>", at(x), at(y), self.body)
    }

    /// A text; `class` says its colour and size, `anchor` is `start`, `middle` or `end`.
    pub fn text(&mut self, x: f64, y: f64, class: &str, anchor: &str, text: &str) {
        self.push(&format!(
            "<text class=\"{class}\" x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            at(x),
            at(y),
            escape(text)
        ));
    }

    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        self.push(&format!(
            "<line class=\"{class}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>",
            at(from.0),
            at(from.1),
            at(to.0),
            at(to.1)
        ));
    }

    /// A rectangle that says something where one points at it.
    pub fn rect(&mut self, class: &str, (x, y): (f64, f64), (w, h): (f64, f64), title: &str) {
        self.push(&format!(
            "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\">",
            at(x),
            at(y),
            at(w.max(0.0)),
            at(h.max(0.0))
        ));
        if !title.is_empty() {
            self.push(&format!("<title>{}</title>", escape(title)));
        }
        self.push("</rect>");
    }

    /// A path through points, in pieces where some are not finite.
    pub fn path(&mut self, class: &str, points: impl Iterator<Item = (f64, f64)>) {
        let mut d = String::new();
        let mut pen = 'M';
        for (x, y) in points {
            if x.is_finite() && y.is_finite() {
                let _ = write!(d, "{pen}{} {}", at(x), at(y));
                pen = 'L';
            } else {
                pen = 'M';
            }
        }
        if !d.is_empty() {
            self.push(&format!("<path class=\"{class}\" d=\"{d}\"/>"));
        }
    }

    pub fn push(&mut self, markup: &str) {
        self.body.push_str(markup);
    }
}

/// A coordinate, to a tenth of a pixel.
pub(super) fn at(x: f64) -> String {
    let rounded = (x * 10.0).round() / 10.0;
    // No "-0", and no "NaN", which is no place.
    if rounded == 0.0 || !rounded.is_finite() { "0".into() } else { rounded.to_string() }
}

/// Text for an element or an attribute; what XML cannot hold, or would turn the direction of the text
/// after it, becomes �. Isolates that are closed stay, as they turn nothing outside.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let closed = closes_isolates(text);
    for c in text.chars() {
        match c {
            ISOLATE | END_OF_ISOLATE if closed => safe.push(c),
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(' '),
            c if steers(c) || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// U+2068 and U+2069, which keep a name that may run from right to left apart from what is around it.
const ISOLATE: char = '\u{2068}';
const END_OF_ISOLATE: char = '\u{2069}';

/// Whether every isolate of a text is closed, and none that was not begun.
fn closes_isolates(text: &str) -> bool {
    let mut open = 0usize;
    for c in text.chars() {
        match c {
            ISOLATE => open += 1,
            END_OF_ISOLATE if open == 0 => return false,
            END_OF_ISOLATE => open -= 1,
            _ => {}
        }
    }
    open == 0
}

/// JSON that can stand inside a `<script>` in HTML and in XML.
pub(super) fn json(value: &serde_json::Value) -> String {
    let text = value.to_string();
    text.replace('&', "\\u0026")
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace(|c| steers(c) || matches!(c, '\u{fffe}' | '\u{ffff}'), "\u{fffd}")
}

/// A number with `digits` digits that count.
pub(super) fn number(x: f64, digits: i32) -> String {
    if x == 0.0 {
        return "0".into();
    }
    if !x.is_finite() {
        return if x.is_nan() { "–".into() } else { x.to_string().replace("inf", "∞") };
    }
    let magnitude = x.abs().log10().floor() as i32;
    if (4..15).contains(&magnitude)
        && (magnitude >= 6 || magnitude + 1 >= digits || x.fract() == 0.0)
    {
        return separated(x);
    }
    if !(-4..6).contains(&magnitude) {
        let text = format!("{x:.*e}", (digits - 1).max(0) as usize);
        return match text.split_once('e') {
            Some((mantissa, exponent)) => format!("{}e{exponent}", trimmed(mantissa)),
            None => text,
        };
    }
    trimmed(&format!("{x:.*}", (digits - 1 - magnitude).max(0) as usize)).into()
}

/// No number on an axis has more digits.
const MOST_DIGITS: i32 = 9;

/// The numbers of an axis, with as many digits as it takes to tell them apart. What would still be said twice is said
/// once.
pub(super) fn numbers(marks: &[f64], digits: i32) -> Vec<String> {
    let texts = |digits| -> Vec<String> { marks.iter().map(|&m| number(m, digits)).collect() };
    let differ = |texts: &[String]| texts.windows(2).all(|pair| pair[0] != pair[1]);
    let found = (digits..=MOST_DIGITS).map(texts).find(|texts| differ(texts));
    found.unwrap_or_else(|| {
        let mut texts = texts(MOST_DIGITS);
        for i in (1..texts.len()).rev() {
            if texts[i] == texts[i - 1] {
                texts[i].clear();
            }
        }
        texts
    })
}

fn trimmed(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// A whole number with separators.
pub(super) fn separated(x: f64) -> String {
    if !x.is_finite() {
        return number(x, 1);
    }
    let digits = format!("{:.0}", x.abs());
    let mut text = String::from(if x < 0.0 { "−" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share in per cent.
pub(super) fn percent(share: f64) -> String {
    match 100.0 * share {
        p if !p.is_finite() => "–".into(),
        p if p >= 9.95 => format!("{p:.0} %"),
        p if p >= 0.095 || p == 0.0 => format!("{p:.1} %"),
        p => format!("{} %", number(p, 1)),
    }
}

/// Seconds as people say them.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() => "–".into(),
        s if s < 1.0 => format!("{} ms", number(1000.0 * s, 2)),
        s if s < 120.0 => format!("{} s", number(s, 3)),
        s if s < 7200.0 => format!("{:.0} min {:02.0} s", (s / 60.0).floor(), (s % 60.0).floor()),
        s => format!("{:.0} h {:02.0} min", (s / 3600.0).floor(), (s % 3600.0 / 60.0).floor()),
    }
}

/// About how wide a text is, at 10 px.
pub(super) fn width_of(text: &str) -> f64 {
    text.chars()
        .map(|c| match c {
            'i' | 'j' | 'l' | '.' | ',' | '\'' | ':' | '|' | 'I' | 't' | 'f' | ' ' => 3.2,
            'm' | 'w' | 'M' | 'W' | '%' => 8.6,
            c if c.is_ascii_uppercase() => 6.9,
            c if c.is_ascii_digit() => 6.3,
            c if c.is_ascii() => 5.9,
            c if joins(c) => 0.0,
            // Letters of East Asia and pictures fill a square.
            c if c >= '\u{2e80}' => 10.0,
            _ => 9.0,
        })
        .sum()
}

/// Whether a character stands on the one before it, or joins its neighbours: marks of letters,
/// variation selectors, joiners, and what only turns the direction.
fn joins(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5bd}' | '\u{610}'..='\u{61a}'
        | '\u{64b}'..='\u{65f}' | '\u{670}' | '\u{6d6}'..='\u{6ed}' | '\u{900}'..='\u{903}'
        | '\u{93a}'..='\u{94f}' | '\u{e31}' | '\u{e34}'..='\u{e3a}' | '\u{e47}'..='\u{e4e}'
        | '\u{1ab0}'..='\u{1aff}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}' | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{fe20}'..='\u{fe2f}' | '\u{1f3fb}'..='\u{1f3ff}' | '\u{e0100}'..='\u{e01ef}')
}

/// A text cut to a width, at 10 px, not between a letter and its marks.
pub(super) fn cut(text: &str, width: f64) -> String {
    if width_of(text) <= width {
        return text.into();
    }
    let mut kept = String::new();
    let mut used = 0.0;
    for c in text.chars() {
        used += width_of(c.encode_utf8(&mut [0; 4]));
        if used > width - 9.0 && !joins(c) {
            break;
        }
        kept.push(c);
    }
    // A joiner joins nothing any more.
    let kept = kept.trim_end_matches('\u{200d}');
    kept.trim_end().to_string() + "…"
}

/// Round numbers between two others, about `count` of them.
pub(super) fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let span = high - low;
    if !(span > 0.0 && span.is_finite()) {
        return vec![low];
    }
    let raw = span / count.max(1) as f64;
    let power = 10f64.powf(raw.log10().floor());
    let step =
        [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= raw * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let first = (low / step - 1e-9).ceil() as i64;
    (0..=2 * count as i64 + 4)
        .map(|i| (first + i) as f64 * step)
        .take_while(|&t| t <= high + 1e-9 * span)
        .collect()
}

/// How a quantity runs along an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum AxisScale {
    Linear,
    Log,
    /// The logarithm of 1 + x, for counts that begin at 0.
    LogPlusOne,
}

/// An axis: numbers to pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ruler {
    pub scale: AxisScale,
    pub low: f64,
    pub high: f64,
    pub from: f64,
    pub to: f64,
}

impl Ruler {
    fn place(&self, x: f64) -> f64 {
        match self.scale {
            AxisScale::Linear => x,
            AxisScale::Log => x.ln(),
            AxisScale::LogPlusOne => x.ln_1p(),
        }
    }

    pub fn at(&self, x: f64) -> f64 {
        let (low, high) = (self.place(self.low), self.place(self.high));
        let share = if high > low { (self.place(x) - low) / (high - low) } else { 0.5 };
        self.from + share * (self.to - self.from)
    }

    pub fn ticks(&self, count: usize) -> Vec<f64> {
        if self.scale == AxisScale::Linear {
            return ticks(self.low, self.high, count);
        }
        let shift = if self.scale == AxisScale::LogPlusOne { 1.0 } else { 0.0 };
        let (low, high) = ((self.low + shift).log10().floor(), (self.high + shift).log10().ceil());
        let decades = |digits: &[f64]| -> Vec<f64> {
            let mut marks = if shift > 0.0 && self.low == 0.0 { vec![0.0] } else { Vec::new() };
            for power in (low as i32)..=(high as i32) {
                marks.extend(digits.iter().map(|d| d * 10f64.powi(power)));
            }
            marks.retain(|&m| m >= self.low * (1.0 - 1e-9) && m <= self.high * (1.0 + 1e-9));
            marks
        };
        // The densest grid of round numbers that still has about the number of marks.
        let wide = high - low;
        let mut best = decades(&[1.0]);
        for digits in [&[1.0, 3.0][..], &[1.0, 2.0, 5.0], &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0]] {
            let marks = decades(digits);
            if marks.len() <= count + 2 || best.len() < 2 {
                best = marks;
            }
        }
        if best.len() < 2 {
            best = ticks(self.low, self.high, count);
        }
        if best.len() > count + 2 {
            let every = best.len().div_ceil(count.max(1));
            best = best.into_iter().step_by(every).collect();
        }
        debug_assert!(wide >= 0.0);
        best
    }
}

/// The smallest and the largest of some numbers, those that are not finite left out.
pub(super) fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|x| x.is_finite()).fold(None, |range, x| match range {
        None => Some((x, x)),
        Some((low, high)) => Some((f64::min(low, x), f64::max(high, x))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_an_axis_can_be_told_apart() {
        assert_eq!(numbers(&[0.1, 0.15, 0.2], 4), ["0.1", "0.15", "0.2"]);
        assert_eq!(numbers(&[0.2144, 0.21442, 0.21444], 4), ["0.2144", "0.21442", "0.21444"]);
        assert_eq!(numbers(&[1250.0, 1250.5], 3), ["1250", "1250.5"]);
        // Closer than any number says.
        let close = [8.0, 8.0 + 1e-12, 8.0 + 2e-12, 9.0];
        assert_eq!(numbers(&close, 4), ["8", "", "", "9"]);
        assert!(numbers(&[], 4).is_empty());
    }

    #[test]
    fn numbers_have_sensible_digits() {
        let cases = [
            (0.0, "0"),
            (0.012345, "0.01235"),
            (12.5, "12.5"),
            (1234.0, "1234"),
            (12345.6, "12,346"),
            (4534327.2, "4,534,327"),
            (1.5e-9, "1.5e-9"),
            (2e20, "2e20"),
        ];
        for (x, text) in cases {
            assert_eq!(number(x, 4), text);
        }
        assert_eq!(percent(0.1823), "18 %");
        assert_eq!(percent(0.0123), "1.2 %");
        assert_eq!(percent(0.00001), "0.001 %");
    }

    #[test]
    fn text_is_safe() {
        assert_eq!(escape("<b a=\"1\">&'\u{1}"), "&lt;b a=&quot;1&quot;&gt;&amp;&#39;\u{fffd}");
        let text = json(&serde_json::json!("</script>&"));
        assert!(!text.contains('<') && !text.contains('&'), "{text}");
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 1.0, 2), [0.0, 0.5, 1.0]);
        assert_eq!(ticks(3.0, 3.0, 4), [3.0]);
        let ruler = Ruler { scale: AxisScale::Log, low: 0.012, high: 0.9, from: 0.0, to: 1.0 };
        let marks = ruler.ticks(5);
        assert!(marks.len() >= 3 && marks.iter().all(|m| (0.012..=0.9).contains(m)), "{marks:?}");
        assert_eq!(ruler.at(0.9), 1.0);
    }

    #[test]
    fn texts_are_cut_to_a_width() {
        assert_eq!(cut("short", 100.0), "short");
        let text = cut("a label that is much too long", 60.0);
        assert!(text.ends_with('…') && width_of(&text) <= 62.0, "{text}");
    }
}
