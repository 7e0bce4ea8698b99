//! What describes a study, or a fit to several tensors (TOML), as the program reads it; the data that it names
//! are not there.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nneinfact::cli::run;

fuzz_target!(|bytes: &[u8]| {
    let folder = std::env::temp_dir().join(format!("nneinfact-fuzz-{}", std::process::id()));
    let path = folder.join("asked.toml");
    if std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, bytes)).is_err() {
        return;
    }
    let [path, out] = [path, folder.join("out")].map(|path| path.display().to_string());
    for command in ["compare", "fit"] {
        // What is wrong with it is the input's fault, or it is carried out.
        let status = run(["nneinfact", command, &path, "--quiet", "--out", &out]);
        assert!(status <= 2, "{status}");
    }
});
