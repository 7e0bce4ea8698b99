//! The runtime on small programs made by hand, and every way in which it can fail.

use crate::device::adapter::Wanted;
use crate::device::driver_lock::{DriverLock, LockOnDrop, UnlockOnDrop};
use crate::device::handle::Gpu;
use crate::device::runtime::LoadedProgram;
use crate::program::recording::{
    Access, Binding, Buffer, BufferId, BufferKind, Command, Dispatch, DispatchKind, FirstUse,
    GpuLimits, Program, Recording, RecordingId, Shader, ShaderId, Window,
};
use crate::tests::jobs::{gpu, own};
use nneinfact_core::error::{Error, Result};

fn storage(label: &str, content: &[f32], count: usize) -> Buffer {
    Buffer {
        label: label.into(),
        bytes: 4 * count as u64,
        kind: BufferKind::Storage,
        content: bytemuck::cast_slice(content).to_vec(),
        first_use: FirstUse::Read,
    }
}

/// Multiplies what lies in binding 0 by a factor, through the number of workgroups in any folding.
fn scaling(factor: f32) -> Shader {
    Shader {
        label: format!("times {factor}"),
        source: format!(
            "@group(0) @binding(0) var<storage, read_write> x: array<f32>;
            @compute @workgroup_size(64)
            fn main(
                @builtin(workgroup_id) group: vec3<u32>,
                @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) local: u32,
            ) {{
                let i = (group.x + groups.x * (group.y + groups.y * group.z)) * 64u + local;
                if i < arrayLength(&x) {{ x[i] *= {factor:?}; }}
            }}"
        ),
        bindings: vec![Access::ReadWrite],
        invocations: 64,
        workgroup_bytes: 0,
    }
}

fn dispatch_of(shader: usize, windows: Vec<Window>, workgroups: [u32; 3], work: f64) -> Command {
    let bindings = windows.into_iter().map(Binding::Part).collect();
    let (shader, kind) = (ShaderId(shader), DispatchKind::Data);
    Command::Dispatch(Dispatch { shader, kind, bindings, workgroups, work })
}

fn dispatch(shader: usize, bindings: Vec<Window>, workgroups: [u32; 3]) -> Command {
    dispatch_of(shader, bindings, workgroups, 1.0)
}

fn whole(buffer: usize, count: usize) -> Window {
    Window { buffer: BufferId(buffer), offset: 0, bytes: 4 * count as u64 }
}

fn recording(label: &str, commands: Vec<Command>) -> Recording {
    Recording { label: label.into(), commands }
}

/// Doubles `count` numbers, which are 0, 1, 2, … at first.
fn doubling(count: usize) -> Program {
    let numbers: Vec<f32> = (0..count).map(|i| i as f32).collect();
    let groups = count.div_ceil(64) as u32;
    Program {
        buffers: vec![storage("numbers", &numbers, count)],
        shaders: vec![scaling(2.0)],
        recordings: vec![recording(
            "double",
            vec![dispatch(0, vec![whole(0, count)], [groups, 1, 1])],
        )],
    }
}

fn read(loaded: &LoadedProgram, buffer: usize, count: usize) -> Vec<f32> {
    let bytes = loaded.read(BufferId(buffer), 0, 4 * count as u64).unwrap();
    bytemuck::pod_collect_to_vec(&bytes)
}

const RUN: RecordingId = RecordingId(0);

#[test]
fn numbers_are_doubled() {
    let Some(gpu) = gpu() else { return };
    let loaded = gpu.load(doubling(1000)).unwrap();
    loaded.run(RUN).unwrap();
    loaded.run(RUN).unwrap();
    loaded.run(RUN).unwrap();
    let expected: Vec<f32> = (0..1000).map(|i| 8.0 * i as f32).collect();
    assert_eq!(read(&loaded, 0, 1000), expected);
    // What is written is seen by what runs next, and by it only.
    loaded.write(BufferId(0), 8, bytemuck::bytes_of(&[5f32])).unwrap();
    loaded.run(RUN).unwrap();
    loaded.write(BufferId(0), 12, bytemuck::bytes_of(&[7f32])).unwrap();
    assert_eq!(read(&loaded, 0, 5), [0.0, 16.0, 10.0, 7.0, 64.0]);
    loaded.wait().unwrap();
    assert_eq!(gpu.stray(), None);
}

#[test]
fn windows_uniforms_copies_and_clears() {
    let Some(gpu) = gpu() else { return };
    let align = gpu.limits().storage_align as usize;
    let stride = align / 4;
    let shader = Shader {
        label: "add".into(),
        source: "struct Size { count: u32, shift: f32, rest: vec2<u32> }
            @group(0) @binding(0) var<uniform> size: Size;
            @group(0) @binding(1) var<storage, read> given: array<f32>;
            @group(0) @binding(2) var<storage, read_write> to: array<f32>;
            @compute @workgroup_size(16)
            fn main(@builtin(global_invocation_id) at: vec3<u32>) {
                if at.x < size.count { to[at.x] += given[at.x] + size.shift; }
            }"
        .into(),
        bindings: vec![Access::Uniform, Access::Read, Access::ReadWrite],
        invocations: 16,
        workgroup_bytes: 0,
    };
    let mut from = vec![0f32; 2 * stride];
    from[stride..stride + 4].copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
    let uniform = Buffer {
        label: "size".into(),
        bytes: 16,
        kind: BufferKind::Uniform,
        content: [3u32.to_le_bytes(), 0.5f32.to_le_bytes()].concat(),
        first_use: FirstUse::Read,
    };
    let windows = vec![
        Window { buffer: BufferId(0), offset: 0, bytes: 16 },
        Window { buffer: BufferId(1), offset: align as u64, bytes: 16 },
        whole(2, 4),
    ];
    let add = || dispatch(0, windows.clone(), [1, 1, 1]);
    let program = Program {
        buffers: vec![
            uniform,
            storage("from", &from, 2 * stride),
            storage("to", &[], 4),
            storage("kept", &[9.0; 4], 4),
        ],
        shaders: vec![shader],
        recordings: vec![recording(
            "add, keep, clear, add",
            vec![
                add(),
                add(),
                Command::Copy {
                    from: BufferId(2),
                    from_offset: 4,
                    to: BufferId(3),
                    to_offset: 0,
                    bytes: 8,
                },
                Command::Clear { buffer: BufferId(2), offset: 0, bytes: 8 },
                add(),
            ],
        )],
    };
    let loaded = gpu.load(program).unwrap();
    loaded.run(RUN).unwrap();
    assert_eq!(read(&loaded, 2, 4), [1.5, 2.5, 10.5, 0.0]);
    assert_eq!(read(&loaded, 3, 4), [5.0, 7.0, 9.0, 9.0]);
    // Content that is shorter than its buffer, and not a whole word.
    let mut program = doubling(4);
    program.buffers[0].content = vec![0, 0, 128, 63, 0, 0];
    let loaded = gpu.load(program).unwrap();
    assert_eq!(read(&loaded, 0, 4), [1.0, 0.0, 0.0, 0.0]);
    assert_eq!(gpu.stray(), None);
}

#[test]
fn folded_dispatches_reach_everything_once() {
    let Some(gpu) = gpu() else { return };
    let count = 64 * 7 * 5 * 3 - 10;
    let mut program = doubling(count);
    program.recordings = vec![
        recording("folded", vec![dispatch(0, vec![whole(0, count)], [7, 5, 3])]),
        // More workgroups than one dimension takes.
        recording("long", vec![dispatch(0, vec![whole(0, count)], [65_535, 2, 1])]),
        recording("nothing", vec![dispatch(0, vec![whole(0, count)], [0, 1, 1])]),
    ];
    let loaded = gpu.load(program).unwrap();
    for n in 0..3 {
        loaded.run(RecordingId(n)).unwrap();
    }
    let expected: Vec<f32> = (0..count).map(|i| 4.0 * i as f32).collect();
    assert_eq!(read(&loaded, 0, count), expected);
}

#[test]
fn many_submissions_keep_their_order() {
    let Some(gpu) = gpu() else { return };
    let mut program = doubling(64);
    program.buffers[0] = storage("numbers", &[1.0; 64], 64);
    program.shaders.push(Shader {
        source: program.shaders[0].source.replace("*= 2.0", "+= 1.0"),
        label: "plus 1".into(),
        ..program.shaders[0].clone()
    });
    let step = |shader, work| dispatch_of(shader, vec![whole(0, 64)], [1, 1, 1], work);
    // Each of the first is too much for a submission, the others go together.
    program.recordings = vec![
        recording("heavy", vec![step(0, 1e12), step(1, 1e12), step(0, 1e12), step(1, 0.0)]),
        recording("light", vec![step(1, 1.0), step(0, 1.0)]),
    ];
    let loaded = gpu.load(program).unwrap();
    let mut expected = 1u32;
    for n in 0..100 {
        loaded.run(RecordingId(0)).unwrap();
        loaded.run(RecordingId(1)).unwrap();
        expected = expected.wrapping_mul(2).wrapping_add(1) * 2 + 1;
        expected = (expected + 1) * 2;
        if expected > 1 << 20 {
            assert_eq!(read(&loaded, 0, 64), [expected as f32; 64], "round {n}");
            loaded.write(BufferId(0), 0, bytemuck::cast_slice(&[1f32; 64])).unwrap();
            expected = 1;
        }
    }
    assert_eq!(gpu.stray(), None);
}

#[test]
fn large_uploads_and_reads_go_in_pieces() {
    let Some(gpu) = gpu() else { return };
    // 160 MiB and a bit: several pieces each way, and a wait in between.
    let count = (160 << 18) + 17;
    if 4 * count as u64 > gpu.limits().buffer_bytes {
        panic!("this device takes no buffer of 160 MiB");
    }
    let numbers: Vec<u32> = (0..count as u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
    let program = Program {
        buffers: vec![Buffer {
            label: "large".into(),
            bytes: 4 * count as u64,
            kind: BufferKind::Storage,
            content: bytemuck::cast_slice(&numbers).to_vec(),
            first_use: FirstUse::Read,
        }],
        ..Program::default()
    };
    let loaded = gpu.load(program).unwrap();
    let back = loaded.read(BufferId(0), 0, 4 * count as u64).unwrap();
    assert!(back == bytemuck::cast_slice::<u32, u8>(&numbers));
    let tail = loaded.read(BufferId(0), 4 * (count as u64 - 3), 12).unwrap();
    assert_eq!(tail, bytemuck::cast_slice::<u32, u8>(&numbers[count - 3..]));
}

#[test]
fn loads_on_one_device_share_its_shaders() {
    let Some(gpu) = own() else { return };
    let first = gpu.load(doubling(100)).unwrap();
    assert_eq!(gpu.compiled(), 1);
    let second = gpu.clone().load(doubling(300)).unwrap();
    assert_eq!(gpu.compiled(), 1);
    let mut other = doubling(100);
    other.shaders[0] = scaling(3.0);
    let other = gpu.load(other).unwrap();
    assert_eq!(gpu.compiled(), 2);
    for loaded in [&first, &second, &other] {
        loaded.run(RUN).unwrap();
    }
    drop(first);
    assert_eq!(read(&second, 0, 300)[299], 598.0);
    assert_eq!(read(&other, 0, 100)[99], 297.0);
}

#[test]
fn profiles_have_a_time_for_every_dispatch() {
    let Some(gpu) = gpu() else { return };
    let mut program = doubling(64);
    let double = program.recordings[0].commands[0].clone();
    let clear = Command::Clear { buffer: BufferId(0), offset: 0, bytes: 4 };
    // More than one set of timestamps holds.
    let mut commands = vec![clear; 2];
    commands.extend(vec![double; 1030]);
    program.recordings.push(recording("much", commands));
    program.recordings.push(recording("nothing", vec![]));
    program.recordings[1].commands.truncate(1032);
    let loaded = gpu.load(program).unwrap();
    match loaded.profile(RecordingId(1)).unwrap() {
        Some(seconds) => {
            assert_eq!(seconds.len(), 1030);
            assert!(seconds.iter().all(|s| *s >= 0.0 && s.is_finite()));
        }
        None => assert!(!gpu.info().timestamps),
    }
    assert!(loaded.profile(RecordingId(2)).unwrap().is_none_or(|s| s.is_empty()));
    assert_eq!(read(&loaded, 0, 1), [0.0]);
    assert_eq!(gpu.stray(), None);
}

#[test]
fn workers_may_use_one_device_at_once() {
    let Some(gpu) = gpu() else { return };
    std::thread::scope(|scope| {
        for n in 1..4 {
            let gpu = gpu.clone();
            scope.spawn(move || {
                let loaded = gpu.load(doubling(64 * n)).unwrap();
                for round in 1..20 {
                    loaded.run(RUN).unwrap();
                    assert_eq!(read(&loaded, 0, 2)[1], (1u32 << round) as f32);
                }
            });
        }
    });
    assert_eq!(gpu.stray(), None);
}

#[test]
fn threads_may_open_use_and_drop_devices_at_once() {
    let Some(_) = gpu() else { return };
    std::thread::scope(|scope| {
        for n in 1..4 {
            scope.spawn(move || {
                let gpu = own().unwrap();
                let mut program = doubling(64 * n);
                program.shaders[0] = scaling(n as f32);
                let loaded = gpu.load(program).unwrap();
                loaded.run(RUN).unwrap();
                assert_eq!(read(&loaded, 0, 3)[2], 2.0 * n as f32);
                assert_eq!(gpu.stray(), None);
            });
        }
    });
}

#[test]
fn one_thread_at_a_time_has_the_driver_lock() {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    let busy = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for n in 0..4 {
            let busy = &busy;
            scope.spawn(move || {
                for round in 0..200 {
                    // Also as the first and the last of what is dropped.
                    let dropped = (round + n) % 2 == 0;
                    let begun = (!dropped).then(DriverLock::take);
                    drop(LockOnDrop(dropped));
                    // A thread that has it gets it again.
                    drop(DriverLock::take());
                    assert!(!busy.swap(true, SeqCst));
                    std::thread::yield_now();
                    assert!(busy.swap(false, SeqCst));
                    drop(UnlockOnDrop(dropped));
                    drop(begun);
                }
            });
        }
    });
}

// What can go wrong.

fn refused<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => panic!("this has to be refused"),
        Err(error) => error.to_string(),
    }
}

/// That the device still works.
fn works(gpu: &Gpu) {
    let loaded = gpu.load(doubling(10)).unwrap();
    loaded.run(RUN).unwrap();
    assert_eq!(read(&loaded, 0, 10)[9], 18.0);
    assert_eq!(gpu.stray(), None);
}

#[test]
fn shaders_that_do_not_compile_are_saved_and_named() {
    let Some(gpu) = gpu() else { return };
    let wrong = [
        ("syntax", "fn main( {".to_string(), "expected"),
        ("types", scaling(2.0).source.replace("2.0", "2u"), "f32"),
        ("entry", scaling(2.0).source.replace("fn main", "fn principal"), "main"),
        ("binding", scaling(2.0).source.replace("binding(0)", "binding(1)"), "binding"),
        ("size", scaling(2.0).source.replace("size(64)", "size(65536)"), "orkgroup size"),
    ];
    for (label, source, said) in wrong {
        let mut program = doubling(10);
        program.shaders[0].label = format!("{label}/../bad name");
        program.shaders[0].source = source.clone();
        let error = gpu.load(program).err().expect("this does not compile");
        assert!(matches!(error, Error::DeviceFailed(_)) && !error.is_input());
        let message = error.to_string();
        assert!(message.contains(said) && message.contains("--device cpu"), "{message}");
        let path = message.split("its source is in ").nth(1).unwrap();
        let path = path.split(":\n").next().unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), source);
        std::fs::remove_file(path).unwrap();
        works(&gpu);
    }
}

#[test]
fn programs_over_the_limits_are_refused_before_the_device_sees_them() {
    let limits = GpuLimits {
        buffer_bytes: 1 << 20,
        binding_bytes: 1 << 16,
        storage_buffers: 1,
        invocations: 64,
        workgroup_bytes: 1 << 10,
        ..GpuLimits::default()
    };
    let count = 1 << 14;
    doubling(count).check(&limits).unwrap();
    type Change = fn(&mut Program);
    let over: [(Change, &[&str]); 6] = [
        (|p| p.buffers[0].bytes = 2 << 20, &["numbers", "2.0 MiB", "1.0 MiB"]),
        (
            |p| {
                p.buffers[0].bytes = 1 << 17;
                p.recordings[0].commands = vec![dispatch(0, vec![whole(0, 1 << 15)], [1, 1, 1])];
            },
            &["numbers", "128 KiB", "64 KiB"],
        ),
        (
            |p| p.shaders[0].bindings = vec![Access::Read; 2],
            &["times 2", "2 storage buffers", "allows 1"],
        ),
        (|p| p.shaders[0].invocations = 128, &["128 invocations", "64"]),
        (|p| p.shaders[0].workgroup_bytes = 2048, &["2048 bytes of workgroup memory", "1024"]),
        (
            |p| {
                p.recordings[0].commands = vec![dispatch(0, vec![whole(0, 4)], [1, 70_000, 1])];
            },
            &["70000 workgroups", "65535"],
        ),
    ];
    for (change, said) in over {
        let mut program = doubling(count);
        change(&mut program);
        let message = refused(program.check(&limits));
        for said in said {
            assert!(message.contains(said), "{said}: {message}");
        }
        assert!(message.contains("--device cpu"), "{message}");
    }
}

#[test]
fn programs_that_do_not_hold_together_are_refused() {
    type Change = fn(&mut Program);
    let wrong: [Change; 15] = [
        |p| p.buffers[0].bytes = 0,
        |p| p.buffers[0].bytes = 4093,
        |p| p.buffers[0].content = vec![0; 5000],
        |p| p.buffers[0].kind = BufferKind::Uniform,
        |p| p.shaders.clear(),
        |p| p.recordings[0].commands = vec![dispatch(1, vec![], [1, 1, 1])],
        |p| p.recordings[0].commands = vec![dispatch(0, vec![], [1, 1, 1])],
        |p| p.recordings[0].commands = vec![dispatch(0, vec![whole(1, 4)], [1, 1, 1])],
        |p| p.recordings[0].commands = vec![dispatch(0, vec![whole(0, 1025)], [1, 1, 1])],
        |p| p.recordings[0].commands = vec![dispatch(0, vec![whole(0, 0)], [1, 1, 1])],
        |p| {
            let window = Window { buffer: BufferId(0), offset: 4, bytes: 16 };
            p.recordings[0].commands = vec![dispatch(0, vec![window], [1, 1, 1])];
        },
        |p| {
            let window = Window { buffer: BufferId(0), offset: u64::MAX - 3, bytes: 16 };
            p.recordings[0].commands = vec![dispatch(0, vec![window], [1, 1, 1])];
        },
        |p| {
            p.shaders[0].bindings = vec![Access::Read, Access::ReadWrite];
            p.recordings[0].commands = vec![dispatch(0, vec![whole(0, 4), whole(0, 4)], [1, 1, 1])];
        },
        |p| {
            p.recordings[0].commands = vec![Command::Copy {
                from: BufferId(0),
                from_offset: 0,
                to: BufferId(0),
                to_offset: 256,
                bytes: 16,
            }];
        },
        |p| {
            p.recordings[0].commands =
                vec![Command::Clear { buffer: BufferId(0), offset: 2, bytes: 4 }];
        },
    ];
    for (n, change) in wrong.into_iter().enumerate() {
        let mut program = doubling(1024);
        change(&mut program);
        let message = refused(program.check(&GpuLimits::default()));
        assert!(message.contains("fault in nneinfact"), "{n}: {message}");
    }
}

#[test]
fn ranges_outside_of_a_buffer_are_refused() {
    let Some(gpu) = gpu() else { return };
    let loaded = gpu.load(doubling(10)).unwrap();
    for (buffer, offset, bytes) in [(0, 0, 44), (0, 40, 4), (0, 2, 4), (0, 0, 3), (1, 0, 4)] {
        refused(loaded.read(BufferId(buffer), offset, bytes));
        refused(loaded.write(BufferId(buffer), offset, &vec![0; bytes as usize]));
    }
    refused(loaded.read(BufferId(0), u64::MAX - 3, 8));
    refused(loaded.run(RecordingId(1)));
    refused(loaded.profile(RecordingId(1)));
    assert!(loaded.read(BufferId(0), 40, 0).unwrap().is_empty());
    loaded.write(BufferId(0), 40, &[]).unwrap();
    works(&gpu);
}

#[test]
fn small_limits_are_those_of_the_device() {
    let Some(_) = gpu() else { return };
    let small = wgpu::Limits {
        max_storage_buffer_binding_size: 4096,
        max_buffer_size: 8192,
        max_storage_buffers_per_shader_stage: 2,
        max_compute_workgroup_storage_size: 256,
        max_compute_invocations_per_workgroup: 64,
        max_compute_workgroup_size_x: 64,
        max_compute_workgroups_per_dimension: 3,
        ..wgpu::Limits::default()
    };
    let gpu = Gpu::open(Wanted::Best, Some(&small)).unwrap();
    let limits = gpu.limits();
    assert_eq!(limits.binding_bytes, 4096);
    assert_eq!(limits.buffer_bytes, 8192);
    assert_eq!(limits.storage_buffers, 2);
    assert_eq!((limits.invocations, limits.workgroups), (64, 3));
    works(&gpu);
    refused(gpu.load(doubling(3000)));
    refused(gpu.load(doubling(1200)));
    works(&gpu);
}

#[test]
fn limits_that_are_too_small_for_any_fit_are_refused() {
    let Some(_) = gpu() else { return };
    type Change = fn(&mut wgpu::Limits);
    let small: [(Change, &str); 6] = [
        (|l| *l = wgpu::Limits::downlevel_webgl2_defaults(), "0 storage buffers"),
        (|l| l.max_storage_buffers_per_shader_stage = 0, "0 storage buffers"),
        (|l| l.max_compute_workgroups_per_dimension = 0, "0 workgroups"),
        (|l| l.max_compute_workgroup_size_y = 1, "1 invocations"),
        (|l| l.max_storage_buffer_binding_size = 0, "0 bytes of a storage binding"),
        (|l| l.max_buffer_size = 100, "100 bytes of a buffer"),
    ];
    for (change, said) in small {
        let mut limits = wgpu::Limits::default();
        change(&mut limits);
        let error = Gpu::open(Wanted::Best, Some(&limits)).expect_err("too small");
        assert!(matches!(error, Error::Device(_)) && error.is_input(), "{error}");
        let message = error.to_string();
        assert!(message.contains(said) && message.contains("wgpu::Limits::default()"), "{message}");
    }
}

#[test]
fn out_of_memory_says_what_was_needed() {
    let Some(gpu) = gpu() else { return };
    // As many of the largest buffers as no machine has memory for.
    let most = gpu.limits().buffer_bytes;
    let mut program = doubling(10);
    let count = (1u64 << 50) / most + 2;
    let huge = Buffer {
        label: "the moon".into(),
        bytes: most,
        kind: BufferKind::Storage,
        content: vec![],
        first_use: FirstUse::Read,
    };
    program.buffers.extend(vec![huge; count.min(1 << 20) as usize]);
    let error = gpu.load(program).err().expect("no device has that much");
    assert!(matches!(error, Error::DeviceMemory { .. }), "{error}");
    assert!(!error.is_input());
    let message = error.to_string();
    for said in ["out of memory", "the moon", "lower the ranks", "--device cpu"] {
        assert!(message.contains(said), "{said}: {message}");
    }
    works(&gpu);
}

#[test]
fn a_lost_device_is_an_error_from_then_on() {
    let Some(gpu) = own() else { return };
    let loaded = gpu.load(doubling(1000)).unwrap();
    loaded.run(RUN).unwrap();
    gpu.device().destroy();
    // Calls that do not wait may still seem to go through; reading cannot.
    let _ = loaded.run(RUN);
    let errors = [
        refused(loaded.read(BufferId(0), 0, 4)),
        refused(loaded.run(RUN)),
        refused(loaded.write(BufferId(0), 0, &[0; 4])),
        refused(loaded.wait()),
        refused(loaded.profile(RUN)),
        refused(gpu.load(doubling(10))),
    ];
    for message in errors {
        assert!(message.contains("was lost") && message.contains("destroyed"), "{message}");
    }
    drop(loaded);
    // A new device has nothing to do with it.
    works(&Gpu::open(Wanted::Best, None).unwrap());
}

#[test]
fn a_driver_that_fails_while_it_is_waited_for_has_lost_the_device() {
    let Some(gpu) = own() else { return };
    let loaded = gpu.load(doubling(10)).unwrap();
    let message = refused(gpu.waited(|| panic!("as wgpu does where waiting fails")));
    assert!(message.contains("was lost"), "{message}");
    let after = [
        refused(gpu.check()),
        refused(loaded.run(RUN)),
        refused(loaded.read(BufferId(0), 0, 4)),
        refused(gpu.load(doubling(10))),
    ];
    for again in after {
        assert_eq!(again, message);
    }
}

/// A device as another program would own it, with its defaults.
fn foreign(gpu: &Gpu) -> (wgpu::Device, wgpu::Queue) {
    let instance =
        wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let adapter = pollster::block_on(instance.enumerate_adapters(backends))
        .into_iter()
        .find(|a| a.get_info().name == gpu.info().name)
        .unwrap();
    let request = wgpu::DeviceDescriptor {
        // A validation layer may keep a little for itself.
        required_limits: wgpu::Limits::default().or_worse_values_from(&adapter.limits()),
        ..Default::default()
    };
    pollster::block_on(adapter.request_device(&request)).unwrap()
}

#[test]
fn devices_of_others_are_left_as_they_were() {
    let Some(gpu) = gpu() else { return };
    let (device, queue) = foreign(&gpu);
    // No handler is set: whatever escaped an error scope would panic.
    let ours = Gpu::from_wgpu(device.clone(), queue).unwrap();
    // Those that it was requested with, not those of its adapter.
    assert_eq!(*ours.limits(), GpuLimits::default());
    works(&ours);
    let mut wrong = doubling(10);
    wrong.shaders[0].source = "nonsense".into();
    let message = refused(ours.load(wrong));
    let path = message.split("its source is in ").nth(1).unwrap().split(":\n").next().unwrap();
    std::fs::remove_file(path).unwrap();
    works(&ours);
    let loaded = ours.load(doubling(10)).unwrap();
    assert_eq!(loaded.profile(RUN).unwrap(), None);
    drop((loaded, ours));
    // It still takes work from its owner, who is told of errors as before.
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let _ = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4,
        usage: wgpu::BufferUsages::empty(),
        mapped_at_creation: false,
    });
    assert!(pollster::block_on(scope.pop()).is_some());
    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
}

#[test]
fn devices_of_others_may_be_lost_too() {
    let Some(gpu) = gpu() else { return };
    let (device, queue) = foreign(&gpu);
    let ours = Gpu::from_wgpu(device.clone(), queue.clone()).unwrap();
    let loaded = ours.load(doubling(10)).unwrap();
    loaded.run(RUN).unwrap();
    device.destroy();
    // It has not told us, so that running may seem to work.
    let _ = loaded.run(RUN);
    let _ = loaded.write(BufferId(0), 0, &[0; 4]);
    let message = refused(loaded.read(BufferId(0), 0, 4));
    assert!(message.contains("was lost"), "{message}");
    refused(ours.load(doubling(10)));
    refused(Gpu::from_wgpu(device, queue));
}

/// For `.ci/second-opinion races`, which has to find this to be believed about the others: a
/// workgroup whose invocations read what their neighbours write, without a barrier.
#[test]
#[ignore = "wrong on purpose: .ci/second-opinion runs it under a tool that has to notice"]
fn a_missing_barrier_is_there_to_be_found() {
    let Some(gpu) = gpu() else { return };
    let mut program = doubling(64);
    program.shaders[0].source = "
        @group(0) @binding(0) var<storage, read_write> x: array<f32>;
        var<workgroup> shared_x: array<f32, 64>;
        @compute @workgroup_size(64)
        fn main(@builtin(local_invocation_index) i: u32) {
            shared_x[i] = x[i];
            x[i] = shared_x[(i + 1u) % 64u];
        }"
    .into();
    program.shaders[0].workgroup_bytes = 256;
    let loaded = gpu.load(program).unwrap();
    loaded.run(RUN).unwrap();
    loaded.wait().unwrap();
}

/// Past our own look at the device's memory: the driver refuses. A software one is made to by a limit
/// on the process, so that this runs in a child; real GPUs are spared, others may be using them.
#[test]
#[cfg(target_os = "linux")]
fn a_driver_that_runs_out_of_memory_is_an_error_and_goes_on() {
    const CHILD: &str = "NNEINFACT_TEST_CHILD";
    let Some(gpu) = gpu() else { return };
    if std::env::var_os(CHILD).is_none() {
        if !gpu.info().is_software() {
            return;
        }
        let name = "tests::runtime::a_driver_that_runs_out_of_memory_is_an_error_and_goes_on";
        let output = std::process::Command::new("sh")
            .args(["-c", "ulimit -v 12000000 && exec \"$0\" --exact \"$1\" --nocapture"])
            .arg(std::env::current_exe().unwrap())
            .arg(name)
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("refused in the child"), "{said}");
        return;
    }
    let mut program = doubling(10);
    let large = Buffer {
        label: "the moon".into(),
        bytes: gpu.limits().buffer_bytes.min(1 << 30),
        kind: BufferKind::Storage,
        content: vec![],
        first_use: FirstUse::Read,
    };
    program.buffers.extend(vec![large; 200]);
    let error = gpu.allocate(&program).err().expect("this process may not have that much");
    assert!(matches!(error, Error::DeviceMemory { .. }), "{error}");
    works(&gpu);
    eprintln!("refused in the child: {error}");
}
