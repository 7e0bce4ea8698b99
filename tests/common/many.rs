//! Models of many factors: what the planner has to get through. Used by tests and a benchmark.

use nneinfact::model::{Model, Shapes};

/// The kinds of models that are made with any number of factors up to 64.
pub const KINDS: [&str; 4] = ["CP", "tensor train", "Tucker", "tensor ring"];

/// The names of indices: A to Z for modes of the data, a to z for latent ones.
const HALF: usize = 26;

/// A model of a kind with so many factors, between 4 and 64. Where there are not enough letters, the
/// first factors are there twice or three times (an elementwise product).
pub fn model(kind: &str, factors: usize) -> Shapes {
    let mode = |m: usize| char::from(b'A' + m as u8);
    let bond = |m: usize| char::from(b'a' + m as u8);
    let all = |n: usize, of: &dyn Fn(usize) -> char| (0..n).map(of).collect::<String>();
    let (mut names, modes): (Vec<String>, String) = match kind {
        "CP" => {
            // One latent index only: all other letters are modes.
            let letter = |m: usize| if m < HALF { mode(m) } else { bond(m - HALF) };
            let n = factors.min(2 * HALF - 1);
            ((0..n).map(|m| format!("{}z", letter(m))).collect(), all(n, &letter))
        }
        "tensor train" => {
            let n = factors.min(HALF);
            let core = |m: usize| match m {
                0 => format!("{}{}", mode(0), bond(0)),
                m if m == n - 1 => format!("{}{}", bond(m - 1), mode(m)),
                m => format!("{}{}{}", bond(m - 1), mode(m), bond(m)),
            };
            ((0..n).map(core).collect(), all(n, &mode))
        }
        "Tucker" => {
            let n = (factors - 1).min(HALF);
            let matrices = (0..n).map(|m| format!("{}{}", mode(m), bond(m)));
            (matrices.chain([all(n, &bond)]).collect(), all(n, &mode))
        }
        "tensor ring" => {
            let n = factors.min(HALF);
            let core = |m: usize| format!("{}{}{}", bond(m), mode(m), bond((m + 1) % n));
            ((0..n).map(core).collect(), all(n, &mode))
        }
        other => panic!("{other} is no kind"),
    };
    for m in names.len()..factors {
        names.push(names[m % HALF].clone());
    }
    let model = Model::parse(&format!("{}->{modes}", names.join(","))).expect("a model");
    let sizes: Vec<usize> = (0..modes.len()).map(|m| 2 + m % 3).collect();
    let ranks: Vec<(char, usize)> =
        model.latent().iter().map(|x| (char::from(x), 2 + x.index() % 2)).collect();
    Shapes::new(&model, &sizes, &ranks).expect("the sizes fit")
}
