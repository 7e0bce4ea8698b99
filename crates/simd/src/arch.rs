//! The instruction set that everything is dispatched to.

use std::sync::OnceLock;

use pulp::Arch;

/// The variable that holds this process to an instruction set.
const VARIABLE: &str = "NNEINFACT_SIMD";

/// The instruction set of this process: the best that the processor has, or the one that
/// `NNEINFACT_SIMD` names (`scalar`, `avx2`, `avx512`) when this is first asked. The best, too, where
/// that cannot be had, which [`arch_problem`] tells.
pub fn arch() -> Arch {
    chosen().0
}

/// What is wrong with `NNEINFACT_SIMD`, where it asks for what is not known or not there.
pub fn arch_problem() -> Option<&'static str> {
    chosen().1.as_deref()
}

/// With what is wrong with the variable.
fn chosen() -> &'static (Arch, Option<String>) {
    static CHOSEN: OnceLock<(Arch, Option<String>)> = OnceLock::new();
    CHOSEN.get_or_init(|| match std::env::var_os(VARIABLE) {
        Some(word) => match named(&word.to_string_lossy()) {
            Ok(arch) => (arch, None),
            Err(problem) => (Arch::new(), Some(problem)),
        },
        None => (Arch::new(), None),
    })
}

fn named(word: &str) -> Result<Arch, String> {
    let all = instruction_sets();
    match word.trim().to_ascii_lowercase().as_str() {
        "" => Ok(Arch::new()),
        known @ ("scalar" | "avx2" | "avx512") => {
            let found = all.iter().find(|(name, _)| *name == known);
            found.map(|&(_, arch)| arch).ok_or_else(|| {
                let names: Vec<&str> = all.iter().map(|&(name, _)| name).collect();
                format!(
                    "{VARIABLE} asks for {known}, which this processor does not have; it has {}",
                    names.join(", ")
                )
            })
        }
        _ => Err(format!(
            "{VARIABLE} is {word:?}, which is no instruction set: set it to scalar, avx2 or avx512, or leave it out for the best that there is"
        )),
    }
}

/// The instruction sets of this processor that can be asked for by name.
pub fn instruction_sets() -> Vec<(&'static str, Arch)> {
    let scalar = ("scalar", Arch::Scalar);
    #[cfg(target_arch = "x86_64")]
    {
        let mut all = vec![scalar];
        all.extend(pulp::x86::V3::try_new().map(|simd| ("avx2", Arch::V3(simd))));
        all.extend(pulp::x86::V4::try_new().map(|simd| ("avx512", Arch::V4(simd))));
        all
    }
    #[cfg(not(target_arch = "x86_64"))]
    vec![scalar]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bits of a vector of single precision.
    fn width(arch: Arch) -> usize {
        struct Width;
        impl pulp::WithSimd for Width {
            type Output = usize;
            #[inline(always)]
            fn with_simd<S: pulp::Simd>(self, _: S) -> usize {
                size_of::<S::f32s>() * 8
            }
        }
        arch.dispatch(Width)
    }

    #[test]
    fn a_set_is_taken_by_its_name() {
        let best = width(Arch::new());
        assert_eq!(width(named("").unwrap()), best);
        assert_eq!(width(named(" Scalar ").unwrap()), 32);
        let sets = instruction_sets();
        for (name, bits) in [("avx2", 256), ("avx512", 512)] {
            match sets.iter().any(|&(known, _)| known == name) {
                true => assert_eq!(width(named(name).unwrap()), bits),
                false => {
                    let problem = named(name).unwrap_err();
                    assert!(
                        problem.contains(name) && problem.contains("it has scalar"),
                        "{problem}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_unknown_word_is_refused() {
        let problem = named("sse9").unwrap_err();
        assert!(problem.contains("NNEINFACT_SIMD is \"sse9\""), "{problem}");
        assert!(problem.contains("scalar, avx2 or avx512"), "{problem}");
    }
}
