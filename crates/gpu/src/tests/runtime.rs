//! The runtime on small programs made by hand.

use crate::device::adapter::Wanted;
use crate::device::driver_lock::{DriverLock, LockOnDrop, UnlockOnDrop};
use crate::device::handle::Gpu;
use crate::program::recording::{
    Access, Buffer, BufferId, BufferKind, Command, FirstUse, Program, RecordingId, Shader, Window,
};
use crate::tests::jobs::{gpu, own};
use crate::tests::programs::{
    RUN, dispatch, dispatch_of, doubling, read, recording, scaling, storage, whole,
};

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
        ..Program::default()
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

/// The next process, here the next device, does not compile what this one did; and what is wrong with a
/// file is nothing that a fit would see.
#[test]
fn compiled_shaders_are_kept_in_files() {
    if own().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shaders");
    let open = || Gpu::open_with(Wanted::Best, None, &|_| Some(path.clone())).unwrap();
    let doubles = |gpu: &Gpu| {
        let loaded = gpu.load(doubling(100)).unwrap();
        loaded.run(RUN).unwrap();
        let expected: Vec<f32> = (0..100).map(|i| 2.0 * i as f32).collect();
        assert_eq!(read(&loaded, 0, 100), expected);
    };
    let gpu = open();
    let Some(cache) = gpu.shader_cache() else {
        eprintln!("skipped: the adapter keeps no compiled shaders");
        return;
    };
    let shader = &doubling(100).shaders[0];
    assert_eq!(cache.find(shader), None);
    doubles(&gpu);
    let kept = cache.find(shader).expect("a file");
    doubles(&open());
    assert_eq!(open().shader_cache().unwrap().find(shader), Some(kept));
    // Whole, but no work of this driver.
    cache.keep(shader, b"not what a driver says");
    doubles(&open());
    let file = std::fs::read_dir(&path).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&file, b"damaged").unwrap();
    doubles(&open());
    assert!(cache.find(shader).is_some(), "it is written again");
    // Nowhere to keep it.
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::write(&path, b"").unwrap();
    doubles(&open());
    let off = Gpu::open_with(Wanted::Best, None, &|_| None).unwrap();
    assert!(off.shader_cache().is_none());
    doubles(&off);
}
