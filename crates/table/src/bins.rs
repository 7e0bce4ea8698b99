//! Bins of equal width, with numpy's arithmetic.

/// Edges and the place of a number among them, as `numpy.histogram` has them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bins {
    edges: Vec<f64>,
    from: f64,
    width: f64,
}

impl Bins {
    /// So many bins from one number to another. Where both are the same, half of one to each side.
    /// `None` where floats cannot tell the edges apart, or there is no memory for them.
    pub fn new(from: f64, to: f64, bins: u32) -> Option<Bins> {
        let (from, to) = if from == to { (from - 0.5, to + 0.5) } else { (from, to) };
        let mut edges = Vec::new();
        edges.try_reserve_exact(bins as usize + 1).ok()?;
        // numpy.linspace: no fused multiplication, and the last edge as given.
        let width = to - from;
        let step = width / f64::from(bins);
        if step == 0.0 {
            edges.extend((0..bins).map(|i| f64::from(i) / f64::from(bins) * width + from));
        } else {
            edges.extend((0..bins).map(|i| f64::from(i) * step + from));
        }
        edges.push(to);
        let ordered = edges.is_sorted_by(|a, b| a < b);
        (ordered && width.is_finite()).then_some(Bins { edges, from, width })
    }

    /// The bin that a number is in; the last edge belongs to the last bin.
    pub fn index(&self, x: f64) -> Option<u32> {
        let bins = self.edges.len() - 1;
        if !(x >= self.from && x <= self.edges[bins]) {
            return None;
        }
        let mut i = (((x - self.from) / self.width) * bins as f64) as usize;
        i = i.min(bins - 1);
        // The division can be off by one bin at an edge.
        if x < self.edges[i] {
            i = i.saturating_sub(1);
        }
        if i + 1 < bins && x >= self.edges[i + 1] {
            i += 1;
        }
        Some(i as u32)
    }

    pub fn edges(&self) -> &[f64] {
        &self.edges
    }

    pub fn len(&self) -> usize {
        self.edges.len() - 1
    }

    /// A label for every bin: its edges, with as many digits as tell neighbours apart.
    pub fn labels(&self) -> Vec<String> {
        let step = self.width / self.len() as f64;
        // Two digits of the step, or all digits of round edges where those are fewer.
        let most = (1.0 - step.log10().floor()).clamp(0.0, 17.0) as usize;
        let exact = |digits: &usize| {
            self.edges.iter().all(|x| {
                let short = format!("{x:.digits$}").parse::<f64>().unwrap_or(f64::NAN);
                (short - x).abs() <= step * 1e-9
            })
        };
        let digits = (0..most).find(exact).unwrap_or(most);
        let large = self.edges.iter().any(|x| x.abs() >= 1e15);
        let text = |x: f64| match large || digits > 15 {
            true => format!("{x:e}"),
            // A zero has no sign.
            false => format!("{:.digits$}", if x.abs() < step * 1e-9 { 0.0 } else { x }),
        };
        let last = self.len() - 1;
        let bins = self.edges.windows(2).enumerate();
        bins.map(|(i, pair)| {
            let close = if i == last { ']' } else { ')' };
            format!("[{}, {}{close}", text(pair[0]), text(pair[1]))
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_have_their_edges() {
        let bins = Bins::new(0.0, 1.0, 10).unwrap();
        assert_eq!(bins.index(0.0), Some(0));
        assert_eq!(bins.index(1.0), Some(9));
        assert_eq!(bins.index(0.3), Some(2)); // 3 * 0.1 is above 0.3
        assert_eq!(bins.index(-0.1), None);
        assert_eq!(bins.index(f64::NAN), None);
        assert_eq!(bins.labels()[9], "[0.9, 1.0]");
        assert_eq!(Bins::new(-1.0, 1.0, 2).unwrap().labels(), ["[-1, 0)", "[0, 1]"]);
        assert_eq!(Bins::new(5.0, 5.0, 2).unwrap().edges(), [4.5, 5.0, 5.5]);
        assert!(Bins::new(1e16, 1e16, 2).is_none());
        assert!(Bins::new(-f64::MAX, f64::MAX, 2).is_none());
        assert_eq!(Bins::new(0.0, 2e20, 2).unwrap().labels()[1], "[1e20, 2e20]");
        for i in 0..bins.len() {
            assert_eq!(bins.index(bins.edges()[i]), Some(i as u32));
        }
    }
}
