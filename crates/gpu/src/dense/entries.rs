//! How shaders read an entry of the data (type of storage, role, weight, entry parameters) and
//! evaluate the loss there.

use std::fmt::Write as _;

use nneinfact_core::data::{self, Dense, Prepared, Role};
use nneinfact_core::engine::{ZeroSum, ZeroSums};
use nneinfact_core::error::Result;
use nneinfact_core::loss::{Expr, Loss, wgsl_function};

use crate::program::declarations::Declarations;
use crate::program::recording::Access;

/// What a pass computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PassOutputs {
    pub numerator: bool,
    pub denominator: bool,
    pub losses: bool,
}

impl PassOutputs {
    /// How many of numerator and denominator.
    pub fn halves(self) -> usize {
        usize::from(self.numerator) + usize::from(self.denominator)
    }

    /// Whether anything at all.
    pub fn any(self) -> bool {
        self.halves() > 0 || self.losses
    }
}

/// What passes evaluate at an entry, as expressions of `x`, `y` and entry parameters.
#[derive(Clone, Debug)]
pub(crate) struct EntryTerms {
    pub a: Expr,
    pub b: Expr,
    pub loss: Expr,
    /// How many entry parameters they may name.
    pub parameters: usize,
}

impl EntryTerms {
    /// Those of a loss.
    pub fn of(loss: &Loss) -> EntryTerms {
        EntryTerms {
            a: loss.a().clone(),
            b: loss.b().clone(),
            loss: loss.divergence().clone(),
            parameters: loss.entry_parameters().len(),
        }
    }

    /// Those of an implicit-zero pass; 0 for sums that do not take it.
    pub fn implicit_zeros(all: &ZeroSums, parameters: usize) -> EntryTerms {
        let term = |sum: &ZeroSum| sum.pass().cloned().unwrap_or_else(|| Expr::from(0.0));
        EntryTerms {
            a: term(&all.numerator),
            b: term(&all.denominator),
            loss: term(&all.loss),
            parameters,
        }
    }
}

/// The element type of values or weights on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ElementType {
    /// Every value is 0, and none is stored.
    Zero,
    U8,
    U16,
    U32,
    F32,
}

impl ElementType {
    /// The type that a tensor is stored in on the device: its own, but singles for doubles.
    pub fn of(dense: &Dense) -> ElementType {
        match dense.storage().kind() {
            data::ElementKind::U8 => ElementType::U8,
            data::ElementKind::U16 => ElementType::U16,
            data::ElementKind::U32 => ElementType::U32,
            data::ElementKind::F32 | data::ElementKind::F64 => ElementType::F32,
        }
    }

    /// Bytes of an element.
    pub fn bytes(self) -> u64 {
        match self {
            ElementType::Zero => 0,
            ElementType::U8 => 1,
            ElementType::U16 => 2,
            ElementType::U32 | ElementType::F32 => 4,
        }
    }

    /// Elements in a word; 0 where none are stored.
    pub fn in_word(self) -> usize {
        match self {
            ElementType::Zero => 0,
            kind => 4 / kind.bytes() as usize,
        }
    }

    /// Element `at`, the name of a variable, of an array of words as a single.
    pub fn load(self, array: &str) -> String {
        match self {
            ElementType::Zero => "0.0".into(),
            ElementType::U8 => self.unpack(&format!("{array}[at >> 2u]"), "at & 3u"),
            ElementType::U16 => self.unpack(&format!("{array}[at >> 1u]"), "at & 1u"),
            ElementType::U32 | ElementType::F32 => self.unpack(&format!("{array}[at]"), "0u"),
        }
    }

    /// The element at this place of a word, both expressions, as a single.
    pub fn unpack(self, word: &str, place: &str) -> String {
        match self {
            ElementType::Zero => "0.0".into(),
            ElementType::U8 => format!("f32((({word}) >> (({place}) * 8u)) & 0xffu)"),
            ElementType::U16 => format!("f32((({word}) >> (({place}) * 16u)) & 0xffffu)"),
            ElementType::U32 => format!("f32({word})"),
            ElementType::F32 => format!("bitcast<f32>({word})"),
        }
    }
}

/// How the entries of the data are stored, as far as a shader's text depends on it.
#[derive(Clone, Debug)]
pub(crate) struct EntryFormat {
    pub values: ElementType,
    /// Whether entries have roles, and whether some are missing, validation, held out.
    pub roles: bool,
    pub missing: bool,
    pub validation: bool,
    pub held_out: bool,
    pub weights: Option<ElementType>,
    /// How many entry parameters the loss has.
    pub parameters: usize,
}

impl EntryFormat {
    /// That of the data.
    pub fn new(data: &Prepared, loss: &Loss) -> EntryFormat {
        let some = |role| data.count(role) > 0;
        EntryFormat {
            values: ElementType::of(data.values()),
            roles: data.roles().is_some(),
            missing: some(Role::Missing),
            validation: some(Role::Validation),
            held_out: some(Role::HeldOut),
            weights: data.weights().map(|w| ElementType::of(w)),
            parameters: loss.entry_parameters().len(),
        }
    }

    /// That of entries that all are 0 and for training, or have the roles of the data if `by_role`: an
    /// implicit-zero pass reads no values.
    pub fn zeros(data: &Prepared, loss: &Loss, by_role: bool) -> EntryFormat {
        let some = |role| by_role && data.count(role) > 0;
        EntryFormat {
            values: ElementType::Zero,
            roles: by_role && data.roles().is_some(),
            // What is computed at a missing entry is as good as at any other.
            missing: false,
            validation: some(Role::Validation),
            held_out: some(Role::HeldOut),
            weights: None,
            parameters: loss.entry_parameters().len(),
        }
    }

    /// The most bytes that an entry takes in one of the buffers.
    pub fn bytes_per_entry(&self) -> u64 {
        let weights = self.weights.map_or(0, ElementType::bytes);
        self.values.bytes().max(weights).max(4 * self.parameters as u64)
    }

    /// Declares the buffers of entries besides their values.
    pub fn declare(&self, declarations: &mut Declarations) {
        for (there, name, element) in [
            (self.roles, "roles", "u32"),
            (self.weights.is_some(), "weights", "u32"),
            (self.parameters > 0, "parameters", "f32"),
        ] {
            if there {
                declarations.array(Access::Read, name, element);
            }
        }
    }

    /// Functions that read an entry at its place in the slab: `value`, `role`, `weight`, `parameter0`…
    pub fn functions(&self, scale: &str, slab_entries: &str) -> String {
        let mut text = String::new();
        if self.values != ElementType::Zero {
            let _ = writeln!(
                text,
                "fn value(at: u32) -> f32 {{\n    return {} * bitcast<f32>({scale});\n}}",
                self.values.load("values")
            );
        }
        if self.roles {
            text += "fn role(at: u32) -> u32 {\n    return (roles[at >> 4u] >> ((at & 15u) * 2u)) & 3u;\n}\n";
        }
        if let Some(kind) = self.weights {
            let _ = writeln!(
                text,
                "fn weight(at: u32) -> f32 {{\n    return {};\n}}",
                kind.load("weights")
            );
        }
        for i in 0..self.parameters {
            let _ = writeln!(
                text,
                "fn parameter{i}(at: u32) -> f32 {{\n    return parameters[at + {i}u * {slab_entries}];\n}}"
            );
        }
        text
    }

    /// Statements that turn the prediction `y`, the value `x`, `entry_role`, `entry_weight`,
    /// `entry_parameter0`… into `a`, `b` and sums of losses.
    pub fn evaluate(&self, wants: PassOutputs, floor: &str) -> String {
        let mut text = format!("y = max(y, bitcast<f32>({floor}));\n");
        if self.values == ElementType::Zero {
            text += "let x = 0.0;\n";
        }
        if self.missing {
            // A missing entry may hold anything: a harmless value keeps it out of sums.
            text += "x = select(x, 1.0, entry_role == 0u);\n";
        }
        let parameters: String =
            (0..self.parameters).map(|i| format!(", entry_parameter{i}")).collect();
        let _ = writeln!(text, "let found = entry_terms(x, y{parameters});");
        let outputs = [wants.numerator, wants.denominator, wants.losses];
        let count = outputs.iter().filter(|&&w| w).count();
        let component = |which: usize| {
            if count == 1 {
                "found".to_string()
            } else {
                let before = outputs[..which].iter().filter(|&&w| w).count();
                format!("found.{}", ["x", "y", "z"][before])
            }
        };
        let weighted = |what: String| match self.weights {
            Some(_) => format!("entry_weight * {what}"),
            None => what,
        };
        let of_role = |what: String, role: u32| match self.roles {
            true => format!("select(0.0, {what}, entry_role == {role}u)"),
            false => what,
        };
        if wants.numerator {
            let _ = writeln!(text, "let a = {};", of_role(weighted(component(0)), 1));
        }
        if wants.denominator {
            let _ = writeln!(text, "let b = {};", of_role(weighted(component(1)), 1));
        }
        if wants.losses {
            let _ = writeln!(text, "let entry_loss = {};", weighted(component(2)));
            let _ = writeln!(text, "loss.x += {};", of_role("entry_loss".into(), 1));
            if self.validation {
                let _ = writeln!(text, "loss.y += {};", of_role("entry_loss".into(), 2));
            }
            if self.held_out {
                let _ = writeln!(text, "loss.z += {};", of_role("entry_loss".into(), 3));
            }
        }
        text
    }

    /// What an entry consists of: names of the functions that read it, and their types.
    pub fn fields(&self) -> Vec<(String, &'static str)> {
        let mut fields = Vec::new();
        if self.values != ElementType::Zero {
            fields.push(("value".to_string(), "f32"));
        }
        if self.roles {
            fields.push(("role".into(), "u32"));
        }
        if self.weights.is_some() {
            fields.push(("weight".into(), "f32"));
        }
        fields.extend((0..self.parameters).map(|i| (format!("parameter{i}"), "f32")));
        fields
    }
}

/// The expressions as a WGSL function `entry_terms(x, y, s0…)` of what is wanted.
pub(crate) fn entry_terms(terms: &EntryTerms, wants: PassOutputs) -> Result<String> {
    let all =
        [(wants.numerator, &terms.a), (wants.denominator, &terms.b), (wants.losses, &terms.loss)];
    let outputs: Vec<_> = all.iter().filter(|(wanted, _)| *wanted).map(|&(_, e)| e).collect();
    wgsl_function("entry_terms", &outputs, terms.parameters)
}
