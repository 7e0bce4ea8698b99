//! What a fit is, so that a checkpoint is resumed by the same fit only.

use serde::{Deserialize, Serialize};

use crate::constraints::Constraints;
use crate::device::Device;
use crate::settings::{Balance, Settings, Start};
use nneinfact_core::data::{Fingerprint, digest};
use nneinfact_core::loss::Loss;
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::Plan;

/// What a fit is, apart from how far it goes: pairs of what and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Identity(Vec<(String, String)>);

impl Identity {
    /// The name of the loss.
    pub fn loss(&self) -> &str {
        self.0.iter().find(|(what, _)| what == "loss").map_or("", |(_, how)| how)
    }

    /// The floor of ŷ, where one was asked for.
    pub fn prediction_floor(&self) -> Option<f64> {
        self.0.iter().find(|(what, _)| what == "prediction floor")?.1.parse().ok()
    }

    /// That of the fit to be, before its start is taken out of the settings.
    pub fn new(
        settings: &Settings,
        data: Fingerprint,
        constraints: &Constraints,
        plan: &Plan,
        device: &Device,
    ) -> Identity {
        let shapes = plan.shapes();
        let mut list = Identity::data(settings, shapes, data);
        let passes =
            if plan.sparse_passes().is_empty() { "over all cells" } else { "over a list of cells" };
        list.push(("form of the data".into(), passes.into()));
        list.extend(Identity::fit(settings, shapes, constraints, plan.cut(), device));
        Identity(list)
    }

    /// From pairs of what and how.
    pub fn of(list: Vec<(String, String)>) -> Identity {
        Identity(list)
    }

    /// What a tensor is, and how it is fitted. These phrases, and those of [`fit`](Self::fit), are in files:
    /// another wording would make the fit of an older file another fit.
    pub fn data(settings: &Settings, shapes: &Shapes, data: Fingerprint) -> Vec<(String, String)> {
        let model = shapes.model();
        let mut list = Vec::new();
        let mut add = |what: &str, how: String| list.push((what.to_string(), how));
        add("model", model.to_string());
        add("shape of the data", format!("{:?}", shapes.data()));
        let ranks = model.latent().iter().map(|x| format!("{x}={}", shapes.size(x)));
        add("ranks", ranks.collect::<Vec<String>>().join(","));
        add("values of the data", fingerprint(data.values));
        add("missing and withheld entries", fingerprint(data.roles));
        add("weights of the data", fingerprint(data.weights));
        add("loss", settings.loss.name().to_string());
        add("expressions of the loss", fingerprint(of_loss(&settings.loss)));
        list
    }

    /// How a fit goes; `groups` is the division of the factors into groups.
    pub fn fit(
        settings: &Settings,
        shapes: &Shapes,
        constraints: &Constraints,
        groups: String,
        device: &Device,
    ) -> Vec<(String, String)> {
        let model = shapes.model();
        let mut list = Vec::new();
        let mut add = |what: &str, how: String| list.push((what.to_string(), how));
        add("algorithm", settings.algorithm.name().into());
        add("division into groups", groups);
        add("precision", settings.precision.name().into());
        add("device", device.kind_name().into());
        add("start", start(settings));
        for l in 0..model.factors().len() {
            add(&format!("factor {} ({})", l + 1, model.factor_name(l)), constraints.describe(l));
        }
        let balance = match settings.balance.unwrap_or_default() {
            _ if !constraints.is_penalized() => "no penalties",
            Balance::Never => "never",
            Balance::AtStart => "at the start",
            Balance::EverySweep => "every sweep",
        };
        add("balancing", balance.into());
        let or_default = |x: Option<String>| x.unwrap_or_else(|| "the default".into());
        add("prediction floor", or_default(settings.prediction_floor.map(|x| x.to_string())));
        add("factor floor", settings.factor_floor.to_string());
        add("number of inner cycles", settings.inner_cycles.to_string());
        add("number of sweeps from look to look", settings.eval_every.to_string());
        add("early stopping", if settings.early_stopping { "on" } else { "off" }.into());
        add("memory limit", or_default(settings.memory_limit.map(|n| n.to_string())));
        list
    }

    /// The same with something else that a fit is.
    pub fn with(mut self, what: &str, how: String) -> Identity {
        self.0.push((what.into(), how));
        self
    }

    /// What is not the same, a phrase each.
    pub fn differences(&self, here: &Identity) -> Vec<String> {
        let of = |list: &Identity, what: &str| {
            let found = list.0.iter().find(|(other, _)| other == what);
            found.map_or_else(|| "not known".to_string(), |(_, how)| how.clone())
        };
        let new = here.0.iter().filter(|(what, _)| !self.0.iter().any(|(other, _)| other == what));
        let all = self.0.iter().chain(new);
        all.map(|(what, _)| (what, of(self, what), of(here, what)))
            .filter(|(_, there, here)| there != here)
            .map(|(what, there, here)| format!("{what}: {there} in the file, {here} here"))
            .collect()
    }
}

fn fingerprint(x: u64) -> String {
    format!("fingerprint {x:016x}")
}

fn of_loss(loss: &Loss) -> u64 {
    let text = format!("{} | {} | {} | {:?}", loss.a(), loss.b(), loss.loss(), loss.majorizer());
    let parameters =
        loss.entry_parameters().iter().flat_map(|parameter| parameter.iter().map(|x| x.to_bits()));
    digest(
        text.bytes().map(u64::from).chain([loss.curvature_constant().to_bits()]).chain(parameters),
    )
}

fn start(settings: &Settings) -> String {
    let Settings { seed, starts, .. } = settings;
    let of = match starts {
        1 => format!("seed {seed}"),
        n => format!("the best of {n} from seed {seed} on"),
    };
    match &settings.start {
        Start::Random => format!("random, {of}"),
        Start::Gamma { shape } => format!("gamma of shape {shape}, {of}"),
        Start::Svd => format!("svd, {of}"),
        Start::Grown(_) => format!("grown, {of}"),
        // The file that they came from may be the one that the interrupted fit wrote.
        Start::Factors(_) => "given factors".into(),
    }
}
