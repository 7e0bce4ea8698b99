//! The sizes and offsets that a shader of a pass reads from its uniform buffer.

use nneinfact_core::model::{Index, Shapes};
use nneinfact_core::plan::Plan;

use super::geometry::{Geometry, Part};

/// A number that a shader refers to by name and that differs between parts of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// Indices of `own`, `side`, `summed` and `other`.
    OwnCount,
    SideCount,
    SummedCount,
    OtherCount,
    /// Blocks of the target's side and of the other one, and those of all `own` indices.
    SideBlocks,
    OtherBlocks,
    BlockCount,
    /// Workgroups in the first dimension.
    Fold,
    /// Units (blocks of the other side, for each summed index) that a workgroup walks over.
    Stretch,
    /// Entries from the numerator to the denominator in the partial sums.
    Half,
    /// Where the losses of the dispatch begin, in threes.
    Losses,
    /// Cells of the slab, the distance between side tensors.
    SlabCells,
    /// The bits of what values are multiplied with, and of the least prediction.
    Scale,
    Floor,
    /// The size of a letter in the part.
    Size(Index),
    /// Its stride in the data, and in a tensor.
    DataStride(Index),
    TensorStride(usize, Index),
    /// Where the part begins in the slab, and in a tensor.
    DataBase,
    TensorBase(usize),
}

/// The numbers of a shader, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Uniforms {
    list: Vec<Number>,
}

impl Uniforms {
    /// The text by which a shader refers to the number.
    pub fn word(&mut self, number: Number) -> String {
        let at = match self.list.iter().position(|&n| n == number) {
            Some(at) => at,
            None => {
                self.list.push(number);
                self.list.len() - 1
            }
        };
        format!("numbers[{}].{}", at / 4, ["x", "y", "z", "w"][at % 4])
    }

    /// The vectors of four that hold them.
    pub fn vectors(&self) -> usize {
        self.list.len().div_ceil(4).max(1)
    }

    /// Their bytes, each from `value`.
    pub fn bytes(&self, value: impl Fn(Number) -> u32) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.list.iter().flat_map(|&n| value(n).to_le_bytes()).collect();
        bytes.resize(16 * self.vectors(), 0);
        bytes
    }
}

/// The statements of a function that turns an index of several letters into offsets.
fn axis_function(
    name: &str,
    letters: &[Index],
    bases: bool,
    plan: &Plan,
    geometry: &Geometry,
    numbers: &mut Uniforms,
) -> String {
    let shapes = plan.shapes();
    let tensors = 0..geometry.tensors.len();
    let mut text = format!("fn {name}(index: u32) -> At {{\n");
    if bases {
        let mut words = vec![numbers.word(Number::DataBase)];
        words.extend(tensors.clone().map(|t| numbers.word(Number::TensorBase(t))));
        text += &format!("    var at = At({});\n", words.join(", "));
    } else {
        text += "    var at = At();\n";
    }
    if letters.len() > 1 {
        text += "    var rest = index;\n";
    }
    for (place, &x) in letters.iter().enumerate().rev() {
        let size = numbers.word(Number::Size(x));
        let index = match (place, letters.len()) {
            (0, 1) => "index".to_string(),
            (0, _) => "rest".to_string(),
            _ => {
                text += &format!("    let {x} = rest % {size};\n    rest /= {size};\n");
                x.to_string()
            }
        };
        text += &format!("    at.data += {index} * {};\n", numbers.word(Number::DataStride(x)));
        for t in tensors.clone() {
            if geometry.stride(shapes, t, x) > 0 {
                let stride = numbers.word(Number::TensorStride(t, x));
                text += &format!("    at.t{t} += {index} * {stride};\n");
            }
        }
    }
    text + "    return at;\n}\n"
}

/// The struct of offsets.
fn at_struct(geometry: &Geometry) -> String {
    let fields: String = (0..geometry.tensors.len()).map(|t| format!("    t{t}: u32,\n")).collect();
    format!("struct At {{\n    data: u32,\n{fields}}}\n")
}

/// The struct of offsets, and the functions that give them for an index of each kind of letters.
pub(super) fn places(plan: &Plan, geometry: &Geometry, numbers: &mut Uniforms) -> String {
    let mut text = at_struct(geometry);
    for (name, letters, bases) in [
        ("own_at", &geometry.own, true),
        ("side_at", &geometry.side, false),
        ("summed_at", &geometry.summed, false),
        ("other_at", &geometry.other, false),
    ] {
        text += &axis_function(name, letters, bases, plan, geometry, numbers);
    }
    text
}

/// The offset of an inner index `k` in a tensor, as text: a sum over the inner letters it has.
pub(super) fn inner_offset(
    tensor: usize,
    shapes: &Shapes,
    geometry: &Geometry,
    numbers: &mut Uniforms,
) -> String {
    let mut terms = String::new();
    let mut after = 1;
    for (place, &x) in geometry.inner.iter().enumerate().rev() {
        let size = shapes.size(x);
        if geometry.stride(shapes, tensor, x) > 0 && size > 1 {
            let stride = numbers.word(Number::TensorStride(tensor, x));
            let shifted = if after > 1 { format!("k / {after}u") } else { "k".to_string() };
            let digit = if place > 0 { format!("({shifted}) % {size}u") } else { shifted };
            terms += &format!(" + ({digit}) * {stride}");
        }
        after *= size;
    }
    terms
}

/// A function for the product of some tensors at an inner index, each at the sum of several
/// offsets.
pub(super) fn product_function(
    name: &str,
    tensors: &[usize],
    places: &[&str],
    shapes: &Shapes,
    geometry: &Geometry,
    numbers: &mut Uniforms,
) -> String {
    let parameters: String = places.iter().map(|p| format!("{p}: At, ")).collect();
    let mut text = format!("fn {name}({parameters}k: u32) -> f32 {{\n");
    let mut factors = Vec::new();
    for &t in tensors {
        let at: Vec<String> = places.iter().map(|p| format!("{p}.t{t}")).collect();
        let inner = inner_offset(t, shapes, geometry, numbers);
        factors.push(format!("tensors[{}{inner}]", at.join(" + ")));
    }
    if factors.is_empty() {
        factors.push("1.0".into());
    }
    text += &format!("    return {};\n}}\n", factors.join(" * "));
    text
}

/// The value of numbers that depend on the part and the geometry alone; `None` for the others.
pub(super) fn part_value(
    number: Number,
    plan: &Plan,
    geometry: &Geometry,
    part: &Part,
    slab: &Part,
) -> Option<usize> {
    let shapes = plan.shapes();
    let strides = &plan.data().strides;
    let alone = |x: Index| part.range(shapes, x).1 == 1 && shapes.model().observed().contains(x);
    Some(match number {
        Number::OwnCount => part.size(shapes, &geometry.own),
        Number::SideCount => part.size(shapes, &geometry.side),
        Number::SummedCount => part.size(shapes, &geometry.summed),
        Number::OtherCount => part.size(shapes, &geometry.other),
        Number::SlabCells => slab.entries(),
        Number::Size(x) => part.range(shapes, x).1,
        // A letter with one index is never multiplied; its stride may not fit.
        Number::DataStride(x) if alone(x) => 0,
        Number::DataStride(x) => plan.data().stride(shapes, x),
        Number::TensorStride(t, x) => geometry.stride(shapes, t, x),
        Number::DataBase => part.offset(strides) - slab.offset(strides),
        Number::TensorBase(t) => {
            let tensor = &geometry.tensors[t];
            let output = shapes.model().output();
            let strides: Vec<usize> =
                output.iter().map(|&x| geometry.stride(shapes, t, x)).collect();
            tensor.base + part.offset(&strides)
        }
        _ => return None,
    })
}
