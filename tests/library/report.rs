//! Reports: pages and figures of fits of every kind, residuals against sums over all cells, and files
//! that say what they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::{Array2, ArrayD, Dimension, IxDyn, ShapeBuilder};
use nneinfact::data::LabelKind;
use nneinfact::data::{CooTensor, Dense, Role};
use nneinfact::fit::{EntryParameterRecord, Fit, Format, LossRecord, Norm, Saved, ScalesInto};
use nneinfact::io;
use nneinfact::loss::{LossParameters, NAMES};
use nneinfact::model::{Index, Model, Shapes};
use nneinfact::report::{Labels, Report, ResidualSums, Residuals, RoleResiduals};
use nneinfact::{Error, Loss, NNEinFact, Observations, Precision};

/// A number between 0 and 1 that looks random.
fn noise(i: usize) -> f64 {
    let mixed = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f64 / (1u64 << 24) as f64
}

fn array(shape: &[usize], seed: usize) -> ArrayD<f64> {
    let n = shape.iter().product();
    let cells = (0..n).map(|i| noise(1000 * seed + i)).collect();
    ArrayD::from_shape_vec(IxDyn(shape), cells).unwrap()
}

fn factors(model: &str, shape: &[usize], ranks: &[(char, usize)]) -> Saved {
    let parsed = Model::parse(model).unwrap();
    let shapes = Shapes::new(&parsed, shape, ranks).unwrap();
    let factors = (0..parsed.factors().len()).map(|l| array(&shapes.factor(l), l)).collect();
    Saved::from_factors(model, factors).unwrap()
}

/// A model, the shape of its data, its ranks.
type Kind = (&'static str, Vec<usize>, Vec<(char, usize)>);

/// Models of every kind.
fn kinds() -> Vec<Kind> {
    vec![
        ("ir,jr->ij", vec![14, 300], vec![('r', 4)]),
        ("ir,jr,kr->ijk", vec![20, 6, 5], vec![('r', 30)]),
        ("ir,jr->ij", vec![3, 4], vec![('r', 130)]),
        ("ia,jb,kc,abc->ijk", vec![9, 7, 5], vec![('a', 3), ('b', 2), ('c', 4)]),
        ("ia,ajb,bk->ijk", vec![9, 7, 50], vec![('a', 3), ('b', 2)]),
        ("wr,hr,dr,ikr,jkr->whdij", vec![4, 6, 3, 30, 25], vec![('r', 3), ('k', 2)]),
        ("ik,jqk,aiq,q->ija", vec![6, 5, 4], vec![('k', 3), ('q', 2)]),
        ("ijr,kr->ijk", vec![12, 300, 4], vec![('r', 2)]),
        ("ijkr,r->ijk", vec![5, 4, 3], vec![('r', 2)]),
        ("i,j->ij", vec![5, 4], vec![]),
        ("ij,k->ijk", vec![5, 4, 3], vec![]),
        ("i->i", vec![1], vec![]),
        ("ir,r->i", vec![1000], vec![('r', 1)]),
        ("iabc,jabc->ij", vec![5, 4], vec![('a', 2), ('b', 2), ('c', 2)]),
        ("ia,jb,ab->ij", vec![5, 4], vec![('a', 2), ('b', 3)]),
    ]
}

fn options() -> roxmltree::ParsingOptions {
    roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() }
}

fn document(text: &str) -> roxmltree::Document<'_> {
    roxmltree::Document::parse_with_options(text, options())
        .unwrap_or_else(|e| panic!("not well-formed: {e}"))
}

/// Whether anything in a page could make a browser ask a network.
fn asks_nobody(text: &str) {
    let allowed = ["http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml"];
    let stripped = allowed.iter().fold(text.to_string(), |t, url| t.replace(url, ""));
    for sign in ["http:", "https:", "//cdn", "@import", "fetch(", "XMLHttp", "url(//"] {
        assert!(!stripped.contains(sign), "{sign}");
    }
    for node in document(text).descendants() {
        for attribute in node.attributes() {
            if ["src", "href"].contains(&attribute.name()) {
                let value = attribute.value();
                assert!(value.starts_with("data:") || value.starts_with('#'), "{value}");
            }
        }
    }
}

/// Nothing is drawn where no number is.
fn only_numbers(text: &str) {
    for node in document(text).descendants() {
        for attribute in node.attributes().filter(|a| !["href", "data-v"].contains(&a.name())) {
            let value = attribute.value();
            assert!(!value.contains("NaN") && !value.contains("inf"), "{value}");
        }
    }
}

#[test]
fn pages_of_every_kind_of_model() {
    for (model, shape, ranks) in kinds() {
        let saved = factors(model, &shape, &ranks);
        let report = Report::new(&saved);
        let page = report.html();
        asks_nobody(&page);
        let parsed = document(&page);
        let texts: Vec<&str> = parsed
            .descendants()
            .filter(|n| ["code", "text"].contains(&n.tag_name().name()))
            .filter_map(|n| n.text())
            .collect();
        let named = |name: &str| texts.iter().any(|t| t.split([',', ' ', ':']).any(|t| t == name));
        for l in 0..saved.model().factors().len() {
            let name = saved.model().factor_name(l);
            assert!(named(&name), "{model}: no {name}");
        }
        // Something is drawn of every factor, and nothing is drawn outside of numbers.
        let drawings = parsed.descendants().filter(|n| is(n, "figure")).count();
        assert!(drawings >= 1, "{model}");
        only_numbers(&page);
        assert!(page.len() < 4 << 20, "{model}: {}", page.len());

        let figure = report.svg();
        asks_nobody(&figure);
        let parsed = document(&figure);
        assert_eq!(parsed.root_element().tag_name().name(), "svg");
        assert!(!figure.contains("<script"));
        only_numbers(&figure);
    }
}

/// Whether an element has a name, in any namespace.
fn is(node: &roxmltree::Node<'_, '_>, name: &str) -> bool {
    node.is_element() && node.tag_name().name() == name
}

#[test]
fn components_stand_in_the_order_of_their_weight() {
    let (i, j) = (Array2::ones((3, 3)), ndarray::array![[1.0, 5.0, 2.0], [1.0, 5.0, 2.0]]);
    let saved = Saved::from_factors("ir,jr->ij", vec![i.into_dyn(), j.into_dyn()]).unwrap();
    let page = Report::new(&saved).html();
    let place = |r: usize| page.find(&format!(">r = {r} ")).unwrap();
    assert!(place(1) < place(2) && place(2) < place(0));
    assert!(page.contains("62 %") && page.contains("25 %") && page.contains("12 %"));

    // What is too much is left out, and said.
    let many = factors("ir,jr->ij", &[3, 4], &[('r', 130)]);
    let page = Report::new(&many).html();
    assert_eq!(page.matches("class=\"card\"").count(), 96);
    assert!(page.contains("72 lighter components</summary>"));
    assert!(page.contains("34 lighter components are left out"));
}

#[test]
fn pairs_of_modes_become_maps() {
    let saved = factors("hr,ikr,jkr->hij", &[4, 30, 25], &[('r', 3), ('k', 2)]);
    let page = Report::new(&saved).html();
    assert!(page.contains("ikr and jkr are shown multiplied and summed over k"));
    let maps = "i × j: heat map of i by j, 30 × 25 entries";
    assert_eq!(page.matches(maps).count(), 3);
    // The whole of an NMF is no map of a component.
    let page = Report::new(&factors("ik,jk->ij", &[6, 5], &[('k', 2)])).html();
    assert!(!page.contains("multiplied"));
    // What lies in a small part of a map is shown larger.
    let mut lone = [array(&[60, 2, 2], 1), array(&[50, 2, 2], 2)];
    for factor in &mut lone {
        for (index, x) in factor.indexed_iter_mut() {
            if !(20..28).contains(&index[0]) {
                *x = 0.0;
            }
        }
    }
    let [i, j] = lone;
    let saved = Saved::from_factors("hr,ikr,jkr->hij", vec![array(&[4, 2], 3), i, j]).unwrap();
    let page = Report::new(&saved).upwards('i').unwrap().html();
    assert!(page.contains("The maps are cut to i 19 to 28 and j 19 to 28"), "{page}");
}

/// The heat maps of a page.
fn maps<'a, 'b>(page: &'a roxmltree::Document<'b>) -> Vec<roxmltree::Node<'a, 'b>> {
    page.descendants().filter(|n| is(n, "image")).collect()
}

#[test]
fn small_maps_with_long_labels() {
    let model = "wr,hr,ir,jr,dxr->whijdx";
    let saved = factors(model, &[3, 4, 5, 6, 7, 20], &[('r', 2)]);
    let labels = |n: usize| {
        Labels::new((0..n).map(|i| format!("a label that is much too long, {i}")))
            .with_name("A mode of a very long name")
    };
    let report = Report::new(&saved).labels('d', labels(7)).unwrap().labels('x', labels(20));
    let figure = report.unwrap().svg();
    only_numbers(&figure);
    assert_eq!(maps(&document(&figure)).len(), 2);
}

#[test]
fn maps_are_binned_before_they_are_multiplied() {
    let product = |m: usize, n: usize| {
        let saved = factors("hr,ikr,jkr->hij", &[4, m, n], &[('r', 2), ('k', 3)]);
        (Report::new(&saved).html(), saved)
    };
    // 160 GB, if it were formed.
    let (page, _) = product(200_000, 100_000);
    assert_eq!(page.matches("200000 × 100000 entries").count(), 2);
    assert!(page.len() < 4 << 20, "{}", page.len());

    let (m, n) = (600, 520);
    let (page, saved) = product(m, n);
    let parsed = document(&page);
    let order = saved.totals(&[Index::new('r').unwrap()]);
    let heavy = usize::from(order[1] > order[0]);
    let (a, b) = (&saved.factors()[1], &saved.factors()[2]);
    let entry =
        |i: usize, j: usize| -> f64 { (0..3).map(|k| a[[i, k, heavy]] * b[[j, k, heavy]]).sum() };
    let (mut total, mut means) = (0.0, vec![[0.0; 2]; 200 * 174]);
    for i in 0..m {
        for j in 0..n {
            total += entry(i, j);
            let mean = &mut means[i / 3 * 174 + j / 3];
            *mean = [mean[0] + entry(i, j), mean[1] + 1.0];
        }
    }
    let expected = means.iter().map(|[sum, n]| sum / n / total).fold(0.0, f64::max);
    let found: f64 = maps(&parsed)[0].attribute("data-max").unwrap().parse().unwrap();
    assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
}

#[test]
fn every_map_has_numbers() {
    let page_of = |r: usize| {
        let saved = factors("hr,ikr,jkr->hij", &[4, 300, 300], &[('r', r), ('k', 2)]);
        Report::new(&saved).html()
    };
    let page = page_of(40);
    let parsed = document(&page);
    let maps = maps(&parsed);
    let number = |map: &roxmltree::Node<'_, '_>, name: &str| -> usize {
        map.attribute(name).map_or(1, |x| x.parse().unwrap())
    };
    assert!(maps.len() >= 40);
    for map in &maps {
        let step = number(map, "data-f");
        let [rows, columns] = ["data-m", "data-n"].map(|name| number(map, name).div_ceil(step));
        // Two bytes each, in base 64.
        let length = (2 * rows * columns).div_ceil(3) * 4;
        assert_eq!(map.attribute("data-v").unwrap().len(), length);
    }
    assert!(maps.iter().any(|map| number(map, "data-f") > 1));
    assert!(!page.contains("heat maps of the lighter components are left out"));
    // Beyond that, what is left out is said.
    assert!(page_of(60).contains("heat maps of the lighter components are left out"));
}

#[test]
fn slices_of_a_core_have_one_scale() {
    let saved = factors("ia,jb,kc,abc->ijk", &[9, 7, 5], &[('a', 3), ('b', 2), ('c', 4)]);
    let page = Report::new(&saved).html();
    let parsed = document(&page);
    let largest: Vec<_> = maps(&parsed).iter().map(|map| map.attribute("data-max")).collect();
    assert_eq!(largest.len(), 3);
    assert!(largest[0].is_some() && largest.iter().all(|x| *x == largest[0]), "{largest:?}");
}

#[test]
fn large_entries_are_named() {
    let mut words = Array2::zeros((30, 1));
    (words[[7, 0]], words[[21, 0]], words[[3, 0]]) = (2.0, 5.0, 1.0);
    // What a floor leaves of an entry.
    words[[5, 0]] = 1e-9;
    let documents = Array2::ones((4, 1)).into_dyn();
    let saved = Saved::from_factors("dr,wr->dw", vec![documents, words.into_dyn()]).unwrap();
    let names: String = (0..30).map(|i| format!("word{i}\n")).collect();
    let page = Report::new(&saved).labels('w', Labels::parse(&names)).unwrap().html();
    assert!(page.contains(">largest: word21, word7, word3</text>"));
}

#[test]
fn labels_are_shown_and_cannot_do_harm() {
    let saved = factors("ir,jr->ij", &[3, 4], &[('r', 2)]);
    let evil = ["<script>alert(1)</script>", "\"onload=\"x", "]]>--><!--&amp;\u{1}\u{ffff}"];
    let labels = Labels::new(evil).with_name("<img src=x onerror=alert(1)>");
    let report = Report::new(&saved)
        .labels('i', labels)
        .unwrap()
        .labels('j', Labels::parse("# Fruit\napple\nbanana\ncherry\ndate\n\n"))
        .unwrap()
        .title("<h1>&'\"</title>");
    for text in [report.html(), report.svg()] {
        let parsed = document(&text);
        let all = |name: &str| parsed.descendants().filter(|n| is(n, name)).count();
        assert_eq!(all("script"), if text.contains("<html") { 2 } else { 0 });
        assert_eq!(all("img") + all("onload"), 0);
        let words: String = parsed.descendants().filter_map(|n| n.text()).collect();
        for label in [evil[0], evil[1], "apple", "banana", "cherry", "date"] {
            assert!(words.contains(label), "{label}");
        }
        assert!(words.contains("<h1>&'\"</title>"));
    }
    assert!(report.html().contains("Fruit (j)"));
}

#[test]
fn axes_have_the_names_of_the_data() {
    let edges: Vec<f64> = (0..=20).map(|i| 40.5 + 0.025 * f64::from(i)).collect();
    let bins = Labels::new((0..20).map(|i| format!("bin {i}")));
    let days = (0..90).map(|i| format!("2014-{:02}-{:02}", 4 + i / 30, 1 + i % 30));
    let fitted = factors("ir,jr,tr,sr->ijts", &[20, 20, 90, 3], &[('r', 2)])
        .with_labels(vec![
            bins.clone().with_name("lat").with_kind(LabelKind::Bins { edges }),
            bins.with_name("lon"),
            Labels::new(days).with_name("date").with_kind(LabelKind::Date),
            Labels::new([
                "שלום\u{202e}",
                "東京都千代田区丸の内一丁目九番一号",
                "e\u{301}te\u{301}",
            ]),
        ])
        .unwrap();
    let texts = |page: &str| -> Vec<String> {
        let parsed = document(page);
        let all = parsed.descendants().filter(|n| is(n, "text"));
        all.filter_map(|n| n.text().map(String::from)).collect()
    };
    let page = Report::new(&fitted).html();
    let shown = texts(&page);
    let has = |text: &str| shown.iter().any(|shown| shown == text);
    // Coordinates in place of the names of bins; months where they begin.
    assert!(has("40.6") && has("40.8") && has("2014-05") && has("2014-06"), "{shown:?}");
    assert!(!has("2014-05-01") && page.contains("lat (i)") && page.contains("date (t)"));
    // A name that runs from right to left is kept apart from what follows, and turns nothing.
    assert!(shown.iter().any(|shown| shown.contains("\u{2068}") && shown.contains("\u{2069}")));
    assert!(!shown.iter().any(|shown| shown.contains('\u{202e}')), "{shown:?}");
    // A long name is cut, and no mark without its letter begins or ends it.
    let long = shown.iter().filter(|shown| shown.starts_with('東'));
    assert!(long.clone().count() > 0 && long.clone().all(|l| l.chars().count() < 17), "{shown:?}");
    assert!(!shown.iter().any(|shown| shown.starts_with('\u{301}')));

    // What is said of a mode here goes before what the fit knows, name by name.
    let named = Report::new(&fitted).labels('i', Labels::named("Latitude")).unwrap().html();
    assert!(named.contains("Latitude (i)") && texts(&named).iter().any(|text| text == "40.6"));
}

#[test]
fn names_cut_to_a_letter_or_two_are_said_beside() {
    let largest = |names: [&str; 8]| -> Vec<String> {
        let fitted = factors("ir,jr->ij", &[8, 4], &[('r', 2)]);
        let fitted = fitted.with_labels(vec![Labels::new(names), Labels::default()]).unwrap();
        let page = Report::new(&fitted).html();
        let parsed = document(&page);
        let texts = parsed.descendants().filter(|n| is(n, "text"));
        let texts = texts.filter_map(|n| n.text().map(String::from));
        texts.filter(|text| text.starts_with("largest: ")).collect()
    };
    let wide =
        ["東京都千代田区", "大阪市北区", "京都市", "Harlem", "SoHo", "Bronx", "Queens", "Chelsea"];
    let said = largest(wide);
    assert!(
        said.len() == 2 && said.iter().all(|text| wide.iter().any(|name| text.contains(name))),
        "{said:?}"
    );
    // Three letters of a name, or all that it has, are enough.
    let letters =
        ["Aberdeen", "Bristol", "Cardiff", "Dundee", "Exeter", "Falmouth", "Glasgow", "X"];
    assert_eq!(largest(letters), Vec::<String>::new());
}

#[test]
fn labels_that_do_not_fit_are_refused() {
    let saved = factors("ir,jr->ij", &[3, 4], &[('r', 2)]);
    let refused = |mode, text| Report::new(&saved).labels(mode, Labels::parse(text)).unwrap_err();
    let error = refused('j', "a\nb\nc\n").to_string();
    assert!(error.contains("3 labels") && error.contains("4 indices") && error.contains('j'));
    for mode in ['r', 'x', 'é'] {
        let error = refused(mode, "a\n").to_string();
        assert!(error.contains(mode) && error.contains("i, j"), "{error}");
    }
    assert!(Report::new(&saved).upwards('r').is_err());
    // A number sign is part of a label, unless a space is after it.
    let labels = Labels::parse("#1\n#2\n#3\n#4\n");
    assert_eq!((labels.name(), labels.indices().unwrap().len()), (None, 4));
    let error = refused('j', "# one\ntwo\nthree\nfour\n").to_string();
    assert!(error.contains("3 labels") && error.contains("# alone"), "{error}");
    let labels = Labels::parse("#\n# one\ntwo\nthree\nfour\n");
    assert_eq!(labels.get(0), Some("# one"));
    assert!(Report::new(&saved).labels('j', labels).is_ok());
    let error = refused('j', "#Fruit\na\nb\nc\nd\n").to_string();
    assert!(error.contains("5 labels") && error.contains("space"), "{error}");
    // A name alone is fine.
    assert!(Report::new(&saved).labels('i', Labels::parse("# Row\n")).is_ok());
}

/// Sums over the cells of a role, one by one.
fn naive(
    yhat: &ArrayD<f64>,
    y: &ArrayD<f64>,
    role: impl Fn(&[usize]) -> Role,
    weight: impl Fn(&[usize]) -> f64,
    (loss, floor): (&Loss, f64),
    wanted: Role,
) -> Option<(ResidualSums, Vec<Vec<ResidualSums>>)> {
    let mut all = ResidualSums::default();
    let mut modes: Vec<Vec<ResidualSums>> =
        y.shape().iter().map(|&n| vec![ResidualSums::default(); n]).collect();
    for (index, &x) in y.indexed_iter() {
        let index = index.slice();
        if role(index) != wanted {
            continue;
        }
        let (w, y) = (weight(index), yhat[index]);
        let expected = if loss.is_odds() { y / (1.0 + y) } else { y };
        let add = |s: &mut ResidualSums| {
            s.entries += 1.0;
            s.weight += w;
            s.observed += w * x;
            s.predicted += w * expected;
            s.loss += w * loss.eval_loss(x, y.max(floor), &[]);
        };
        add(&mut all);
        for (mode, &i) in modes.iter_mut().zip(index) {
            add(&mut mode[i]);
        }
    }
    (all.entries > 0.0).then_some((all, modes))
}

fn same(found: &ResidualSums, expected: &ResidualSums, with_loss: bool) {
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * (1.0 + a.abs().max(b.abs()));
    assert!(
        near(found.entries, expected.entries)
            && near(found.weight, expected.weight)
            && near(found.observed, expected.observed)
            && near(found.predicted, expected.predicted)
            && (!with_loss || near(found.loss, expected.loss)),
        "{found:?} {expected:?}"
    );
}

fn compare(
    portion: &RoleResiduals,
    expected: &(ResidualSums, Vec<Vec<ResidualSums>>),
    with_loss: bool,
) {
    same(&portion.all, &expected.0, with_loss);
    for (found, expected) in portion.modes.iter().zip(&expected.1) {
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected).for_each(|(a, b)| same(a, b, with_loss));
    }
}

const MODEL: &str = "ir,jkr,kq,q->ijk";
const SHAPE: [usize; 3] = [7, 6, 5];
const RANKS: [(char, usize); 2] = [('r', 3), ('q', 2)];

fn counts() -> ArrayD<f64> {
    array(&SHAPE, 7).mapv(|x| if x < 0.7 { 0.0 } else { (20.0 * (x - 0.6)).floor() })
}

fn fitted(observations: &Observations, loss: &Loss) -> Fit {
    NNEinFact::new(MODEL)
        .unwrap()
        .ranks(RANKS)
        .loss(loss.clone())
        .precision(Precision::F64)
        .max_iter(4)
        .fit(observations)
        .unwrap()
}

#[test]
fn residuals_are_sums_over_all_cells() {
    let y = counts();
    let mask = array(&SHAPE, 8).mapv(|x| x > 0.1);
    let weights = array(&SHAPE, 9).mapv(|x| if x < 0.2 { 0.0 } else { 1.0 + x });
    let losses = [Loss::kl(), Loss::euclidean(), Loss::alpha_beta(1.3, 1.0).unwrap()];
    for (case, loss) in losses.iter().enumerate() {
        // In C order, in Fortran order, and in an order of its own.
        let turned = match case {
            0 => y.clone(),
            1 => {
                let mut fortran = ArrayD::zeros(IxDyn(&SHAPE).f());
                fortran.assign(&y);
                fortran
            }
            _ => {
                let mut other = ArrayD::zeros(IxDyn(&[SHAPE[1], SHAPE[2], SHAPE[0]]));
                other.assign(&y.view().permuted_axes(IxDyn(&[1, 2, 0])));
                other.permuted_axes(IxDyn(&[2, 0, 1]))
            }
        };
        let plain = Observations::new(&turned);
        let split = plain.clone().mask(&mask).unwrap();
        let split = split.held_out(0.2, 3).unwrap().validation(0.2, 3).unwrap();
        let weighted = split.clone().weights(Dense::from_array(&weights)).unwrap();
        for observations in [plain, split, weighted] {
            let fit = fitted(&observations, loss);
            let saved = Saved::new(&fit);
            let residuals = Residuals::new(&saved, &observations, Some(loss)).unwrap();
            assert!(residuals.has_loss() && residuals.notes().is_empty());
            let prepared = observations.prepare().unwrap();
            let role = |index: &[usize]| match prepared.roles() {
                Some(roles) => roles.get(prepared.values().offset(index).unwrap()),
                None => Role::Train,
            };
            let weight = |index: &[usize]| match prepared.weights() {
                Some(tensor) => tensor.get(index).unwrap(),
                None => 1.0,
            };
            let yhat = fit.reconstruct().unwrap();
            // What ŷ is raised to in double precision.
            let floor = 1e-10 * prepared.mean();
            let mut found = residuals.by_role().iter();
            for wanted in [Role::Train, Role::Validation, Role::HeldOut] {
                if let Some(expected) = naive(&yhat, &y, role, weight, (loss, floor), wanted) {
                    let portion = found.next().unwrap();
                    assert_eq!(portion.role, wanted);
                    compare(portion, &expected, true);
                }
            }
            assert!(found.next().is_none());
            // The history says the same.
            let history = fit.history();
            let all = [&history.loss, &history.validation_loss, &history.heldout_loss];
            for (losses, role) in
                all.into_iter().zip([Role::Train, Role::Validation, Role::HeldOut])
            {
                if let Some(&last) = losses.last() {
                    let portion = residuals.by_role().iter().find(|p| p.role == role).unwrap();
                    let mean = portion.all.mean_loss();
                    assert!((mean / last - 1.0).abs() < 1e-7, "{role:?}: {mean} {last}");
                }
            }
            let page = Report::new(&saved).residuals(residuals).html();
            document(&page);
            assert!(page.contains("Training entries") && page.contains("Worst-fitted slices"));
            assert_eq!(page.contains("Held-out entries"), prepared.count(Role::HeldOut) > 0);
        }
    }
}

/// A list of the entries of an array that a condition picks.
#[test]
fn residuals_have_the_floor_of_the_fit() {
    let y = counts();
    let observations = Observations::new(&y);
    let loss = Loss::kl();
    let settings = NNEinFact::new(MODEL).unwrap().ranks(RANKS).precision(Precision::F64);
    // Zeros that are summed over as a whole have no floor.
    let settings = settings.data_as(Format::Dense);
    let fit = settings.max_iter(4).prediction_floor(0.5).fit(&observations).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fit.npz");
    fit.save(&path).unwrap();
    let saved = Saved::load(&path).unwrap();
    let mean = |saved: &Saved| {
        let residuals = Residuals::new(saved, &observations, Some(&loss)).unwrap();
        residuals.by_role()[0].all.mean_loss()
    };
    let expected = fit.history().last_loss();
    assert!((mean(&saved) / expected - 1.0).abs() < 1e-9, "{} {expected}", mean(&saved));
    // It is the record that says so.
    let mut history = fit.history().clone();
    history.prediction_floor = None;
    let other = mean(&saved.with_history(history));
    assert!((other / expected - 1.0).abs() > 1e-3, "{other} {expected}");
}

fn list(y: &ArrayD<f64>, pick: impl Fn(usize, f64) -> bool) -> Arc<CooTensor> {
    let mut indices = vec![Vec::new(); y.ndim()];
    let mut values = Vec::new();
    for (n, (index, &x)) in y.indexed_iter().enumerate() {
        if pick(n, x) {
            index.slice().iter().zip(&mut indices).for_each(|(&i, to)| to.push(i as u64));
            values.push(x);
        }
    }
    Arc::new(CooTensor::new(y.shape(), &indices, &values).unwrap())
}

#[test]
fn residuals_of_lists_are_those_of_all_cells() {
    let y = counts();
    let nonzeros = list(&y, |_, x| x > 0.0);
    let held = list(&y, |n, _| n % 5 == 0);
    let missing = list(&y, |n, _| n % 7 == 3);
    for loss in [Loss::kl(), Loss::euclidean(), Loss::hellinger(), Loss::jensen_shannon()] {
        let plain = Observations::new(Arc::clone(&nonzeros));
        let random = plain.clone().held_out(0.2, 1).unwrap();
        let lists = plain.clone().held_out_at(Arc::clone(&held)).unwrap();
        let lists = lists.missing_at(Arc::clone(&missing)).unwrap();
        let unlisted = lists.clone().unlisted_missing();
        for (case, observations) in [plain, random, lists, unlisted].into_iter().enumerate() {
            let fit = fitted(&observations, &loss);
            let saved = Saved::new(&fit);
            let found = Residuals::new(&saved, &observations, Some(&loss)).unwrap();
            // The same data with a value for every cell.
            let dense = Observations::new(&y);
            let dense = match case {
                0 => dense,
                1 => dense.held_out(0.2, 1).unwrap(),
                2 => dense
                    .held_out_at(Arc::clone(&held))
                    .unwrap()
                    .missing_at(Arc::clone(&missing))
                    .unwrap(),
                _ => dense
                    .mask(&y.mapv(|x| x > 0.0))
                    .unwrap()
                    .held_out_at(Arc::clone(&held))
                    .unwrap()
                    .missing_at(Arc::clone(&missing))
                    .unwrap(),
            };
            let expected = Residuals::new(&saved, &dense, Some(&loss)).unwrap();
            assert!(found.has_loss(), "{}: {:?}", loss.name(), found.notes());
            assert_eq!(found.by_role().len(), expected.by_role().len());
            for (found, expected) in found.by_role().iter().zip(expected.by_role()) {
                assert_eq!(found.role, expected.role);
                compare(found, &(expected.all, expected.modes.clone()), true);
            }
        }
    }
}

#[test]
fn what_lists_cannot_tell_is_left_out_and_said() {
    let y = counts();
    let observations = Observations::new(list(&y, |_, x| x > 0.0));
    // No closed form of the zeros' loss: totals are there, losses are not.
    let loss = Loss::negative_binomial(2.0).unwrap();
    let fit = fitted(&observations, &loss);
    let saved = Saved::new(&fit);
    let found = Residuals::new(&saved, &observations, Some(&loss)).unwrap();
    assert!(!found.has_loss() && found.has_predictions());
    assert!(found.notes()[0].contains("zeros"), "{:?}", found.notes());
    let total: f64 = y.sum();
    assert!((found.by_role()[0].all.observed - total).abs() < 1e-9);
    let yhat = fit.reconstruct().unwrap().sum();
    assert!((found.by_role()[0].all.predicted / yhat - 1.0).abs() < 1e-12);
    let page = Report::new(&saved).residuals(found).html();
    assert!(page.contains("no closed form") && !page.contains("Worst-fitted"));

    // Odds are no totals.
    let ones = y.mapv(|x| f64::from(u8::from(x > 0.0)));
    let observations = Observations::new(list(&ones, |_, x| x > 0.0));
    let loss = Loss::bernoulli();
    let fit = fitted(&observations, &loss);
    let saved = Saved::new(&fit);
    let found = Residuals::new(&saved, &observations, Some(&loss)).unwrap();
    assert!(!found.has_predictions() && found.notes()[0].contains("dense"));
    document(&Report::new(&saved).residuals(found).html());
    // From dense data they are means.
    let dense = Observations::new(&ones);
    let found = Residuals::new(&saved, &dense, Some(&loss)).unwrap();
    let yhat = fit.reconstruct().unwrap();
    let expected =
        naive(&yhat, &ones, |_| Role::Train, |_| 1.0, (&loss, 1e-10), Role::Train).unwrap();
    compare(&found.by_role()[0], &expected, true);
}

#[test]
fn parameters_per_entry_go_with_their_cells() {
    let y = counts();
    let dispersion = array(&SHAPE, 4).mapv(|x| 0.5 + x);
    let loss = Loss::negative_binomial(dispersion.clone()).unwrap();
    let mut fortran = ArrayD::zeros(IxDyn(&SHAPE).f());
    fortran.assign(&y);
    let observations = Observations::new(&fortran);
    let fit = fitted(&observations, &loss);
    let found = Residuals::new(&Saved::new(&fit), &observations, Some(&loss)).unwrap();
    let last = fit.history().last_loss();
    let mean = found.by_role()[0].all.mean_loss();
    assert!((mean / last - 1.0).abs() < 1e-7, "{mean} {last}");
}

#[test]
fn residuals_of_other_data_are_refused() {
    let saved = factors("ir,jr->ij", &[3, 4], &[('r', 2)]);
    let y = Array2::<f64>::ones((4, 3));
    match Residuals::new(&saved, &Observations::new(&y), None) {
        Err(Error::Shape { found, expected, .. }) => {
            assert!(found == "[4, 3]" && expected.contains("[3, 4]"));
        }
        other => panic!("{other:?}"),
    }
    // Without a loss there are totals.
    let y = Array2::<f64>::ones((3, 4));
    let found = Residuals::new(&saved, &Observations::new(&y), None).unwrap();
    assert!(!found.has_loss() && found.by_role()[0].all.observed == 12.0);
    document(&Report::new(&saved).residuals(found).html());
}

#[test]
fn fits_come_back_from_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fit.npz");
    let y = counts();
    let observations = Observations::new(&y).held_out(0.2, 0).unwrap();
    let fit = fitted(&observations, &Loss::alpha_beta(0.7, 0.0).unwrap());
    for fit in [
        fit.clone(),
        fit.normalize(Norm::L1, ScalesInto::Weights).unwrap(),
        fit.without_empty(0.3).unwrap(),
    ] {
        fit.save(&path).unwrap();
        let saved = Saved::load(&path).unwrap();
        assert_eq!(saved.factors(), fit.factors());
        assert_eq!(saved.weights(), fit.weights());
        assert_eq!(saved.shapes(), fit.shapes());
        assert_eq!(saved.record().history.as_ref(), Some(fit.history()));
        let loss = saved.record().loss.as_ref().unwrap();
        assert_eq!(loss.loss().unwrap().name(), "alpha-beta(0.7, 0)");
        let r = saved.model().latent().iter().next().unwrap();
        let (a, b) = (saved.totals(&[r]), fit.component_weights(r.into()).unwrap());
        assert_eq!(a, b);
        // Readers of arrays see arrays only.
        let names: Vec<String> =
            io::read_npz_arrays(&path).unwrap().into_iter().map(|a| a.0).collect();
        assert!(names.iter().all(|n| n.starts_with("theta_") || n == "weights"), "{names:?}");
        assert!(Saved::load_as(&path, MODEL).is_ok());
        let error = Saved::load_as(&path, "ir,jr,kr->ijk").unwrap_err().to_string();
        assert!(error.contains(MODEL), "{error}");
        document(&Report::new(&saved).html());
    }
}

#[test]
fn files_that_say_something_wrong_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fit.npz");
    let saved = factors("ir,jr->ij", &[3, 4], &[('r', 2)]);
    let arrays: Vec<(String, ArrayD<f64>)> = saved
        .factors()
        .iter()
        .enumerate()
        .map(|(l, f)| (format!("theta_{}", l + 1), f.clone()))
        .collect();
    let said = |text: &str| {
        io::write_npz_with(&path, &arrays, &[("fit.json", text)]).unwrap();
        let error = Saved::load(&path).unwrap_err();
        assert!(error.is_input(), "{error}");
        error.to_string()
    };
    assert!(said("").contains("fit.json"));
    assert!(said("{}").contains("form"));
    assert!(said("{\"format\": 99}").contains("form 99"));
    assert!(said("{\"format\": 1}").contains("model"));
    let with = |model: &str, shape: &str, ranks: &str| {
        format!("{{\"format\": 1, \"model\": \"{model}\", \"shape\": {shape}, \"ranks\": {ranks}}}")
    };
    assert!(said(&with("ir,jr", "[3, 4]", "{\"r\": 2}")).contains("->"));
    assert!(said(&with("ir,jr,kr->ijk", "[3, 4, 5]", "{\"r\": 2}")).contains("theta_3"));
    assert!(said(&with("ir->i", "[3]", "{\"r\": 2}")).contains("theta_2"));
    assert!(said(&with("ir,jr->ij", "[3, 9]", "{\"r\": 2}")).contains("[3, 9]"));
    assert!(said(&with("ir,jr->ij", "[3, 4]", "{\"r\": 3}")).contains("ranks"));
    assert!(said(&with("irs,jr->ij", "[3, 4]", "{\"r\": 2}")).contains("3 letters"));

    // From another program: the model has to be named.
    io::write_npz(&path, &arrays).unwrap();
    assert!(Saved::load(&path).unwrap_err().to_string().contains("fit.json"));
    let other = Saved::load_as(&path, "ir,jr->ij").unwrap();
    assert_eq!(other.factors(), saved.factors());
    assert!(other.record().history.is_none() && other.record().loss.is_none());
    assert!(Saved::load_as(&path, "ir,js->ij").is_ok());
    assert!(Saved::load_as(&path, "ri,jr->ij").unwrap_err().is_input());
    let negative = vec![-array(&[3, 2], 1), array(&[4, 2], 2)];
    assert!(
        Saved::from_factors("ir,jr->ij", negative).unwrap_err().to_string().contains("theta_1")
    );
}

#[test]
fn losses_are_made_again_from_their_records() {
    let parameters: BTreeMap<&str, LossParameters> = BTreeMap::from([
        ("alpha", LossParameters { alpha: Some(0.3), ..Default::default() }),
        ("beta", LossParameters { beta: Some(-0.1), ..Default::default() }),
        ("alpha-beta", LossParameters { alpha: Some(1.3), beta: Some(1e-3), ..Default::default() }),
        (
            "negative-binomial",
            LossParameters { dispersion: Some(2.5.into()), ..Default::default() },
        ),
        ("binomial", LossParameters { trials: Some(7.0.into()), ..Default::default() }),
        ("tweedie", LossParameters { power: Some(1.5), ..Default::default() }),
    ]);
    for name in NAMES {
        let none = LossParameters::default();
        let loss = Loss::named(name, parameters.get(name).unwrap_or(&none)).unwrap();
        let record = LossRecord::of(loss.name());
        assert_eq!(record.name, name);
        assert_eq!(record.is_odds(), loss.is_odds(), "{name}");
        let text = serde_json::to_string(&record).unwrap();
        let back: LossRecord = serde_json::from_str(&text).unwrap();
        assert_eq!(back, record);
        assert_eq!(record.loss().unwrap().name(), loss.name());
        assert_eq!(record.describe(), loss.name());
    }
    let tensor = Loss::negative_binomial(array(&SHAPE, 1).mapv(|x| x + 1.0)).unwrap();
    let record = LossRecord::of(tensor.name());
    assert_eq!(record.dispersion, Some(EntryParameterRecord::Unknown));
    assert!(matches!(record.loss(), Err(Error::Loss(_))));
    let own = LossRecord::of("my own (best, 3)");
    assert_eq!(own.name, "my own (best, 3)");
    assert!(own.loss().is_err());
}

#[cfg(feature = "cli")]
mod program {
    use std::path::PathBuf;
    use std::process::{Command, Output};

    use super::*;

    struct Bench {
        folder: tempfile::TempDir,
    }

    impl Bench {
        /// With `y.npy`, and a fit of it in `fit.npz`.
        fn new() -> Bench {
            let bench = Bench { folder: tempfile::tempdir().unwrap() };
            let y = array(&[6, 5], 1).mapv(|x| (9.0 * x).floor());
            io::write_npy(bench.path("y.npy"), &y).unwrap();
            bench.good(&bench.fit(&["--out", "fit.npz", "--history", "h.json"]));
            bench
        }

        /// The arguments of a fit of `y.npy`.
        fn fit<'a>(&self, extra: &[&'a str]) -> Vec<&'a str> {
            let first = ["fit", "y.npy", "--model", "ir,jr->ij", "--rank", "r=2"];
            [&first[..], &["--heldout", "0.2", "--max-iter", "20"], extra].concat()
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn text(&self, name: &str, text: &str) {
            std::fs::write(self.path(name), text).unwrap();
        }

        fn read(&self, name: &str) -> String {
            std::fs::read_to_string(self.path(name)).unwrap()
        }

        fn run(&self, arguments: &[&str]) -> Output {
            Command::new(env!("CARGO_BIN_EXE_nneinfact"))
                .args(arguments)
                .current_dir(self.folder.path())
                .output()
                .unwrap()
        }

        /// Runs what has to succeed; gives what it said on standard output and standard error.
        fn good(&self, arguments: &[&str]) -> (String, String) {
            let output = self.run(arguments);
            let errors = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{arguments:?}: {errors}");
            (String::from_utf8(output.stdout).unwrap(), errors)
        }

        fn listing(&self) -> Vec<PathBuf> {
            let folder = std::fs::read_dir(self.folder.path()).unwrap();
            let mut all: Vec<PathBuf> = folder.map(|e| e.unwrap().path()).collect();
            all.sort();
            all
        }

        /// Runs what has to be refused: status 2, a message with all of `names`, nothing written.
        fn refused(&self, arguments: &[&str], names: &[&str]) {
            let before = self.listing();
            let output = self.run(arguments);
            let errors = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
            assert!(!errors.contains("panicked"), "{errors}");
            for name in names {
                assert!(errors.contains(name), "`{name}` is not in {arguments:?}: {errors}");
            }
            assert_eq!(self.listing(), before, "{arguments:?}");
        }
    }

    #[test]
    fn a_fit_becomes_a_page_and_a_figure() {
        let bench = Bench::new();
        let (said, _) = bench.good(&["report", "fit.npz"]);
        assert!(said.contains("fit.html"), "{said}");
        let page = bench.read("fit.html");
        document(&page);
        asks_nobody(&page);
        for part in ["Held-out entries", "Convergence", "y.npy", "Components r", "Training loss"] {
            assert!(page.contains(part), "{part}");
        }

        bench.text("i.txt", "# Fruit\na\nb\nc\nd\ne\nlast\n");
        let looks = ["--labels", "i=i.txt", "--labels", "j:Shop", "--upwards", "i,j"];
        let outputs = ["--title", "All & fruit", "--out", "page.html", "--plot", "figure.svg"];
        bench.good(&[&["report", "fit.npz"], &looks[..], &outputs[..]].concat());
        for name in ["page.html", "figure.svg"] {
            let text = bench.read(name);
            document(&text);
            for word in ["Fruit", "Shop", "All &amp; fruit", "last"] {
                assert!(text.contains(word), "{name}: {word}");
            }
        }
        // A figure alone.
        bench.good(&["report", "fit.npz", "--plot", "only.svg"]);
        assert!(bench.path("only.svg").exists() && !bench.path("only.html").exists());

        // In one go with the fit, and the same numbers.
        bench.good(&bench.fit(&["--report", "now.html", "--labels", "i=i.txt", "--quiet"]));
        let now = bench.read("now.html");
        let cells = |page: &str| {
            let at = page.find("<h3>Held-out entries").unwrap();
            page[at..].split("</p>").next().unwrap().to_string()
        };
        assert_eq!(cells(&now), cells(&page));
        assert!(now.contains("Fruit"));
    }

    #[test]
    fn data_that_are_gone_or_elsewhere() {
        let bench = Bench::new();
        let moved =
            |from: &str, to: &str| std::fs::rename(bench.path(from), bench.path(to)).unwrap();
        std::fs::create_dir(bench.path("other")).unwrap();
        moved("y.npy", "other/data.npy");
        let (_, errors) = bench.good(&["report", "fit.npz"]);
        assert!(errors.contains("y.npy") && errors.contains("--data"), "{errors}");
        let page = bench.read("fit.html");
        assert!(page.contains("There are no residuals") && !page.contains("Worst-fitted"));
        let (_, errors) = bench.good(&["report", "fit.npz", "--data", "other/data.npy"]);
        assert!(errors.is_empty(), "{errors}");
        assert!(bench.read("fit.html").contains("Held-out entries"));
        bench.good(&["report", "fit.npz", "--no-data"]);
        assert!(!bench.read("fit.html").contains("Residuals"));
        // Moved together, they are found.
        moved("other/data.npy", "other/y.npy");
        moved("fit.npz", "other/fit.npz");
        bench.good(&["report", "other/fit.npz"]);
        assert!(bench.read("other/fit.html").contains("Held-out entries"));
    }

    #[test]
    fn factors_of_other_programs() {
        let bench = Bench::new();
        let arrays = io::read_npz_arrays(bench.path("fit.npz")).unwrap();
        io::write_npz(bench.path("old.npz"), &arrays).unwrap();
        bench.refused(&["report", "old.npz"], &["old.npz", "fit.json", "--model"]);
        let report = ["report", "old.npz", "--model"];
        bench.refused(&[&report[..], &["ir,jr,kr->ijk"]].concat(), &["theta_3"]);
        bench.good(&[&report[..], &["ir,jr->ij"]].concat());
        let page = bench.read("old.html");
        document(&page);
        assert!(page.contains("--data") && !page.contains("Convergence"));
        let all = ["ir,jr->ij", "--history", "h.json", "--data", "y.npy"];
        bench.good(&[&report[..], &all[..]].concat());
        let page = bench.read("old.html");
        assert!(page.contains("Convergence") && page.contains("totals"));
        // The history says under which loss, and nobody says which cells were held out.
        assert!(page.contains("Worst-fitted") && !page.contains("Held-out entries"));
        // Such a file is a start as it was, and the new one too.
        for name in ["old.npz", "fit.npz"] {
            bench.good(&bench.fit(&["--init", name, "--quiet"]));
        }
    }

    #[test]
    fn bad_arguments_are_refused() {
        let bench = Bench::new();
        bench.text("i.txt", "a\nb\n");
        bench.text("bad.json", "{}");
        bench.text("junk.npz", "junk");
        let refused = |extra: &[&str], names: &[&str]| {
            bench.refused(&[&["report", "fit.npz"], extra].concat(), names);
        };
        bench.refused(&["report"], &["FIT.npz"]);
        bench.refused(&["report", "nowhere.npz"], &["nowhere.npz"]);
        bench.refused(&["report", "y.npy"], &["y.npy", ".npz"]);
        bench.refused(&["report", "junk.npz"], &["junk.npz"]);
        refused(&["--labels", "i=i.txt"], &["i.txt", "2 labels", "6 indices"]);
        refused(&["--labels", "i=no.txt"], &["no.txt"]);
        refused(&["--labels", "r=i.txt"], &["no mode r", "i, j"]);
        refused(&["--labels", "i"], &["--labels", "h=hours.txt"]);
        refused(&["--labels", "i:Row", "--labels", "i=i.txt"], &["twice", "mode i", "i:Name=FILE"]);
        refused(&["--upwards", "x"], &["no mode x"]);
        refused(&["--data", "no.npy"], &["no.npy"]);
        // Text is a table; what has another name is nothing that is known.
        refused(&["--data", "i.txt"], &["i.txt", "a table", "--modes"]);
        bench.text("i.dat", "a\nb\n");
        refused(&["--data", "i.dat"], &["i.dat", ".npy"]);
        refused(&["--key", "Y"], &["--data"]);
        refused(&["--data", "y.npy", "--no-data"], &["--no-data"]);
        refused(&["--history", "bad.json"], &["bad.json", "history"]);
        refused(&["--model", "ir,jr,kr->ijk"], &["ir,jr->ij"]);
        refused(&["--out", "no/page.html"], &["--out", "no"]);
        refused(&["--out", "y.npy", "--data", "y.npy"], &["--out", "replace"]);
        refused(&["--plot", "fit.npz"], &["--plot", "replace"]);
        refused(&["--out", "x.html", "--plot", "x.html"], &["same file"]);

        let refused = |extra: &[&str], names: &[&str]| bench.refused(&bench.fit(extra), names);
        refused(&["--labels", "i=i.txt"], &["--report"]);
        refused(&["--report", "x.html", "--labels", "i=i.txt"], &["2 labels", "6 indices"]);
        refused(&["--report", "x.html", "--labels", "k=i.txt"], &["no mode k"]);
        refused(&["--report", "y.npy"], &["--report", "replace"]);
        refused(&["--report", "x.npz", "--out", "x.npz"], &["same file"]);
    }
}
