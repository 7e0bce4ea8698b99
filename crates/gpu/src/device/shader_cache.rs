//! Compiled shaders in files, so that a machine compiles each once.
//!
//! What a driver makes of a shader lies in the user's cache folder, a file for each shader and driver.
//! `NNEINFACT_SHADER_CACHE` names another folder, or is `off`. Nothing depends on it: a file that is
//! missing, damaged, or of another driver is passed over, and one that cannot be written is left out.

use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::program::recording::Shader;

/// The variable that names the folder.
const VARIABLE: &str = "NNEINFACT_SHADER_CACHE";
/// What a file begins with.
const MAGIC: &[u8; 8] = b"nneshdr1";
/// The most bytes of a file: what drivers make of our shaders is some ten kilobytes.
const MOST_BYTES: u64 = 16 << 20;
/// The most files: the oldest go first.
const MOST_FILES: usize = 1024;

/// A folder of compiled shaders for one driver.
#[derive(Clone, Debug)]
pub(crate) struct ShaderCache {
    folder: PathBuf,
    /// The adapter and its driver, and what translates shaders for it.
    driver: String,
}

/// The folder that the environment asks for: `None` where it turns the cache off, or has no place for
/// it. `software` drivers have caches of their own, and use this one only where it is named.
pub(crate) fn folder_of_environment(software: bool) -> Option<PathBuf> {
    chosen(std::env::var_os(VARIABLE), software, |name| std::env::var_os(name))
}

fn chosen(
    named: Option<OsString>,
    software: bool,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Option<PathBuf> {
    if let Some(named) = named.filter(|named| !named.is_empty()) {
        let off = ["off", "0", "no"].iter().any(|off| named.eq_ignore_ascii_case(off));
        return (!off).then(|| PathBuf::from(named));
    }
    if software {
        return None;
    }
    let place = |name: &str| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    // A relative folder would be another one in every working folder.
    let absolute = |path: &PathBuf| path.is_absolute();
    let home = || place("HOME").map(|home| home.join(".cache"));
    let caches = place("XDG_CACHE_HOME")
        .filter(absolute)
        .or_else(|| place("LOCALAPPDATA"))
        .or_else(home)
        .filter(absolute)?;
    Some(caches.join("nneinfact").join("shaders"))
}

fn digest(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

impl ShaderCache {
    /// That of an adapter in a folder.
    pub fn new(folder: PathBuf, adapter: &wgpu::AdapterInfo) -> ShaderCache {
        let driver = format!(
            "{}-{:x}-{:x} {} {} {}",
            adapter.backend,
            adapter.vendor,
            adapter.device,
            adapter.driver,
            adapter.driver_info,
            env!("CARGO_PKG_VERSION"),
        );
        ShaderCache { folder, driver }
    }

    fn path(&self, shader: &Shader) -> PathBuf {
        let (driver, text) = (digest(&self.driver), digest((&shader.source, &shader.bindings)));
        self.folder.join(format!("{driver:016x}-{text:016x}.bin"))
    }

    /// What was kept of a shader.
    pub fn find(&self, shader: &Shader) -> Option<Vec<u8>> {
        let path = self.path(shader);
        let size = std::fs::metadata(&path).ok()?.len();
        if size > MOST_BYTES {
            return None;
        }
        let bytes = std::fs::read(path).ok()?;
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (sum, data) = rest.split_first_chunk::<8>()?;
        (magic == MAGIC && u64::from_le_bytes(*sum) == digest(data)).then(|| data.to_vec())
    }

    /// Keeps what a driver made of a shader, as far as that can be done: whole or not at all.
    pub fn keep(&self, shader: &Shader, data: &[u8]) {
        // Whatever goes wrong, the next fit compiles the shader again.
        let _ = self.written(shader, data);
    }

    fn written(&self, shader: &Shader, data: &[u8]) -> std::io::Result<()> {
        make_folder(&self.folder)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(MAGIC)?;
        file.write_all(&digest(data).to_le_bytes())?;
        file.write_all(data)?;
        file.persist(self.path(shader)).map_err(|e| e.error)?;
        drop_oldest(&self.folder, MOST_FILES)
    }
}

/// Makes a folder that is its owner's alone: drivers trust what they are given.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Removes the oldest shaders, so that no more than some are kept.
fn drop_oldest(folder: &Path, most: usize) -> std::io::Result<()> {
    let ours = |path: &Path| path.extension().is_some_and(|e| e == "bin");
    let mut files: Vec<_> = std::fs::read_dir(folder)?
        .flatten()
        .filter(|entry| ours(&entry.path()))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    files.sort();
    let spare = files.len().saturating_sub(most);
    files.iter().take(spare).try_for_each(|(_, path)| std::fs::remove_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::recording::Access;

    fn shader(source: &str) -> Shader {
        Shader {
            label: "test".into(),
            source: source.into(),
            bindings: vec![Access::Read],
            invocations: 64,
            workgroup_bytes: 0,
        }
    }

    fn cache(folder: &Path, driver: &str) -> ShaderCache {
        ShaderCache { folder: folder.join("deeper").join("down"), driver: driver.into() }
    }

    #[test]
    fn files_are_found_by_shader_and_driver() {
        let folder = tempfile::tempdir().unwrap();
        let own = cache(folder.path(), "one");
        assert_eq!(own.find(&shader("a")), None);
        own.keep(&shader("a"), b"machine code");
        assert_eq!(own.find(&shader("a")).as_deref(), Some(&b"machine code"[..]));
        assert_eq!(own.find(&shader("b")), None);
        assert_eq!(cache(folder.path(), "two").find(&shader("a")), None);
        own.keep(&shader("a"), b"better code");
        assert_eq!(own.find(&shader("a")).as_deref(), Some(&b"better code"[..]));
        // Nothing else is left there.
        assert_eq!(std::fs::read_dir(&own.folder).unwrap().count(), 1);
    }

    #[test]
    fn damaged_files_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let own = cache(folder.path(), "one");
        own.keep(&shader("a"), b"machine code");
        let path = own.path(&shader("a"));
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            assert_eq!(own.find(&shader("a")), None, "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(own.find(&shader("a")), None, "{at} bytes");
        }
        std::fs::write(&path, &whole).unwrap();
        assert!(own.find(&shader("a")).is_some());
        // A folder that cannot be made is no failure.
        std::fs::write(folder.path().join("file"), "").unwrap();
        let none = ShaderCache { folder: folder.path().join("file"), driver: "one".into() };
        none.keep(&shader("a"), b"machine code");
        assert_eq!(none.find(&shader("a")), None);
    }

    #[test]
    fn the_oldest_files_go() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.bin", "b.bin", "c.bin", "other.txt"] {
            std::fs::write(folder.path().join(name), name).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        drop_oldest(folder.path(), 2).unwrap();
        let left = |name: &str| folder.path().join(name).exists();
        assert!(!left("a.bin") && left("b.bin") && left("c.bin") && left("other.txt"));
    }

    #[test]
    fn the_environment_chooses_the_folder() {
        let variables = |name: &str| (name == "HOME").then(|| OsString::from("/home/user"));
        let given = |named: &str, software| chosen(Some(named.into()), software, variables);
        assert_eq!(given("off", false), None);
        assert_eq!(given("0", false), None);
        assert_eq!(given("there", true), Some(PathBuf::from("there")));
        assert_eq!(chosen(None, true, variables), None);
        let usual = PathBuf::from("/home/user/.cache/nneinfact/shaders");
        assert_eq!(chosen(None, false, variables), Some(usual.clone()));
        assert_eq!(given("", false), Some(usual));
        assert_eq!(chosen(None, false, |_| None), None);
    }
}
