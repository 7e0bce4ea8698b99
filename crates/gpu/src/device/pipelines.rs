//! Shaders as a device has them: compiled once, and kept.

use std::sync::Arc;

use super::handle::{DeviceFault, Gpu, Pipeline, lock};
use crate::program::recording::{Access, Shader};
use nneinfact_core::error::{Error, Result};

/// Compiled shaders that are kept for the next fit although no fit uses them now.
const KEPT: usize = 256;

impl Gpu {
    /// The shader, compiled now or before.
    ///
    /// # Errors
    /// [`Error::DeviceFailed`] with what the compiler says; the source is saved to a file.
    pub(crate) fn pipeline(&self, shader: &Shader) -> Result<Arc<Pipeline>> {
        // Before the cache is locked, as it is where shaders are taken out of it.
        let _lock = self.driver_lock();
        if let Some(pipeline) = lock(self.compiled_shaders()).get(shader) {
            return Ok(Arc::clone(pipeline));
        }
        let found = self.shader_cache().and_then(|cache| cache.find(shader));
        let pipeline = match self.guarded(|| self.compile(shader, found.as_deref())) {
            Ok((pipeline, made)) => {
                if let (Some(cache), Some(made), None) = (self.shader_cache(), made, &found) {
                    cache.keep(shader, &made);
                }
                #[cfg(debug_assertions)]
                dump(shader);
                Arc::new(pipeline)
            }
            Err(DeviceFault::Said(message)) => {
                self.alive()?;
                return Err(self.miscompiled(shader, &message));
            }
            Err(fault) => {
                return Err(self.failed(&format!("compiling `{}`", shader.label), fault));
            }
        };
        let mut pipelines = lock(self.compiled_shaders());
        if pipelines.len() >= KEPT {
            pipelines.retain(|_, pipeline| Arc::strong_count(pipeline) > 1);
        }
        Ok(Arc::clone(pipelines.entry(shader.clone()).or_insert(pipeline)))
    }

    /// Compiles a shader, with what was kept of it, if anything was; and what is to be kept now.
    fn compile(&self, shader: &Shader, found: Option<&[u8]>) -> (Pipeline, Option<Vec<u8>>) {
        let device = self.device();
        let label = Some(shader.label.as_str());
        let cache = self.shader_cache().map(|_| {
            // SAFETY: the data are what a cache of the same driver gave: the file is named by it and
            // holds a digest of them, and wgpu and the driver look at the heads that they wrote.
            unsafe {
                device.create_pipeline_cache(&wgpu::PipelineCacheDescriptor {
                    label,
                    data: found,
                    fallback: true,
                })
            }
        });
        let source = wgpu::ShaderModuleDescriptor {
            label,
            source: wgpu::ShaderSource::Wgsl(shader.source.as_str().into()),
        };
        let checks = wgpu::ShaderRuntimeChecks {
            force_loop_bounding: false,
            int_div_checks: false,
            ..wgpu::ShaderRuntimeChecks::checked()
        };
        // SAFETY: the shaders are the templates of this crate: their loops count to uniforms that do
        // not change meanwhile, by steps of at least 1, and they divide by sizes of indices, which
        // are at least 1, and by constants. What users give (losses) becomes expressions, which have
        // no loops and no integers. A counter in every loop would keep drivers from unrolling it.
        let module = unsafe { device.create_shader_module_trusted(source, checks) };
        let entries: Vec<wgpu::BindGroupLayoutEntry> = (0..)
            .zip(&shader.bindings)
            .map(|(binding, access)| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: match access {
                        Access::Uniform => wgpu::BufferBindingType::Uniform,
                        Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
                        Access::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
                    },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label,
            entries: &entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Kernels write workgroup memory before they read it.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: cache.as_ref(),
        });
        let made = cache.filter(|_| found.is_none()).and_then(|cache| cache.get_data());
        (Pipeline { layout, pipeline }, made)
    }

    fn miscompiled(&self, shader: &Shader, message: &str) -> Error {
        let saved = match save(shader) {
            Ok(path) => format!("its source is in {}", path.display()),
            Err(error) => format!("its source could not be saved ({error})"),
        };
        Error::DeviceFailed(format!(
            "the generated shader `{}` does not compile for {} (a fault in nneinfact or the driver: \
             please report it with the shader; --device cpu is not affected); {saved}:\n{message}",
            shader.label,
            self.name(),
        ))
    }
}

/// Saves the source under a name that nobody can guess, so that it cannot overwrite anything.
fn save(shader: &Shader) -> std::io::Result<std::path::PathBuf> {
    let mut file = tempfile::Builder::new()
        .prefix(&format!("nneinfact-{}-", file_name(shader)))
        .suffix(".wgsl")
        .tempfile()?;
    std::io::Write::write_all(&mut file, shader.source.as_bytes())?;
    let (_, path) = file.keep().map_err(|e| e.error)?;
    Ok(path)
}

/// The label of a shader, as a part of the name of a file.
fn file_name(shader: &Shader) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    shader.label.chars().map(plain).take(40).collect()
}

/// Leaves the shaders of a run of the tests where `.ci/second-opinion` looks at them.
#[cfg(debug_assertions)]
fn dump(shader: &Shader) {
    use std::hash::{DefaultHasher, Hash, Hasher};

    if let Some(folder) = std::env::var_os("NNEINFACT_DUMP_SHADERS") {
        let mut hasher = DefaultHasher::new();
        shader.hash(&mut hasher);
        let name = format!("{}-{:016x}.wgsl", file_name(shader), hasher.finish());
        let path = std::path::Path::new(&folder).join(name);
        if let Err(error) = std::fs::write(&path, &shader.source) {
            eprintln!("NNEINFACT_DUMP_SHADERS: {}: {error}", path.display());
        }
    }
}
