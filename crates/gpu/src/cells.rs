//! How shaders read the data: types of storage, roles, weights, side tensors.

use std::fmt::Write as _;

use nneinfact_core::data::{self, Dense, Prepared, Role, Storage};
use nneinfact_core::error::Result;
use nneinfact_core::loss::{AtZero, Expr, Loss, wgsl_function};
use nneinfact_simd::Real;

/// What a pass computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wants {
    pub numerator: bool,
    pub denominator: bool,
    pub losses: bool,
}

impl Wants {
    /// How many of numerator and denominator.
    pub fn halves(self) -> usize {
        usize::from(self.numerator) + usize::from(self.denominator)
    }

    /// Whether anything at all.
    pub fn any(self) -> bool {
        self.halves() > 0 || self.losses
    }
}

/// What passes evaluate at a cell, as expressions of `x`, `y` and side values.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub a: Expr,
    pub b: Expr,
    pub loss: Expr,
    /// How many side tensors they may name.
    pub sides: usize,
}

impl Terms {
    /// Those of a loss.
    pub fn of(loss: &Loss) -> Terms {
        Terms {
            a: loss.a().clone(),
            b: loss.b().clone(),
            loss: loss.loss().clone(),
            sides: loss.entry_parameters().len(),
        }
    }

    /// Those of a loss at a datum of 0.
    pub fn at_zero(zero: &AtZero, sides: usize) -> Terms {
        Terms {
            a: zero.a.expr().clone(),
            b: zero.b.expr().clone(),
            loss: zero.loss.expr().clone(),
            sides,
        }
    }
}

/// The element type of values or weights on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Every value is 0, and none is stored.
    Zero,
    U8,
    U16,
    U32,
    F32,
}

impl Kind {
    /// The type that a tensor is stored in on the device: its own, but singles for doubles.
    pub fn of(dense: &Dense) -> Kind {
        match dense.storage().kind() {
            data::ElementKind::U8 => Kind::U8,
            data::ElementKind::U16 => Kind::U16,
            data::ElementKind::U32 => Kind::U32,
            data::ElementKind::F32 | data::ElementKind::F64 => Kind::F32,
        }
    }

    /// Bytes of an element.
    pub fn bytes(self) -> u64 {
        match self {
            Kind::Zero => 0,
            Kind::U8 => 1,
            Kind::U16 => 2,
            Kind::U32 | Kind::F32 => 4,
        }
    }

    /// Elements in a word; 0 where none are stored.
    pub fn in_word(self) -> usize {
        match self {
            Kind::Zero => 0,
            kind => 4 / kind.bytes() as usize,
        }
    }

    /// Element `at`, the name of a variable, of an array of words as a single.
    pub fn load(self, array: &str) -> String {
        match self {
            Kind::Zero => "0.0".into(),
            Kind::U8 => format!("f32((({array}[at >> 2u]) >> ((at & 3u) * 8u)) & 0xffu)"),
            Kind::U16 => format!("f32((({array}[at >> 1u]) >> ((at & 1u) * 16u)) & 0xffffu)"),
            Kind::U32 => format!("f32({array}[at])"),
            Kind::F32 => format!("bitcast<f32>({array}[at])"),
        }
    }
}

/// What the data of a fit are made of, as far as a shader's text depends on it.
#[derive(Clone, Debug)]
pub(super) struct Cells {
    pub values: Kind,
    /// Whether cells have roles, and whether some are missing, validation, held out.
    pub roles: bool,
    pub missing: bool,
    pub validation: bool,
    pub held_out: bool,
    pub weights: Option<Kind>,
    pub sides: usize,
}

impl Cells {
    pub fn new(data: &Prepared, loss: &Loss) -> Cells {
        let some = |role| data.count(role) > 0;
        Cells {
            values: Kind::of(data.values()),
            roles: data.roles().is_some(),
            missing: some(Role::Missing),
            validation: some(Role::Validation),
            held_out: some(Role::HeldOut),
            weights: data.weights().map(|w| Kind::of(w)),
            sides: loss.entry_parameters().len(),
        }
    }

    /// Cells that all hold 0 and are for training, or have the roles of the data if `by_role`.
    pub fn zeros(data: &Prepared, loss: &Loss, by_role: bool) -> Cells {
        let some = |role| by_role && data.count(role) > 0;
        Cells {
            values: Kind::Zero,
            roles: by_role && data.roles().is_some(),
            // What is computed at a missing cell is as good as at any other.
            missing: false,
            validation: some(Role::Validation),
            held_out: some(Role::HeldOut),
            weights: None,
            sides: loss.entry_parameters().len(),
        }
    }

    /// The most bytes that a cell takes in one of the buffers.
    pub fn bytes_per_cell(&self) -> u64 {
        let weights = self.weights.map_or(0, Kind::bytes);
        self.values.bytes().max(weights).max(4 * self.sides as u64)
    }

    /// The storage buffers that hold cells: values, roles, weights, sides.
    pub fn buffers(&self) -> u32 {
        1 + u32::from(self.roles) + u32::from(self.weights.is_some()) + u32::from(self.sides > 0)
    }

    /// Declarations of the buffers besides the values, from a binding on.
    pub fn bindings(&self, mut binding: usize) -> String {
        let mut text = String::new();
        let mut declare = |name: &str, element: &str| {
            let _ = writeln!(
                text,
                "@group(0) @binding({binding}) var<storage, read> {name}: array<{element}>;"
            );
            binding += 1;
        };
        if self.roles {
            declare("roles", "u32");
        }
        if self.weights.is_some() {
            declare("weights", "u32");
        }
        if self.sides > 0 {
            declare("sides", "f32");
        }
        text
    }

    /// Functions that read a cell at its place in the slab: `value`, `role`, `weight`, `side0`…
    pub fn functions(&self, scale: &str, slab_entries: &str) -> String {
        let mut text = String::new();
        if self.values != Kind::Zero {
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
        for i in 0..self.sides {
            let _ = writeln!(
                text,
                "fn side{i}(at: u32) -> f32 {{\n    return sides[at + {i}u * {slab_entries}];\n}}"
            );
        }
        text
    }

    /// Statements that turn the prediction `y`, the cell `x`, `cell_role`, `cell_weight`,
    /// `cell_side0`… into `a`, `b` and sums of losses.
    pub fn evaluate(&self, wants: Wants, floor: &str) -> String {
        let mut text = format!("y = max(y, bitcast<f32>({floor}));\n");
        if self.values == Kind::Zero {
            text += "let x = 0.0;\n";
        }
        if self.missing {
            // A missing cell may hold anything: a harmless value keeps it out of sums.
            text += "x = select(x, 1.0, cell_role == 0u);\n";
        }
        let sides: String = (0..self.sides).map(|i| format!(", cell_side{i}")).collect();
        let _ = writeln!(text, "let found = entry(x, y{sides});");
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
            Some(_) => format!("cell_weight * {what}"),
            None => what,
        };
        let of_role = |what: String, role: u32| match self.roles {
            true => format!("select(0.0, {what}, cell_role == {role}u)"),
            false => what,
        };
        if wants.numerator {
            let _ = writeln!(text, "let a = {};", of_role(weighted(component(0)), 1));
        }
        if wants.denominator {
            let _ = writeln!(text, "let b = {};", of_role(weighted(component(1)), 1));
        }
        if wants.losses {
            let _ = writeln!(text, "let cell_loss = {};", weighted(component(2)));
            let _ = writeln!(text, "loss.x += {};", of_role("cell_loss".into(), 1));
            if self.validation {
                let _ = writeln!(text, "loss.y += {};", of_role("cell_loss".into(), 2));
            }
            if self.held_out {
                let _ = writeln!(text, "loss.z += {};", of_role("cell_loss".into(), 3));
            }
        }
        text
    }

    /// What a cell has besides its value: names of the functions that read it, and their types.
    pub fn fields(&self) -> Vec<(String, &'static str)> {
        let mut fields = Vec::new();
        if self.values != Kind::Zero {
            fields.push(("value".to_string(), "f32"));
        }
        if self.roles {
            fields.push(("role".into(), "u32"));
        }
        if self.weights.is_some() {
            fields.push(("weight".into(), "f32"));
        }
        fields.extend((0..self.sides).map(|i| (format!("side{i}"), "f32")));
        fields
    }
}

/// The expressions as a WGSL function `entry(x, y, s0…)` of what is wanted.
pub(super) fn entry(terms: &Terms, wants: Wants) -> Result<String> {
    let all =
        [(wants.numerator, &terms.a), (wants.denominator, &terms.b), (wants.losses, &terms.loss)];
    let outputs: Vec<_> = all.iter().filter(|(wanted, _)| *wanted).map(|&(_, e)| e).collect();
    wgsl_function("entry", &outputs, terms.sides)
}

/// The sum of a workgroup's losses, `own` being a thread's: added pairwise and written by the first
/// thread, as the `place`-th three of the dispatch.
pub(super) fn reduce_losses(threads: usize, own: &str, place: &str) -> String {
    let mut text = format!("loss_sums[thread] = {own};\n");
    let _ = writeln!(text, "for (var half = {}u; half > 0u; half >>= 1u) {{", threads / 2);
    text += "    workgroupBarrier();\n    if thread < half {\n";
    text += "        loss_sums[thread] += loss_sums[thread + half];\n    }\n}\n";
    let _ = writeln!(text, "if thread == 0u {{\n    let result = 3u * ({place});");
    for (i, c) in ["x", "y", "z"].iter().enumerate() {
        let _ = writeln!(text, "    losses[result + {i}u] = loss_sums[0].{c};");
    }
    text + "}\n"
}

/// Cells that follow one another in memory as the bytes of a buffer, padded to whole words.
pub(super) fn slab_bytes(dense: &Dense, start: usize, len: usize) -> Vec<u8> {
    fn raw<T: bytemuck::Pod>(cells: &[T], start: usize, len: usize) -> Vec<u8> {
        bytemuck::cast_slice(&cells[start..start + len]).to_vec()
    }
    let mut bytes = match dense.storage() {
        Storage::U8(v) => raw(v, start, len),
        Storage::U16(v) => raw(v, start, len),
        Storage::U32(v) => raw(v, start, len),
        Storage::F32(v) => raw(v, start, len),
        Storage::F64(v) => {
            let singles: Vec<f32> =
                v[start..start + len].iter().map(|&x| f32::from_f64(x)).collect();
            raw(&singles, 0, len)
        }
        // In the type that it would have in memory, which is exact.
        Storage::Mapped(_) => match Kind::of(dense) {
            Kind::F32 => {
                let mut singles = vec![0f32; len];
                dense.load(start, 1, &mut singles);
                raw(&singles, 0, len)
            }
            kind => {
                let mut bytes = Vec::with_capacity(len * kind.bytes() as usize);
                let mut values = [0f64; 1024];
                for at in (start..start + len).step_by(values.len()) {
                    let values = &mut values[..(start + len - at).min(1024)];
                    dense.load(at, 1, values);
                    for &x in &*values {
                        let word = (x as u32).to_le_bytes();
                        bytes.extend_from_slice(&word[..kind.bytes() as usize]);
                    }
                }
                bytes
            }
        },
    };
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The roles of a slab, sixteen to a word from its first cell on.
pub(super) fn slab_roles(words: &[u64], start: usize, len: usize) -> Vec<u8> {
    const PER_WORD: usize = 32;
    let mut bytes = Vec::with_capacity(len.div_ceil(PER_WORD) * 8);
    for at in (start..start + len).step_by(PER_WORD) {
        let (word, shift) = (at / PER_WORD, 2 * (at % PER_WORD));
        let next = words.get(word + 1).copied().unwrap_or(0);
        let both = words[word] >> shift | (next << 1) << (63 - shift);
        bytes.extend(both.to_le_bytes());
    }
    bytes
}
