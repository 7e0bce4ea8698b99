//! Losses written as text: `custom: a = x/y; b = 1; loss = …; power = -1, 0`.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::text::carets;

use super::{Domain, Expr, Loss, Majorizer};

/// What such a text begins with.
pub(super) const PREFIX: &str = "custom:";
/// Longer texts are no losses.
const LONGEST: usize = 1 << 16;
/// Parentheses and signs inside each other.
const DEEPEST: usize = 100;

impl Loss {
    /// A loss of one's own from a text of parts that semicolons separate:
    ///
    /// ```text
    /// custom: a = x/y; b = 1; loss = y - x*ln(y) + x*ln(x) - x; power = -1, 0
    /// ```
    ///
    /// `a`, `b` and `loss` are expressions in `x` (the datum) and `y` (the model's value) with numbers, `+`, `-`,
    /// `*`, `/`, `^` (to a constant power), parentheses, `ln`, `exp`, `sqrt`, and `if(c, u, v)`, which is u
    /// where c > 0 and else v. Nothing times a logarithm is nothing: `x*ln(x)` is 0 at x = 0. `power` has the
    /// exponents of [`Majorizer::Power`]; `majorizer = log` takes the place of it. `domain` may be
    /// `nonnegative` (the default), `positive` or `binary`, and `degree` is that of homogeneity.
    ///
    /// ```
    /// use nneinfact::Loss;
    ///
    /// let loss = Loss::parse("custom: a = x/y; b = 1; loss = y - x*ln(y) + x*ln(x) - x; power = -1, 0")?;
    /// let apart = loss.eval_loss(3.0, 2.0, &[]) - Loss::kl().eval_loss(3.0, 2.0, &[]);
    /// assert!(apart.abs() < 1e-14);
    /// let error = Loss::parse("custom: a = x/z; b = 1; loss = y; power = -1, 0").unwrap_err();
    /// assert_eq!(error.to_string(), "\
    /// the loss: `z` is not known: x is the datum, y the model's value; functions are ln, exp, sqrt and if
    ///   custom: a = x/z; b = 1; loss = y; power = -1, 0
    ///                 ^");
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Loss`], with carets under what is wrong, where the text cannot be read; as
    /// [`LossBuilder::build`](super::LossBuilder::build) where its parts do not belong together.
    pub fn parse(text: &str) -> Result<Loss> {
        let fault = |Fault { reason, at }: Fault| {
            Error::Loss(format!("the loss: {reason}{}", carets(text, &at)))
        };
        if text.len() > LONGEST {
            return Err(Error::Loss(format!(
                "the loss: {} bytes of text, at most {LONGEST} are read",
                text.len()
            )));
        }
        let start = text.len() - text.trim_start().len();
        let Some(rest) = text[start..].strip_prefix(PREFIX) else {
            let at = start..text.len().max(start);
            return Err(fault(Fault::new(at, "it has to begin with `custom:`")));
        };
        let parts = parts(text, text.len() - rest.len()).map_err(fault)?;
        let canonical: Vec<String> = parts
            .iter()
            .map(|part| {
                let words: Vec<&str> = text[part.value.clone()].split_whitespace().collect();
                format!("{} = {}", part.key, words.join(" "))
            })
            .collect();
        let mut builder = Loss::custom(format!("{PREFIX} {}", canonical.join("; ")));
        for part in &parts {
            let whole = part.value.clone();
            let value = text[whole.clone()].trim();
            match part.key {
                "a" => builder = builder.a(expression(text, whole).map_err(fault)?),
                "b" => builder = builder.b(expression(text, whole).map_err(fault)?),
                "loss" => builder = builder.loss(expression(text, whole).map_err(fault)?),
                "power" => {
                    let [p_a, p_b] = numbers(text, whole).map_err(fault)?;
                    builder = builder.majorizer(Majorizer::Power { p_a, p_b });
                }
                "majorizer" if value == "log" => builder = builder.majorizer(Majorizer::Log),
                "degree" => builder = builder.homogeneity(number(text, whole).map_err(fault)?),
                "domain" if value == "nonnegative" => {
                    builder = builder.domain(Domain::NonNegative);
                }
                "domain" if value == "positive" => builder = builder.domain(Domain::Positive),
                "domain" if value == "binary" => builder = builder.domain(Domain::Binary),
                "domain" => {
                    let reason = "the domain is nonnegative, positive or binary";
                    return Err(fault(Fault::new(whole, reason)));
                }
                _ => {
                    let reason =
                        "a majorizer of powers is given by `power = P_A, P_B`; the other is `log`";
                    return Err(fault(Fault::new(whole, reason)));
                }
            }
        }
        builder.build()
    }
}

/// What is wrong, and where, in bytes.
struct Fault {
    at: Range<usize>,
    reason: String,
}

impl Fault {
    fn new(at: Range<usize>, reason: impl Into<String>) -> Fault {
        Fault { at, reason: reason.into() }
    }
}

/// `key = value`.
struct TextPart {
    key: &'static str,
    value: Range<usize>,
}

const KEYS: [&str; 7] = ["a", "b", "loss", "power", "majorizer", "domain", "degree"];

fn parts(text: &str, from: usize) -> Result<Vec<TextPart>, Fault> {
    let mut parts: Vec<TextPart> = Vec::new();
    let mut start = from;
    for piece in text[from..].split(';') {
        let here = start..start + piece.len();
        start = here.end + 1;
        if piece.trim().is_empty() {
            continue;
        }
        let Some(equals) = piece.find('=') else {
            let reason =
                format!("a part is a name, `=` and a value; names are {}", KEYS.join(", "));
            return Err(Fault::new(trimmed(text, here), reason));
        };
        let name = trimmed(text, here.start..here.start + equals);
        let Some(&key) = KEYS.iter().find(|&&key| key == &text[name.clone()]) else {
            let at =
                if name.is_empty() { here.start + equals..here.start + equals + 1 } else { name };
            return Err(Fault::new(at, format!("a part is named {}", KEYS.join(", "))));
        };
        if parts.iter().any(|part| part.key == key) {
            return Err(Fault::new(name, format!("{key} is given twice")));
        }
        parts.push(TextPart { key, value: here.start + equals + 1..here.end });
    }
    for key in ["a", "b", "loss"] {
        if parts.iter().all(|part| part.key != key) {
            let reason = format!("{key} is missing");
            return Err(Fault::new(text.len()..text.len(), reason));
        }
    }
    let majorizers = parts.iter().filter(|part| matches!(part.key, "power" | "majorizer")).count();
    match majorizers {
        1 => Ok(parts),
        0 => Err(Fault::new(text.len()..text.len(), "power is missing, as in `power = -1, 0`")),
        _ => Err(Fault::new(text.len()..text.len(), "power and majorizer exclude each other")),
    }
}

/// The range without spaces at its ends.
fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let start = range.start + (part.len() - part.trim_start().len());
    start..start + part.trim().len()
}

fn number(text: &str, range: Range<usize>) -> Result<f64, Fault> {
    let range = trimmed(text, range);
    let read = text[range.clone()].parse::<f64>().ok().filter(|x| x.is_finite());
    read.ok_or_else(|| Fault::new(range, "a number is expected"))
}

fn numbers(text: &str, range: Range<usize>) -> Result<[f64; 2], Fault> {
    match text[range.clone()].find(',') {
        Some(comma) => {
            let comma = range.start + comma;
            Ok([number(text, range.start..comma)?, number(text, comma + 1..range.end)?])
        }
        None => Err(Fault::new(trimmed(text, range), "two numbers are expected, as in `-1, 0`")),
    }
}

fn expression(text: &str, range: Range<usize>) -> Result<Expr, Fault> {
    let mut reader = Reader { text, at: range.start, end: range.end, depth: 0 };
    let found = reader.sum()?;
    reader.skip();
    match reader.at < reader.end {
        true => Err(reader.fault("an operator or the end is expected here")),
        false => Ok(found),
    }
}

/// Reads an expression by recursive descent.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    end: usize,
    depth: usize,
}

impl Reader<'_> {
    fn skip(&mut self) {
        let rest = &self.text[self.at..self.end];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn next(&mut self) -> Option<char> {
        self.skip();
        self.text[self.at..self.end].chars().next()
    }

    fn take(&mut self, wanted: char) -> bool {
        let there = self.next() == Some(wanted);
        self.at += if there { wanted.len_utf8() } else { 0 };
        there
    }

    /// A fault at the next letter.
    fn fault(&mut self, reason: &str) -> Fault {
        let length = self.next().map_or(0, char::len_utf8);
        Fault::new(self.at..self.at + length, reason)
    }

    fn sum(&mut self) -> Result<Expr, Fault> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.fault("parentheses are too deep here"));
        }
        let mut sum = self.product()?;
        loop {
            if self.take('+') {
                sum = sum + self.product()?;
            } else if self.take('-') {
                sum = sum - self.product()?;
            } else {
                self.depth -= 1;
                return Ok(sum);
            }
        }
    }

    fn product(&mut self) -> Result<Expr, Fault> {
        let mut product = self.signed()?;
        loop {
            if self.take('*') {
                product = times(&product, &self.signed()?);
            } else if self.take('/') {
                product = product / self.signed()?;
            } else {
                return Ok(product);
            }
        }
    }

    fn signed(&mut self) -> Result<Expr, Fault> {
        // A sign holds for the power after it: -x^2 is -(x^2).
        let mut negative = false;
        while self.take('-') {
            negative = !negative;
        }
        let value = self.power()?;
        Ok(if negative { -value } else { value })
    }

    fn power(&mut self) -> Result<Expr, Fault> {
        let base = self.atom()?;
        if !self.take('^') {
            return Ok(base);
        }
        self.skip();
        let start = self.at;
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.fault("powers are too deep here"));
        }
        let exponent = self.signed()?;
        self.depth -= 1;
        match exponent.as_constant() {
            Some(exponent) => Ok(base.pow(exponent)),
            None => Err(Fault::new(
                start..self.at,
                "a power is a number here, not an expression of x or y",
            )),
        }
    }

    fn atom(&mut self) -> Result<Expr, Fault> {
        match self.next() {
            Some('(') => {
                self.at += 1;
                let inside = self.sum()?;
                self.close()?;
                Ok(inside)
            }
            Some(c) if c.is_ascii_digit() || c == '.' => self.number(),
            Some(c) if c.is_alphabetic() => self.name(),
            Some(_) => {
                Err(self.fault("a number, x, y, a function or a parenthesis is expected here"))
            }
            None => Err(Fault::new(self.at..self.at, "something is missing at the end")),
        }
    }

    fn close(&mut self) -> Result<(), Fault> {
        match self.take(')') {
            true => Ok(()),
            false => Err(self.fault("a closing parenthesis is expected here")),
        }
    }

    fn number(&mut self) -> Result<Expr, Fault> {
        let rest = &self.text.as_bytes()[self.at..self.end];
        let digits = |from: usize| {
            rest[from..].iter().take_while(|b| b.is_ascii_digit() || **b == b'.').count()
        };
        let mut length = digits(0);
        if matches!(rest.get(length), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(rest.get(length + 1), Some(b'+' | b'-')));
            let exponent = digits(length + 1 + sign);
            length += if exponent > 0 { 1 + sign + exponent } else { 0 };
        }
        let value = number(self.text, self.at..self.at + length)?;
        self.at += length;
        Ok(Expr::constant(value))
    }

    fn name(&mut self) -> Result<Expr, Fault> {
        let rest = &self.text[self.at..self.end];
        let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, here) = (&rest[..length], self.at..self.at + length);
        self.at += length;
        match name {
            "x" => return Ok(Expr::x()),
            "y" => return Ok(Expr::y()),
            "ln" | "exp" | "sqrt" | "if" => {}
            _ => {
                return Err(Fault::new(
                    here,
                    format!(
                        "`{name}` is not known: x is the datum, y the model's value; functions are ln, exp, sqrt and if"
                    ),
                ));
            }
        }
        if !self.take('(') {
            return Err(self.fault(&format!("`{name}` is a function: a parenthesis is expected")));
        }
        let first = self.sum()?;
        if name != "if" {
            self.close()?;
            return Ok(match name {
                "ln" => first.ln(),
                "exp" => first.exp(),
                _ => first.sqrt(),
            });
        }
        let mut others = Vec::new();
        for _ in 0..2 {
            if !self.take(',') {
                return Err(self.fault("a comma is expected: `if` has three parts"));
            }
            others.push(self.sum()?);
        }
        self.close()?;
        Ok(Expr::select_positive(&first, &others[0], &others[1]))
    }
}

/// The product, where nothing times a logarithm of the datum is nothing.
fn times(a: &Expr, b: &Expr) -> Expr {
    let of_datum = |e: &Expr| e.depends_on_x() && !e.depends_on_y();
    let (factor, other) = if b.is_logarithm() { (a, b) } else { (b, a) };
    let product = a * b;
    if !(other.is_logarithm() && other.depends_on_x() && of_datum(factor)) {
        return product;
    }
    let nothing = Expr::constant(0.0);
    // The datum itself is not negative; of anything else the square says whether it is nothing.
    match *factor == Expr::x() {
        true => Expr::select_positive(factor, &product, &nothing),
        false => Expr::select_positive(&(factor * factor), &product, &nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KL: &str = "custom: a = x/y; b = 1; loss = y - x*ln(y) + x*ln(x) - x; power = -1, 0";

    fn read(text: &str) -> Expr {
        expression(text, 0..text.len()).unwrap_or_else(|fault| panic!("{text}: {}", fault.reason))
    }

    #[test]
    fn expressions_are_those_that_operators_build() {
        let (x, y) = (Expr::x(), Expr::y());
        let cases = [
            ("x", x.clone()),
            ("x + 2*y", &x + 2.0 * &y),
            ("x - y - 1", &x - &y - 1.0),
            ("x / y / 2", &x / &y / 2.0),
            ("-x^2", -x.pow(2.0)),
            ("(-x)^2", (-&x).pow(2.0)),
            ("x^-0.5", x.pow(-0.5)),
            ("x ^ 2 ^ 3", x.pow(8.0)),
            ("2 ^ -1 * y", 0.5 * &y),
            ("1.5e-3 * y", 1.5e-3 * &y),
            ("ln(x/y)", (&x / &y).ln()),
            ("sqrt(exp(y))", y.exp().sqrt()),
            ("if(x, x*y, 0)", Expr::select_positive(&x, &(&x * &y), &Expr::constant(0.0))),
            ("x*ln(x)", Expr::select_positive(&x, &(&x * x.ln()), &Expr::constant(0.0))),
            ("x*ln(y)", &x * y.ln()),
            ("--x", x.clone()),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text), expected, "{text}: {}", read(text));
        }
    }

    #[test]
    fn a_text_is_the_loss_that_it_says_and_comes_back_from_its_name() {
        let loss = Loss::parse(KL).unwrap();
        let kl = Loss::kl();
        assert_eq!((loss.a(), loss.b()), (kl.a(), kl.b()));
        for (x, y) in [(0.0, 0.5), (1.0, 1.0), (7.0, 2.5)] {
            let (found, expected) = (loss.eval_loss(x, y, &[]), kl.eval_loss(x, y, &[]));
            assert!((found - expected).abs() < 1e-12, "{x} {y}: {found} {expected}");
        }
        assert!(loss.numerator_zero_at_zero());
        assert_eq!(loss.at_zero().loss.coefficient(1.0), Some(1.0));
        let again = Loss::parse(loss.name()).unwrap();
        assert_eq!((again.name(), again.loss()), (loss.name(), loss.loss()));
        let spaced = KL.replace("; ", " ;\n  ");
        assert_eq!(Loss::parse(&spaced).unwrap().name(), loss.name());
        assert_eq!(
            Loss::named(KL, &super::super::LossParameters::default()).unwrap().name(),
            loss.name()
        );
    }

    #[test]
    fn mistakes_have_carets_under_them() {
        let cases = [
            ("a = x/z", "`z` is not known", "z"),
            ("a = x y", "an operator", "y"),
            ("a = (x + y", "closing parenthesis", ";"),
            ("a = x + * y", "is expected here", "*"),
            ("a = x^y", "a power is a number", "y"),
            ("a = ln x", "is a function", "x"),
            ("a = if(x, y)", "three parts", ")"),
            ("a = 1.2.3", "a number is expected", "1.2.3"),
            ("q = x", "a part is named", "q"),
            ("a x", "a name, `=`", "a x"),
            ("b = 2; a = x", "b is given twice", "b"),
            ("a = é", "`é` is not known", "é"),
        ];
        for (part, reason, under) in cases {
            let text = format!("custom: {part}; b = 1; loss = y; power = -1, 0");
            let error = Loss::parse(&text).expect_err(part).to_string();
            assert!(error.contains(reason), "{part}: {error}");
            let lines: Vec<&str> = error.lines().collect();
            let marks = lines[lines.len() - 1];
            let start = marks.find('^').unwrap_or_else(|| panic!("{part}: {error}"));
            let marked: String = lines[lines.len() - 2]
                .chars()
                .skip(start)
                .take(marks.matches('^').count())
                .collect();
            assert!(under == ";" || marked == under, "{part}: {error}");
        }
        for (text, reason) in [
            ("kl", "custom:"),
            ("custom: b = 1; loss = y; power = -1, 0", "a is missing"),
            ("custom: a = x/y; b = 1; loss = y", "power is missing"),
            ("custom: a = x/y; b = 1; loss = y; power = -1", "two numbers"),
            ("custom: a = x/y; b = 1; loss = y; power = -1, 0; domain = all", "nonnegative"),
            ("custom: a = x/y; b = 1; loss = y; majorizer = power", "log"),
            ("custom: a = x/y; b = 1; loss = y; majorizer = log; power = -1, 0", "exclude"),
            // What the text says does not belong together.
            ("custom: a = x; b = 1; loss = y - x*ln(y); power = -1, 0", "custom loss"),
        ] {
            let error = Loss::parse(text).expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let deep = format!("custom: a = {}x; b = 1; loss = y; power = -1, 0", "(".repeat(5000));
        assert!(Loss::parse(&deep).expect_err("deep").to_string().contains("too deep"));
    }
}
