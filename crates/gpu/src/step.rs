//! The shader of a step of an update: `step.wgsl`, with the solver for penalised entries in
//! `include/penalized_step.wgsl`.

use crate::program::recording::{Access, Shader};
use crate::program::template::fill;
use nneinfact_core::engine::Constraint;
use nneinfact_core::error::Result;
use nneinfact_core::loss::{Loss, Majorizer, Penalty};

/// `base` to a constant power, as text.
pub(crate) fn power(base: &str, exponent: f64) -> String {
    match exponent {
        0.0 => "1.0".into(),
        1.0 => base.into(),
        2.0 => format!("({base} * {base})"),
        0.5 => format!("sqrt({base})"),
        -1.0 => format!("(1.0 / {base})"),
        p => format!("pow({base}, {:?})", p as f32),
    }
}

/// A multiple of a number, as text.
fn times(by: f64, of: &str) -> String {
    if by == 1.0 { of.into() } else { format!("{:?} * {of}", by as f32) }
}

/// Whether a step has to know the constraint of its factor.
pub(crate) fn is_constrained(constraint: &Constraint) -> bool {
    constraint.penalty.is_some() || !constraint.is_unbounded()
}

/// The shader of the step of a factor, alone in its group or `grouped` with others.
pub(crate) fn step(loss: &Loss, constraint: &Constraint, grouped: bool) -> Result<Shader> {
    let constrained = is_constrained(constraint);
    let mut bindings = vec![Access::Uniform, Access::Read, Access::Read, Access::ReadWrite];
    if grouped {
        bindings.push(Access::ReadWrite);
    }
    let constraint_binding = bindings.len();
    if constrained {
        bindings.push(Access::Uniform);
    }
    let (flags, mut words) = step_filler(loss, constraint, grouped);
    words.push(("constraint_binding", constraint_binding.to_string()));
    Ok(Shader {
        label: "step".into(),
        source: fill(nneinfact_shaders::STEP, &flags, &words)?,
        bindings,
        invocations: 64,
        workgroup_bytes: 0,
    })
}

/// The same as an operation.
pub(crate) fn step_text(loss: &Loss, constraint: &Constraint, grouped: bool) -> Result<String> {
    let (flags, words) = step_filler(loss, constraint, grouped);
    fill(nneinfact_shaders::JOINT_STEP, &flags, &words)
}

/// What the templates of a step are filled with: flags and words.
type Filler = (Vec<(&'static str, bool)>, Vec<(&'static str, String)>);

fn step_filler(loss: &Loss, constraint: &Constraint, grouped: bool) -> Filler {
    let majorizer = loss.majorizer();
    let constrained = is_constrained(constraint);
    let is_log = majorizer == Majorizer::Log;
    let penalty = constraint.penalty;
    let root = penalty.map(|penalty| Root::of(majorizer, loss.curvature_constant(), penalty));
    let mut flags = vec![
        ("grouped", grouped),
        ("constrained", constrained),
        ("penalized", penalty.is_some()),
        ("penalized_log", is_log),
        ("falling", loss.curvature_constant() < 0.0),
        ("plain_power", penalty.is_none() && !is_log),
        ("plain_log", penalty.is_none() && is_log),
        ("lower", constraint.lower > 0.0),
        ("upper", constraint.upper.is_finite()),
        ("grouped_power", grouped && !is_log),
        ("grouped_log", grouped && is_log),
    ];
    flags.extend(Root::flags(root));
    let mut words = majorizer_words(majorizer);
    words.push(("penalty_gradient", penalty.map_or(String::new(), penalty_gradient)));
    words.extend(root.map(Root::words).into_iter().flatten());
    (flags, words)
}

/// What depends on the majorizer alone: the ends and the power of a step without a penalty, and the
/// powers that the next steps of the group need.
fn majorizer_words(majorizer: Majorizer) -> Vec<(&'static str, String)> {
    let gamma = majorizer.gamma().unwrap_or(1.0);
    let (at_zero, at_infinity) = if gamma > 0.0 { ("0.0", "MOST") } else { ("MOST", "0.0") };
    let next = |p: f64| match 1.0 + p {
        0.0 => "x".to_string(),
        e => format!("x * {}", power("step", e)),
    };
    let (p_a, p_b) = match majorizer {
        Majorizer::Power { p_a, p_b } => (p_a, p_b),
        Majorizer::Log => (0.0, 0.0),
    };
    vec![
        ("at_zero", at_zero.into()),
        ("at_infinity", at_infinity.into()),
        ("power_of_quotient", power("quotient", gamma)),
        ("power_a", next(p_a)),
        ("power_b", next(p_b)),
    ]
}

/// The penalty gradient μ p θ̃ᵖ⁻¹ / |c|, as text. For large p the weight is drawn into the power:
/// θ̃ᵖ⁻¹ and μ by themselves may both be out of the range of single precision.
fn penalty_gradient(penalty: Penalty) -> String {
    match penalty.power() {
        1.0 => "constraint.x".into(),
        p if p <= 2.0 => format!("constraint.x * {}", power("theta", p - 1.0)),
        p => power("(constraint.x * theta)", p - 1.0),
    }
}

/// Within what single precision holds, and not 0: a penalty that is tiny in the engine's units still
/// decides where the data say nothing.
fn single(x: f64) -> f32 {
    x.clamp(f64::from(f32::MIN_POSITIVE), f64::from(f32::MAX)) as f32
}

/// What a step reads of a constraint: a number that makes the penalty gradient (see
/// [`penalty_gradient`]), the bounds, and 0. `curvature` is the curvature constant of the loss.
pub(crate) fn constraint_words(constraint: &Constraint, curvature: f64) -> [f32; 4] {
    let strength = constraint.penalty.map_or(0.0, |penalty| {
        let (weight, p) = (penalty.weight() * penalty.power() / curvature.abs(), penalty.power());
        single(if p > 2.0 { weight.powf(1.0 / (p - 1.0)) } else { weight })
    });
    [
        strength,
        constraint.lower.min(f64::from(f32::MAX)) as f32,
        constraint.upper.min(f64::from(f32::MAX)) as f32,
        0.0,
    ]
}

/// The equation whose root is the step of a penalised entry ([`Majorizer::penalized`]), by how it is
/// solved. That of powers is `rise x^e1 + gradient x^e2 = fall x^e0`, with `c1 = e1 − e0` and
/// `c2 = e2 − e0`.
#[derive(Clone, Copy, PartialEq)]
enum Root {
    /// `c2 = 0`: the penalty's term is taken off.
    Difference { c1: f64 },
    /// `c1 = c2`: the terms are added.
    Sum { c1: f64 },
    /// `c2 = 2 c1` or `c1 = 2 c2`: a quadratic in the power `c`.
    Quadratic { linear: &'static str, square: &'static str, c: f64 },
    /// Newton steps.
    Newton { c1: f64, c2: f64 },
    /// `b ln x − a + gradient = 0`.
    LogConstant,
    /// `b ln x − a + gradient x^q = 0`.
    Log { q: f64 },
}

impl Root {
    fn of(majorizer: Majorizer, curvature: f64, penalty: Penalty) -> Root {
        let q = penalty.power() - 1.0;
        let (e0, e1) = match majorizer {
            Majorizer::Power { p_a, p_b } if curvature < 0.0 => (p_b, p_a),
            Majorizer::Power { p_a, p_b } => (p_a, p_b),
            Majorizer::Log if q == 0.0 => return Root::LogConstant,
            Majorizer::Log => return Root::Log { q },
        };
        let (c1, c2) = (e1 - e0, q - e0);
        if c2 == 0.0 {
            Root::Difference { c1 }
        } else if c1 == c2 {
            Root::Sum { c1 }
        } else if c2 == 2.0 * c1 {
            Root::Quadratic { linear: "rise", square: "penalty_gradient", c: c1 }
        } else if c1 == 2.0 * c2 {
            Root::Quadratic { linear: "penalty_gradient", square: "rise", c: c2 }
        } else {
            Root::Newton { c1, c2 }
        }
    }

    /// The flags of the solver's files.
    fn flags(root: Option<Root>) -> [(&'static str, bool); 5] {
        [
            ("gradient_with_fall", matches!(root, Some(Root::Difference { .. }))),
            ("gradient_with_rise", matches!(root, Some(Root::Sum { .. }))),
            ("quadratic", matches!(root, Some(Root::Quadratic { .. }))),
            ("newton", matches!(root, Some(Root::Newton { .. }))),
            ("gradient_constant", matches!(root, Some(Root::LogConstant))),
        ]
    }

    /// The words of the solver's files.
    fn words(self) -> Vec<(&'static str, String)> {
        let root_of = |c: f64| ("root", power("quotient", 1.0 / c));
        match self {
            Root::LogConstant => Vec::new(),
            Root::Difference { c1 } | Root::Sum { c1 } => vec![root_of(c1)],
            Root::Quadratic { linear, square, c } => {
                vec![root_of(c), ("linear", linear.into()), ("square", square.into())]
            }
            Root::Log { q } => vec![root_of(q), ("q", format!("{:?}", q as f32))],
            Root::Newton { c1, c2 } => vec![
                ("rise_root", power("q1", 1.0 / c1)),
                ("gradient_root", power("q2", 1.0 / c2)),
                ("log_q1", times(1.0 / c1, "log2(q1)")),
                ("log_q2", times(1.0 / c2, "log2(q2)")),
                ("apart1", times(c1, "(l2 - l1)")),
                ("apart2", times(c2, "(l1 - l2)")),
                ("u1", times(c1, "u")),
                ("u2", times(c2, "u")),
                ("derivative1", times(c1, "y1")),
                ("derivative2", times(c2, "y2")),
            ],
        }
    }
}
