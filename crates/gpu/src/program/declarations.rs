//! The bindings of a shader in the making.

use std::fmt::Write as _;

use super::recording::Access;

/// How each binding is accessed, and the declarations of those that a template leaves to its filler.
pub(crate) struct Declarations {
    pub access: Vec<Access>,
    pub text: String,
}

impl Declarations {
    /// After the bindings that the template declares itself.
    pub fn after(access: &[Access]) -> Declarations {
        Declarations { access: access.to_vec(), text: String::new() }
    }

    /// Declares an array as the next binding.
    pub fn array(&mut self, access: Access, name: &str, element: &str) {
        let binding = self.access.len();
        let storage = match access {
            Access::Uniform => "uniform",
            Access::Read => "storage, read",
            Access::ReadWrite => "storage, read_write",
        };
        let _ = writeln!(
            self.text,
            "@group(0) @binding({binding}) var<{storage}> {name}: array<{element}>;"
        );
        self.access.push(access);
    }

    /// Declares one vector of uniforms as the next binding.
    pub fn vector(&mut self, name: &str) {
        let binding = self.access.len();
        let _ =
            writeln!(self.text, "@group(0) @binding({binding}) var<uniform> {name}: vec4<f32>;");
        self.access.push(Access::Uniform);
    }
}
