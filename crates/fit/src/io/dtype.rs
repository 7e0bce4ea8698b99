//! numpy's element types, as a header names them.

use std::io::{self, Read};

use nneinfact_core::data::{DenseBuilder, Element, Slice};

/// An element type that can be read, with its order of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dtype {
    pub kind: Kind,
    big_endian: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F16,
    F32,
    F64,
}

impl Dtype {
    /// Reads a type such as `<i8` or `|b1`; the error says in words what a type that cannot be
    /// read is.
    pub fn parse(text: &str) -> Result<Dtype, String> {
        let order = text.chars().next().filter(|c| "<>|=".contains(*c));
        let name = &text[order.map_or(0, char::len_utf8)..];
        let big_endian = match order {
            Some('>') => true,
            Some('<' | '|') => false,
            _ => cfg!(target_endian = "big"),
        };
        let kind = match name {
            "b1" | "?" => Kind::Bool,
            "i1" => Kind::I8,
            "i2" => Kind::I16,
            "i4" => Kind::I32,
            "i8" => Kind::I64,
            "u1" => Kind::U8,
            "u2" => Kind::U16,
            "u4" => Kind::U32,
            "u8" => Kind::U64,
            "f2" => Kind::F16,
            "f4" => Kind::F32,
            "f8" => Kind::F64,
            _ => {
                return Err(match name.chars().next() {
                    Some('f') => format!(
                        "floats of type {text} (long double), which cannot be read; save .astype('float64')"
                    ),
                    Some('c') => format!("complex numbers ({text}), which cannot be fitted"),
                    Some('O') => {
                        "Python objects, which are not read; save an array of numbers".into()
                    }
                    Some('S' | 'a' | 'U') => format!("strings ({text}), not numbers"),
                    Some('M' | 'm') => format!("dates or times ({text}), not numbers"),
                    Some('V') => format!("structured or void data ({text}), not numbers"),
                    _ => format!("elements of the unknown type '{text}'"),
                });
            }
        };
        Ok(Dtype { kind, big_endian })
    }

    /// The size of an element, in bytes.
    pub fn size(self) -> u64 {
        match self.kind {
            Kind::Bool | Kind::I8 | Kind::U8 => 1,
            Kind::I16 | Kind::U16 | Kind::F16 => 2,
            Kind::I32 | Kind::U32 | Kind::F32 => 4,
            Kind::I64 | Kind::U64 | Kind::F64 => 8,
        }
    }

    /// The type as Rust writes it, without the order of bytes.
    pub fn name(self) -> &'static str {
        match self.kind {
            Kind::Bool => "bool",
            Kind::I8 => "i8",
            Kind::I16 => "i16",
            Kind::I32 => "i32",
            Kind::I64 => "i64",
            Kind::U8 => "u8",
            Kind::U16 => "u16",
            Kind::U32 => "u32",
            Kind::U64 => "u64",
            Kind::F16 => "f16",
            Kind::F32 => "f32",
            Kind::F64 => "f64",
        }
    }

    /// Whether the bytes of an element are the other way round than this machine has them.
    fn swapped(self) -> bool {
        self.size() > 1 && self.big_endian != cfg!(target_endian = "big")
    }

    /// The elements as they lie there, where memory would hold them in the same way.
    pub fn slice(self, bytes: &[u8]) -> Option<Slice<'_>> {
        if self.swapped() {
            return None;
        }
        match self.kind {
            Kind::U8 => Some(Slice::U8(bytes)),
            Kind::U16 => bytemuck::try_cast_slice(bytes).ok().map(Slice::U16),
            Kind::U32 => bytemuck::try_cast_slice(bytes).ok().map(Slice::U32),
            Kind::F32 => bytemuck::try_cast_slice(bytes).ok().map(Slice::F32),
            Kind::F64 => bytemuck::try_cast_slice(bytes).ok().map(Slice::F64),
            _ => None,
        }
    }

    /// Reads the elements `offset`, `offset + stride`, … of those that lie there.
    pub fn load(self, bytes: &[u8], offset: usize, stride: usize, out: &mut [f64]) {
        let at = (offset, stride);
        match self.kind {
            Kind::Bool => self.run(bytes, at, out, |[x]| f64::from(u8::from(x != 0))),
            Kind::I8 => self.run(bytes, at, out, |b| f64::from(i8::from_ne_bytes(b))),
            Kind::I16 => self.run(bytes, at, out, |b| f64::from(i16::from_ne_bytes(b))),
            Kind::I32 => self.run(bytes, at, out, |b| f64::from(i32::from_ne_bytes(b))),
            Kind::I64 => self.run(bytes, at, out, |b| i64::from_ne_bytes(b) as f64),
            Kind::U8 => self.run(bytes, at, out, |[x]| f64::from(x)),
            Kind::U16 => self.run(bytes, at, out, |b| f64::from(u16::from_ne_bytes(b))),
            Kind::U32 => self.run(bytes, at, out, |b| f64::from(u32::from_ne_bytes(b))),
            Kind::U64 => self.run(bytes, at, out, |b| u64::from_ne_bytes(b) as f64),
            Kind::F16 => self.run(bytes, at, out, |b| f64::from(half(u16::from_ne_bytes(b)))),
            Kind::F32 => self.run(bytes, at, out, |b| f64::from(f32::from_ne_bytes(b))),
            Kind::F64 => self.run(bytes, at, out, f64::from_ne_bytes),
        }
    }

    fn run<const N: usize>(
        self,
        bytes: &[u8],
        (offset, stride): (usize, usize),
        out: &mut [f64],
        convert: impl Fn([u8; N]) -> f64,
    ) {
        let (elements, _) = bytes.as_chunks::<N>();
        let swap = self.swapped();
        for (i, to) in out.iter_mut().enumerate() {
            let mut element = elements[offset + i * stride];
            if swap {
                element.reverse();
            }
            *to = convert(element);
        }
    }

    /// Reads `n` elements, block by block. Ends with [`io::ErrorKind::UnexpectedEof`] where there
    /// are fewer.
    pub fn read(self, from: &mut impl Read, n: usize, to: &mut DenseBuilder) -> io::Result<()> {
        match self.kind {
            // Any byte but 0 is true, as numpy has it.
            Kind::Bool => self.blocks(from, n, to, |x: u8| x != 0),
            Kind::I8 => self.blocks(from, n, to, |x: i8| x),
            Kind::I16 => self.blocks(from, n, to, |x: i16| x),
            Kind::I32 => self.blocks(from, n, to, |x: i32| x),
            Kind::I64 => self.blocks(from, n, to, |x: i64| x),
            Kind::U8 => self.blocks(from, n, to, |x: u8| x),
            Kind::U16 => self.blocks(from, n, to, |x: u16| x),
            Kind::U32 => self.blocks(from, n, to, |x: u32| x),
            Kind::U64 => self.blocks(from, n, to, |x: u64| x),
            Kind::F16 => self.blocks(from, n, to, half),
            Kind::F32 => self.blocks(from, n, to, |x: f32| x),
            Kind::F64 => self.blocks(from, n, to, |x: f64| x),
        }
    }

    fn blocks<A: bytemuck::Pod, B: Element>(
        self,
        from: &mut impl Read,
        n: usize,
        to: &mut DenseBuilder,
        convert: impl Fn(A) -> B,
    ) -> io::Result<()> {
        const BLOCK: usize = 8192;
        let swap = self.swapped();
        let mut raw = vec![A::zeroed(); BLOCK.min(n)];
        let mut block: Vec<B> = Vec::with_capacity(raw.len());
        let mut left = n;
        while left > 0 {
            let raw = &mut raw[..BLOCK.min(left)];
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(raw);
            from.read_exact(bytes)?;
            if swap {
                bytes.chunks_exact_mut(size_of::<A>()).for_each(<[u8]>::reverse);
            }
            block.clear();
            block.extend(raw.iter().map(|&x| convert(x)));
            to.try_push(&block).map_err(|_| io::ErrorKind::OutOfMemory)?;
            left -= raw.len();
        }
        Ok(())
    }
}

/// The value of a half-precision number, given as its bits.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f32::from(bits & 0x3ff);
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        0x1f if fraction == 0.0 => f32::INFINITY,
        0x1f => f32::NAN,
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves() {
        let cases = [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65_504.0),
            (0x0400, 2f32.powi(-14)),
            (0x0001, 2f32.powi(-24)),
            (0x3555, 0.333_251_95),
            (0x7c00, f32::INFINITY),
            (0xfc00, f32::NEG_INFINITY),
        ];
        for (bits, value) in cases {
            assert_eq!(half(bits), value, "{bits:04x}");
        }
        assert!(half(0x7e00).is_nan());
    }

    #[test]
    fn types_are_named() {
        assert_eq!(Dtype::parse("<i8"), Ok(Dtype { kind: Kind::I64, big_endian: false }));
        assert_eq!(Dtype::parse(">f4"), Ok(Dtype { kind: Kind::F32, big_endian: true }));
        assert_eq!(Dtype::parse("|b1").unwrap().kind, Kind::Bool);
        for (text, says) in [
            ("<f16", "long double"),
            ("<c16", "complex"),
            ("|O", "objects"),
            ("<U3", "strings"),
            ("|S1", "strings"),
            ("<M8[ns]", "dates"),
            ("|V8", "structured"),
            ("<x4", "unknown"),
            ("", "unknown"),
            ("é", "unknown"),
        ] {
            assert!(Dtype::parse(text).unwrap_err().contains(says), "{text}");
        }
    }
}
