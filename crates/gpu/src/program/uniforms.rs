//! The sizes and offsets that a shader of a dense pass reads from its uniform buffer.

use nneinfact_core::model::{Index, Shapes};
use nneinfact_core::plan::Plan;

use crate::dense::geometry::{DataPart, Geometry};

/// A number that a shader refers to by name and that differs between parts of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Uniform {
    /// Values of the batch, row, reduced batch and column indices.
    BatchCount,
    RowCount,
    ReducedCount,
    ColumnCount,
    /// Blocks of rows and of columns, and those of all batch indices.
    RowBlocks,
    ColumnBlocks,
    BlockCount,
    /// Workgroups in the first dimension.
    Fold,
    /// Units (blocks of columns, for each reduced batch index) of a split of the reduction.
    SplitUnits,
    /// Entries from the numerator to the denominator in the partial sums.
    Half,
    /// Where the losses of the dispatch begin, in threes.
    Losses,
    /// Entries of the slab, the distance between entry parameters.
    SlabEntries,
    /// The bits of what values are multiplied with, and of the least prediction.
    Scale,
    Floor,
    /// The size of an index in the part.
    Size(Index),
    /// Its stride in the data, and in a tensor.
    DataStride(Index),
    TensorStride(usize, Index),
    /// Where the part begins in the slab, and in a tensor.
    DataBase,
    TensorBase(usize),
}

/// The uniforms of a shader, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uniforms {
    list: Vec<Uniform>,
}

impl Uniforms {
    /// The text by which a shader refers to a uniform.
    pub fn word(&mut self, uniform: Uniform) -> String {
        let at = match self.list.iter().position(|&n| n == uniform) {
            Some(at) => at,
            None => {
                self.list.push(uniform);
                self.list.len() - 1
            }
        };
        format!("uniforms[{}].{}", at / 4, ["x", "y", "z", "w"][at % 4])
    }

    /// The vectors of four that hold them.
    pub fn vectors(&self) -> usize {
        self.list.len().div_ceil(4).max(1)
    }

    /// Their bytes, each from `value`.
    pub fn bytes(&self, value: impl Fn(Uniform) -> u32) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.list.iter().flat_map(|&n| value(n).to_le_bytes()).collect();
        bytes.resize(16 * self.vectors(), 0);
        bytes
    }
}

/// A function that turns a flat index of several indices into offsets.
fn offsets_function(
    name: &str,
    indices: &[Index],
    bases: bool,
    plan: &Plan,
    geometry: &Geometry,
    uniforms: &mut Uniforms,
) -> String {
    let shapes = plan.shapes();
    let tensors = 0..geometry.tensors.len();
    let mut text = format!("fn {name}(index: u32) -> Offsets {{\n");
    if bases {
        let mut words = vec![uniforms.word(Uniform::DataBase)];
        words.extend(tensors.clone().map(|t| uniforms.word(Uniform::TensorBase(t))));
        text += &format!("    var at = Offsets({});\n", words.join(", "));
    } else {
        text += "    var at = Offsets();\n";
    }
    if indices.len() > 1 {
        text += "    var rest = index;\n";
    }
    for (place, &x) in indices.iter().enumerate().rev() {
        let size = uniforms.word(Uniform::Size(x));
        let index = match (place, indices.len()) {
            (0, 1) => "index".to_string(),
            (0, _) => "rest".to_string(),
            _ => {
                text += &format!("    let {x} = rest % {size};\n    rest /= {size};\n");
                x.to_string()
            }
        };
        text += &format!("    at.data += {index} * {};\n", uniforms.word(Uniform::DataStride(x)));
        for t in tensors.clone() {
            if geometry.stride(shapes, t, x) > 0 {
                let stride = uniforms.word(Uniform::TensorStride(t, x));
                text += &format!("    at.t{t} += {index} * {stride};\n");
            }
        }
    }
    text + "    return at;\n}\n"
}

/// The struct of offsets.
fn offsets_struct(geometry: &Geometry) -> String {
    let fields: String = (0..geometry.tensors.len()).map(|t| format!("    t{t}: u32,\n")).collect();
    format!("struct Offsets {{\n    data: u32,\n{fields}}}\n")
}

/// The struct of offsets, and the functions that give them for a flat index of each kind.
pub(crate) fn offsets(plan: &Plan, geometry: &Geometry, uniforms: &mut Uniforms) -> String {
    let mut text = offsets_struct(geometry);
    for (name, indices, bases) in [
        ("batch_at", &geometry.batch, true),
        ("row_at", &geometry.rows, false),
        ("reduced_at", &geometry.reduced, false),
        ("column_at", &geometry.columns, false),
    ] {
        text += &offsets_function(name, indices, bases, plan, geometry, uniforms);
    }
    text
}

/// The offset of a flat contracted index `k` in a tensor, as text: a sum over the contracted indices
/// that it has.
fn contracted_offset(
    tensor: usize,
    shapes: &Shapes,
    geometry: &Geometry,
    uniforms: &mut Uniforms,
) -> String {
    let mut terms = String::new();
    let mut after = 1;
    for (place, &x) in geometry.contracted.iter().enumerate().rev() {
        let size = shapes.size(x);
        if geometry.stride(shapes, tensor, x) > 0 && size > 1 {
            let stride = uniforms.word(Uniform::TensorStride(tensor, x));
            let shifted = if after > 1 { format!("k / {after}u") } else { "k".to_string() };
            let digit = if place > 0 { format!("({shifted}) % {size}u") } else { shifted };
            terms += &format!(" + ({digit}) * {stride}");
        }
        after *= size;
    }
    terms
}

/// A function for the product of some tensors at a contracted index, each at the sum of several
/// offsets.
pub(crate) fn product_function(
    name: &str,
    tensors: &[usize],
    offsets: &[&str],
    shapes: &Shapes,
    geometry: &Geometry,
    uniforms: &mut Uniforms,
) -> String {
    let parameters: String = offsets.iter().map(|p| format!("{p}: Offsets, ")).collect();
    let mut text = format!("fn {name}({parameters}k: u32) -> f32 {{\n");
    let mut factors = Vec::new();
    for &t in tensors {
        let at: Vec<String> = offsets.iter().map(|p| format!("{p}.t{t}")).collect();
        let contracted = contracted_offset(t, shapes, geometry, uniforms);
        factors.push(format!("tensors[{}{contracted}]", at.join(" + ")));
    }
    if factors.is_empty() {
        factors.push("1.0".into());
    }
    text += &format!("    return {};\n}}\n", factors.join(" * "));
    text
}

/// The value of uniforms that depend on the part and the geometry alone; `None` for the others.
pub(crate) fn part_value(
    uniform: Uniform,
    plan: &Plan,
    geometry: &Geometry,
    part: &DataPart,
    slab: &DataPart,
) -> Option<usize> {
    let shapes = plan.shapes();
    let strides = &plan.data().strides;
    let alone = |x: Index| part.range(shapes, x).1 == 1 && shapes.model().observed().contains(x);
    Some(match uniform {
        Uniform::BatchCount => part.size(shapes, &geometry.batch),
        Uniform::RowCount => part.size(shapes, &geometry.rows),
        Uniform::ReducedCount => part.size(shapes, &geometry.reduced),
        Uniform::ColumnCount => part.size(shapes, &geometry.columns),
        Uniform::SlabEntries => slab.entries(),
        Uniform::Size(x) => part.range(shapes, x).1,
        // An index with one value is never multiplied; its stride may not fit.
        Uniform::DataStride(x) if alone(x) => 0,
        Uniform::DataStride(x) => plan.data().stride(shapes, x),
        Uniform::TensorStride(t, x) => geometry.stride(shapes, t, x),
        Uniform::DataBase => part.offset(strides) - slab.offset(strides),
        Uniform::TensorBase(t) => {
            let tensor = &geometry.tensors[t];
            let output = shapes.model().output();
            let strides: Vec<usize> =
                output.iter().map(|&x| geometry.stride(shapes, t, x)).collect();
            tensor.base + part.offset(&strides)
        }
        Uniform::RowBlocks
        | Uniform::ColumnBlocks
        | Uniform::BlockCount
        | Uniform::Fold
        | Uniform::SplitUnits
        | Uniform::Half
        | Uniform::Losses
        | Uniform::Scale
        | Uniform::Floor => return None,
    })
}
