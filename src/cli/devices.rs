//! `nneinfact devices`.

use super::print;
use nneinfact_core::engine::AdapterInfo;
use nneinfact_core::error::{Result, bytes};
use nneinfact_fit::Device;

/// Lists the devices and says which one `auto` takes and why.
pub fn run() -> Result<()> {
    // Not so where an instruction set is asked for that is not there.
    Device::named("cpu")?;
    let devices = Device::list();
    let mut text = String::new();
    for device in &devices {
        let mark = if device.auto { "  <- auto" } else { "" };
        text += &format!("{}{mark}\n", device.name);
        match &device.adapter {
            Some(adapter) => text += &table(adapter),
            None => text += &format!("    {}\n", device.description),
        }
    }
    if let Some(taken) = devices.iter().find(|d| d.auto) {
        text += &format!("\n--device auto takes {}: {}.\n", taken.name, taken.reason);
    }
    text += match devices.iter().filter_map(|d| d.adapter.as_ref()).next() {
        Some(best) if best.is_software() => {
            "--device gpu takes the software rasteriser: for tests, it is slower than cpu.\n"
        }
        Some(_) => "--device gpu takes the first GPU, --device NAME one by a part of its name.\n",
        None => "",
    };
    print(&text)
}

/// What one GPU is and has.
fn table(adapter: &AdapterInfo) -> String {
    let yes = |yes: bool| if yes { "yes" } else { "no" };
    let mut kind = adapter.kind.name().to_string();
    if !adapter.bus.is_empty() {
        kind += &format!(" at {}", adapter.bus);
    }
    let memory = match adapter.memory {
        Some(memory) => bytes(memory),
        None => "not told".into(),
    };
    let subgroups = match adapter.subgroups {
        Some((least, most)) if least == most => least.to_string(),
        Some((least, most)) => format!("{least} to {most}"),
        None => "no".into(),
    };
    let rows = [
        ("type", kind),
        ("backend", adapter.backend.clone()),
        ("driver", adapter.driver.clone()),
        (
            "memory",
            format!(
                "{memory}; at most {} in a buffer, {} of it in a shader",
                bytes(adapter.buffer_bytes),
                bytes(adapter.binding_bytes)
            ),
        ),
        (
            "workgroups",
            format!(
                "up to {} invocations, {} of memory",
                adapter.invocations,
                bytes(u64::from(adapter.workgroup_bytes))
            ),
        ),
        ("subgroups", subgroups),
        ("f16", yes(adapter.f16).into()),
        ("timestamps", yes(adapter.timestamps).into()),
    ];
    rows.iter().map(|(name, value)| format!("    {name:<12}{value}\n")).collect()
}
