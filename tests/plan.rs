//! The planner over a corpus of models, as snapshots.

use nneinfact::model::{Model, Shapes};
use nneinfact::plan::{DataInfo, Plan, Settings};

#[test]
fn show() {
    for (m, shape, ranks) in [
        ("wr,dr,hr,irk,jrk->wdhij", vec![27usize, 7, 24, 100, 100], vec![('r', 10usize), ('k', 6)]),
        ("wr,hr,dr,ikr,jkr->whdij", vec![27, 24, 7, 100, 100], vec![('r', 10), ('k', 6)]),
        ("ij,ja,ia->ija", vec![300, 300, 300], vec![]),
        ("ijr,jkr,ikr->ijk", vec![300, 300, 300], vec![('r', 5)]),
        ("ic,je,af,cef->ija", vec![200, 200, 200], vec![('c', 8), ('e', 9), ('f', 10)]),
        ("ar,br,cr,dr,er,fr->abcdef", vec![20; 6], vec![('r', 8)]),
    ] {
        let model = Model::parse(m).unwrap();
        let shapes = Shapes::new(&model, &shape, &ranks).unwrap();
        let plan = Plan::new(&shapes, &DataInfo::c_order(&shapes, 2), &Settings{memory: 64<<20, ..Settings::default()}).unwrap();
        println!("{plan}\n");
    }
}
