//! A program that has a GPU device for its own purposes, and fits on it too.
//!
//! Run with `cargo run --example own_device`. Where there is no GPU, not even a software one, that is
//! an error; `NNEINFACT_NO_GPU=1` says that it is known.

#[cfg(feature = "gpu")]
mod with_gpu {
    use std::error::Error;

    use ndarray::Array2;
    use nneinfact::{Device, NNEinFact, wgpu};

    /// Opens a device as any program does that draws or computes with wgpu.
    fn open() -> Result<(wgpu::Device, wgpu::Queue), Box<dyn Error>> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            // Not OpenGL, which takes long to compile compute shaders.
            backends: wgpu::Backends::PRIMARY,
            ..wgpu::InstanceDescriptor::new_without_display_handle_from_env()
        });
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        let adapter = pollster::block_on(instance.request_adapter(&options))
            .map_err(|error| format!("there is no GPU for this example: {error}"))?;
        // What is not asked for cannot be used: the defaults work, and hold less.
        let request =
            wgpu::DeviceDescriptor { required_limits: adapter.limits(), ..Default::default() };
        Ok(pollster::block_on(adapter.request_device(&request))?)
    }

    /// The program's own work: squares numbers on the device.
    fn squares(device: &wgpu::Device, queue: &wgpu::Queue) -> Result<Vec<f32>, Box<dyn Error>> {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("squares"),
            source: wgpu::ShaderSource::Wgsl(
                "@group(0) @binding(0) var<storage, read_write> x: array<f32>;
                @compute @workgroup_size(8)
                fn main(@builtin(global_invocation_id) id: vec3<u32>) {
                    x[id.x] = f32(id.x * id.x);
                }"
                .into(),
            ),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some("squares"),
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: None,
        });
        let buffer = |usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 32,
                usage,
                mapped_at_creation: false,
            })
        };
        let numbers = buffer(wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC);
        let result = buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: numbers.as_entire_binding() }],
        });
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
        drop(pass);
        encoder.copy_buffer_to_buffer(&numbers, 0, &result, 0, 32);
        queue.submit([encoder.finish()]);
        let (tell, told) = std::sync::mpsc::channel();
        result.map_async(wgpu::MapMode::Read, .., move |outcome| {
            // Nobody listens any more only where this function has failed.
            let _ = tell.send(outcome);
        });
        device.poll(wgpu::PollType::wait_indefinitely())?;
        told.recv()??;
        let bytes = result.get_mapped_range(..)?.to_vec();
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    pub fn run() -> Result<(), Box<dyn Error>> {
        if std::env::var("NNEINFACT_NO_GPU").is_ok_and(|v| v == "1") {
            println!("skipped: NNEINFACT_NO_GPU=1");
            return Ok(());
        }
        let (device, queue) = open()?;
        println!("opened {}", device.adapter_info().name);

        // The handles are cheap to clone, and the device stays the program's.
        let gpu = Device::from_wgpu(device.clone(), queue.clone())?;
        let y = Array2::from_shape_fn((60, 40), |(i, j)| ((i + 1) * (j % 5 + 1) % 7) as f32);
        let fit = NNEinFact::new("ir,jr->ij")?.ranks([('r', 3)]).device(gpu).fit(&y)?;
        println!(
            "{} sweeps: the loss fell from {:.4} to {:.4}",
            fit.history().iterations,
            fit.history().loss[0],
            fit.history().last_loss()
        );

        // The fit has left; the device goes on.
        let found = squares(&device, &queue)?;
        println!("then the program's own work: {found:?}");
        if found != [0.0, 1.0, 4.0, 9.0, 16.0, 25.0, 36.0, 49.0] {
            return Err("these are not the squares".into());
        }
        Ok(())
    }
}

#[cfg(feature = "gpu")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    with_gpu::run()
}

#[cfg(not(feature = "gpu"))]
fn main() {
    println!("skipped: built without the feature `gpu`");
}
