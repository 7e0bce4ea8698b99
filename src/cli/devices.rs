//! `nneinfact devices`.

use super::print;
use crate::engine::Device;
use crate::error::Result;

/// Lists the devices and says which one `auto` takes.
pub fn run() -> Result<()> {
    let devices = Device::list();
    let width = devices.iter().map(|d| d.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for device in &devices {
        let mark = if device.auto { "  <- auto" } else { "" };
        text += &format!("{:width$}  {}{mark}\n", device.name, device.description);
    }
    let automatic = devices.iter().find(|d| d.auto).map_or("none of them", |d| d.name.as_str());
    text += &format!(
        "\n--device auto takes {automatic}: a real GPU where there is one that this version can use, \
         else the CPU.\n"
    );
    print(&text)
}
