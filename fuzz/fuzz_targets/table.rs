//! Tables: the first line says how, what follows is the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nneinfact::io::Table;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |&byte| byte == b'\n');
    let modes = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let text = parts.next().unwrap_or_default();
    let table = |modes: &str| Table::from_reader(text, "t.csv").memory_limit(64 << 20).modes(modes);
    for modes in [modes.as_str(), "hour(a),bin(b,3),top(c,2,other)", "a,date(b),round(c,1)"] {
        let Ok(table) = table(modes) else { continue };
        if let Ok(tensor) = table.skip_bad(true).read() {
            assert!(tensor.coords.iter().all(|list| list.len() == tensor.values.len()));
            let _ = tensor.observations();
        }
    }
});
