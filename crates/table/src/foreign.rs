//! Formats that are not read, and how to convert them.

use std::path::Path;

/// What is said of a stream, or of a file whose name does not tell its format.
#[cfg(feature = "parquet")]
pub(crate) const PARQUET: &str = "Parquet, which cannot be read as it comes, for its description stands at its end: name the file";
#[cfg(not(feature = "parquet"))]
pub(crate) const PARQUET: &str = "Parquet, which is not read (this program was built without the feature parquet, cargo install --path . --features parquet): write it as CSV first, python -c \"import pandas; pandas.read_parquet('FILE').to_csv('FILE.csv.gz', index=False)\"";

/// For files of a format that is not read: a sentence that names it and says how to convert it.
///
/// ```
/// use nneinfact_table::describe_foreign;
///
/// let sentence = describe_foreign("cells.h5ad").unwrap();
/// assert!(sentence.starts_with("cells.h5ad is an AnnData file, which is not read: "));
/// assert_eq!(describe_foreign("events.csv"), None);
/// ```
#[must_use]
pub fn describe_foreign(path: impl AsRef<Path>) -> Option<String> {
    let path = path.as_ref();
    let extension = path.extension()?.to_string_lossy().to_ascii_lowercase();
    let file = path.display().to_string();
    let text = path.to_string_lossy();
    // A quote in the name must not end the text in the command.
    let name = text.replace('\\', "\\\\").replace('\'', "\\'");
    let word = format!("'{}'", text.replace('\'', "'\\''"));
    let python = |code: String| format!("python -c \"{code}\"");
    let (what, command) = match extension.as_str() {
        "h5ad" => (
            "an AnnData file",
            python(format!(
                "import anndata, scipy.sparse as s; s.save_npz('{name}.npz', s.csr_matrix(anndata.read_h5ad('{name}').X))"
            )),
        ),
        "h5" | "hdf5" | "hdf" => (
            "an HDF5 file",
            python(format!(
                "import h5py, numpy; f = h5py.File('{name}'); print(list(f)); numpy.save('{name}.npy', f['NAME'][()])"
            )),
        ),
        "mat" => (
            "a Matlab file",
            python(format!(
                "import scipy.io, numpy; m = scipy.io.loadmat('{name}'); print(list(m)); numpy.save('{name}.npy', m['NAME'])"
            )),
        ),
        "nc" | "nc4" | "cdf" => (
            "a NetCDF file",
            python(format!(
                "import xarray, numpy; d = xarray.open_dataset('{name}'); print(d); numpy.save('{name}.npy', d['NAME'].values)"
            )),
        ),
        "zarr" => (
            "a Zarr store",
            python(format!("import zarr, numpy; numpy.save('{name}.npy', zarr.open('{name}')[:])")),
        ),
        #[cfg(not(feature = "parquet"))]
        "parquet" | "pq" => (
            "a Parquet file",
            python(format!(
                "import pandas; pandas.read_parquet('{name}').to_csv('{name}.csv.gz', index=False)"
            )),
        ),
        "feather" | "arrow" => (
            "an Arrow file",
            python(format!(
                "import pandas; pandas.read_feather('{name}').to_csv('{name}.csv.gz', index=False)"
            )),
        ),
        "xlsx" | "xls" | "ods" => (
            "a spreadsheet",
            python(format!(
                "import pandas; pandas.read_excel('{name}').to_csv('{name}.csv', index=False)"
            )),
        ),
        "rds" => (
            "a file of R",
            format!("Rscript -e \"write.csv(readRDS('{name}'), '{name}.csv', row.names=FALSE)\""),
        ),
        "rda" | "rdata" => (
            "a file of R",
            format!(
                "Rscript -e \"print(load('{name}')); write.csv(NAME, '{name}.csv', row.names=FALSE)\""
            ),
        ),
        "dta" => (
            "a file of Stata",
            python(format!(
                "import pandas; pandas.read_stata('{name}').to_csv('{name}.csv', index=False)"
            )),
        ),
        "sav" | "zsav" => (
            "a file of SPSS",
            python(format!(
                "import pandas; pandas.read_spss('{name}').to_csv('{name}.csv', index=False)"
            )),
        ),
        "sas7bdat" | "xpt" => (
            "a file of SAS",
            python(format!(
                "import pandas; pandas.read_sas('{name}', encoding='utf-8').to_csv('{name}.csv', index=False)"
            )),
        ),
        "json" => (
            "a JSON file",
            python(format!(
                "import pandas; pandas.read_json('{name}').to_csv('{name}.csv', index=False)"
            )),
        ),
        "jsonl" | "ndjson" => (
            "a file of JSON lines",
            python(format!(
                "import pandas; pandas.read_json('{name}', lines=True).to_csv('{name}.csv', index=False)"
            )),
        ),
        "orc" => (
            "an ORC file",
            python(format!(
                "import pandas; pandas.read_orc('{name}').to_csv('{name}.csv.gz', index=False)"
            )),
        ),
        "sqlite" | "sqlite3" | "duckdb" => (
            "a database",
            match extension.starts_with("sqlite") {
                true => format!("sqlite3 -header -csv {word} 'select * from NAME' > {word}.csv"),
                false => format!("duckdb -csv {word} 'select * from NAME' > {word}.csv"),
            },
        ),
        "loom" => (
            "a Loom file",
            python(format!(
                "import anndata, scipy.sparse as s; s.save_npz('{name}.npz', s.csr_matrix(anndata.read_loom('{name}').X))"
            )),
        ),
        "pkl" | "pickle" => (
            "a Python pickle",
            python(format!(
                "import pandas; pandas.read_pickle('{name}').to_csv('{name}.csv', index=False)"
            )),
        ),
        _ => return None,
    };
    Some(format!("{file} is {what}, which is not read: convert it first, {command}"))
}
