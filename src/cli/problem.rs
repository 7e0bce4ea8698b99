//! The arguments that say what to fit and how, which `fit` and `explain` share.

use clap::Args;

use super::args::{self, AlgorithmArg, NumberOrFile, PrecisionArg};
use super::complain;
use super::part_files::PartFiles;
use super::read_data::recorded_path;
use nneinfact_core::data::Part;
use nneinfact_core::error::Result;
use nneinfact_core::loss::{EntryParameter, Loss, LossParameters};
use nneinfact_core::model::{Model, Shapes};
use nneinfact_fit::{EntryParameterRecord, LossRecord, NNEinFact};

/// Model, ranks, loss, algorithm.
#[derive(Debug, Args)]
pub struct ProblemArgs {
    /// The model as an einsum string: the letters of each factor, `->`, the letters of the data,
    /// as in 'wr,hr,dr,ikr,jkr->whdij'
    #[arg(long)]
    pub model: String,

    /// The size of each latent index, as in r=10,k=6
    #[arg(long = "rank", value_name = "LETTER=N", value_delimiter = ',', value_parser = args::rank)]
    pub ranks: Vec<(char, usize)>,

    #[command(flatten)]
    pub loss: LossArgs,

    /// How a sweep goes over the factors
    #[arg(long, value_enum, default_value = "accelerated")]
    pub algorithm: AlgorithmArg,

    /// The type of number that passes over the data compute with
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: PrecisionArg,

    /// The most memory for products of factors that are kept beside data and factors, as in 512MiB
    /// or 2GB [default: a quarter of the data, at least 64 MiB]
    #[arg(long, value_name = "BYTES", value_parser = args::bytes)]
    pub memory_limit: Option<u64>,
}

/// The loss and its parameters.
#[derive(Debug, Args)]
pub struct LossArgs {
    /// The loss: kl, euclidean, itakura-saito, hellinger, reverse-kl, neyman, pearson,
    /// alpha, beta, alpha-beta, negative-binomial, geometric, bernoulli, binomial, jensen-shannon; by
    /// distribution: poisson, gaussian, gamma, exponential, rayleigh, tweedie; or one of your own, as in
    /// 'custom: a = x/y; b = 1; loss = y - x*ln(y); power = -1, 0'
    #[arg(long = "loss", value_name = "NAME", default_value = "kl")]
    pub name: String,

    /// The alpha of the alpha and alpha-beta losses
    #[arg(long, value_name = "A", allow_negative_numbers = true)]
    pub alpha: Option<f64>,

    /// The beta of alpha-beta; of beta itself as Févotte and scikit-learn write it (2 euclidean,
    /// 1 kl, 0 itakura-saito)
    #[arg(long, value_name = "B", allow_negative_numbers = true)]
    pub beta: Option<f64>,

    /// The dispersion of negative-binomial: a number, or a .npy or .npz like the data
    #[arg(long, value_name = "PHI", allow_negative_numbers = true, value_parser = NumberOrFile::parse)]
    pub dispersion: Option<NumberOrFile>,

    /// The number of trials of binomial: a number, or a .npy or .npz like the data
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = NumberOrFile::parse)]
    pub trials: Option<NumberOrFile>,

    /// The power of tweedie: the variance grows as the mean to this power (0 gaussian, 1 poisson, 2 gamma)
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub power: Option<f64>,
}

impl LossArgs {
    /// What a file says of the loss: the name, and where its parameters are.
    pub fn record(&self, loss: &Loss, paths: bool) -> LossRecord {
        let record = |p: &Option<NumberOrFile>| {
            p.as_ref().map(|p| match p {
                NumberOrFile::Number(number) => EntryParameterRecord::Number(*number),
                NumberOrFile::File(path) => EntryParameterRecord::File(recorded_path(path, paths)),
            })
        };
        LossRecord {
            dispersion: record(&self.dispersion),
            trials: record(&self.trials),
            ..LossRecord::of(loss.name())
        }
    }

    /// The loss; reads the files of its parameters, of all data.
    fn loss(&self) -> Result<Loss> {
        self.loss_with(NumberOrFile::entry_parameter)
    }

    /// The loss of the part of the data that a process has.
    pub fn loss_of_part(&self, part: &Part) -> Result<Loss> {
        self.loss_with(|parameter| match parameter {
            NumberOrFile::Number(number) => Ok(EntryParameter::Scalar(*number)),
            NumberOrFile::File(path) => {
                Ok(EntryParameter::Tensor(PartFiles(Some(part)).weights(path, false)?.to_array()))
            }
        })
    }

    fn loss_with(&self, read: impl Fn(&NumberOrFile) -> Result<EntryParameter>) -> Result<Loss> {
        let parameter = |p: &Option<NumberOrFile>| p.as_ref().map(&read).transpose();
        let parameters = LossParameters {
            alpha: self.alpha,
            beta: self.beta,
            dispersion: parameter(&self.dispersion)?,
            trials: parameter(&self.trials)?,
            power: self.power,
        };
        Loss::named(&self.name, &parameters)
    }
}

/// A problem whose arguments were checked as far as that is possible without data.
pub struct CheckedProblem {
    /// The model.
    pub model: Model,
    /// The loss.
    pub loss: Loss,
    /// The settings of the fit so far.
    pub settings: NNEinFact,
}

impl ProblemArgs {
    /// Checks everything that can be checked before data are read, which can take long.
    pub fn check(&self) -> Result<CheckedProblem> {
        let model = Model::parse(&self.model)?;
        // Whatever the data's sizes are, the ranks have to go with the indices.
        Shapes::new(&model, &vec![1; model.output().len()], &self.ranks)?;
        let loss = self.loss.loss()?;
        let settings = self.settings(&loss)?;
        for warning in model.warnings() {
            complain("warning", &warning);
        }
        Ok(CheckedProblem { model, loss, settings })
    }

    /// The settings of the fit so far.
    pub fn settings(&self, loss: &Loss) -> Result<NNEinFact> {
        let mut settings = NNEinFact::new(&self.model)?
            .ranks(self.ranks.iter().copied())
            .loss(loss.clone())
            .algorithm(self.algorithm.into())
            .precision(self.precision.into());
        if let Some(bytes) = self.memory_limit {
            settings = settings.memory_limit(bytes);
        }
        Ok(settings)
    }
}
