//! What could compute beside the processor, by the nodes that drivers make.

use std::path::Path;

use muster_shared::hardware::{Accelerator, AcceleratorKind};
use muster_shared::limits::ACCELERATORS_MAX;
use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::roots::{Roots, entries, name, number, table, text, uevent};

/// Drivers of the kernel's own class of accelerators.
const ACCEL_DRIVERS: [(&str, &str); 7] = [
    ("intel_vpu", "Intel NPU"),
    ("amdxdna", "AMD NPU"),
    ("rocket", "Rockchip NPU"),
    ("qaic", "Qualcomm Cloud AI"),
    ("habanalabs", "Habana"),
    ("ethosu", "Arm Ethos-U"),
    ("ethos-u", "Arm Ethos-U"),
];
/// Who makes PCI graphics.
const PCI_MAKERS: [(&str, &str); 3] = [("10DE", "NVIDIA"), ("1002", "AMD"), ("8086", "Intel")];
/// Drivers that make render nodes without any hardware.
const NO_HARDWARE: [&str; 2] = ["vgem", "vkms"];
/// A Coral USB Accelerator before and after its firmware was loaded.
const CORAL_USB: [(&str, &str); 2] = [("1a6e", "089a"), ("18d1", "9302")];

/// All of them.
pub fn accelerators(roots: &Roots) -> Vec<Accelerator> {
    let mut found = nvidia(roots);
    found.extend(jetson(roots));
    found.extend(render_nodes(roots));
    found.extend(accel_class(roots));
    found.extend(simple(roots, "apex_", "Coral Edge TPU", "apex"));
    found.extend(coral_usb(roots));
    found.extend(simple(roots, "hailo", "Hailo", "hailo"));
    found.extend(simple(roots, "ethosu", "Arm Ethos-U", "ethosu"));
    found.truncate(ACCELERATORS_MAX);
    found
}

fn at(roots: &Roots, kind: AcceleratorKind, name: &str, driver: Option<String>, node: &Path) -> Accelerator {
    // With the rights that the process acts with.
    let may_open = |node: &Path| accessat(CWD, node, Access::READ_OK | Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    let exists = node.exists();
    Accelerator {
        kind,
        name: name.to_owned(),
        driver,
        node: exists.then(|| roots.node(node)).flatten(),
        may_open: exists.then(|| may_open(node)),
    }
}

/// Nodes of one driver whose names are a word and a number.
fn simple(roots: &Roots, prefix: &str, called: &str, driver: &str) -> Vec<Accelerator> {
    let nodes = entries(&roots.dev, prefix).into_iter().filter(|node| is_numbered(node, prefix));
    nodes.map(|node| at(roots, AcceleratorKind::Npu, called, Some(driver.to_owned()), &node)).collect()
}

fn is_numbered(node: &Path, prefix: &str) -> bool {
    name(node).strip_prefix(prefix).is_some_and(|rest| rest.parse::<u16>().is_ok())
}

/// Graphics cards with NVIDIA's own driver.
fn nvidia(roots: &Roots) -> Vec<Accelerator> {
    let told: Vec<(Option<u16>, String)> = entries(&roots.proc.join("driver/nvidia/gpus"), "")
        .iter()
        .filter_map(|gpu| nvidia_information(&table(&gpu.join("information"))?))
        .collect();
    let nodes = entries(&roots.dev, "nvidia").into_iter().filter(|node| is_numbered(node, "nvidia"));
    let gpu = |node: std::path::PathBuf| {
        let minor = name(&node).strip_prefix("nvidia").and_then(|number| number.parse().ok());
        let model = told.iter().find(|(told, _)| *told == minor).map_or("NVIDIA", |(_, model)| model);
        at(roots, AcceleratorKind::Gpu, model, Some("nvidia".to_owned()), &node)
    };
    nodes.map(gpu).collect()
}

/// The minor number and the model in NVIDIA's `information`.
pub fn nvidia_information(table: &str) -> Option<(Option<u16>, String)> {
    let value = |key: &str| table.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':'));
    let model = super::roots::clean(value("Model")?);
    (!model.is_empty()).then(|| (value("Device Minor").and_then(|minor| minor.trim().parse().ok()), model))
}

/// The graphics of a Jetson's chip.
fn jetson(roots: &Roots) -> Option<Accelerator> {
    let nodes = ["nvgpu/igpu0/ctrl", "nvhost-gpu"].map(|node| roots.dev.join(node));
    let node = nodes.iter().find(|node| node.exists())?;
    Some(at(roots, AcceleratorKind::Gpu, "NVIDIA integrated GPU", Some("nvgpu".to_owned()), node))
}

/// What draws, and on some boards computes networks, by the kernel's drivers.
fn render_nodes(roots: &Roots) -> Vec<Accelerator> {
    let read = |class: &std::path::PathBuf| {
        let device = class.join("device");
        let driver = uevent(&device, "DRIVER")?;
        // NVIDIA's driver has nodes of its own.
        if driver == "nvidia" || driver == "nvgpu" || NO_HARDWARE.contains(&driver.as_str()) {
            return None;
        }
        let maker = uevent(&device, "PCI_ID").and_then(|id| {
            let (maker, _) = id.split_once(':')?;
            PCI_MAKERS.iter().find(|(number, _)| *number == maker).map(|(_, word)| format!("{word} graphics"))
        });
        let called = maker.or_else(|| uevent(&device, "OF_COMPATIBLE_0")).unwrap_or_else(|| driver.clone());
        let kind = if driver.eq_ignore_ascii_case("rknpu") { AcceleratorKind::Npu } else { AcceleratorKind::Gpu };
        Some(at(roots, kind, &called, Some(driver), &roots.dev.join("dri").join(name(class))))
    };
    entries(&roots.sys.join("class/drm"), "renderD").iter().filter_map(read).collect()
}

/// What the kernel itself calls an accelerator.
fn accel_class(roots: &Roots) -> Vec<Accelerator> {
    let read = |class: &std::path::PathBuf| {
        let driver = uevent(&class.join("device"), "DRIVER");
        let known = ACCEL_DRIVERS.iter().find(|(word, _)| driver.as_deref() == Some(*word));
        let called = known.map(|(_, name)| (*name).to_owned()).or_else(|| driver.clone());
        let called = called.unwrap_or_else(|| name(class));
        at(roots, AcceleratorKind::Npu, &called, driver, &roots.dev.join("accel").join(name(class)))
    };
    entries(&roots.sys.join("class/accel"), "accel").iter().map(read).collect()
}

/// Coral's stick has no driver: programs talk to it over USB.
fn coral_usb(roots: &Roots) -> Vec<Accelerator> {
    let read = |device: &std::path::PathBuf| {
        let (maker, product) = (text(&device.join("idVendor"))?, text(&device.join("idProduct"))?);
        CORAL_USB.contains(&(maker.as_str(), product.as_str())).then_some(())?;
        let (bus, number): (u16, u16) = (number(&device.join("busnum"))?, number(&device.join("devnum"))?);
        let node = roots.dev.join(format!("bus/usb/{bus:03}/{number:03}"));
        Some(at(roots, AcceleratorKind::Npu, "Coral USB Accelerator", None, &node))
    };
    entries(&roots.sys.join("bus/usb/devices"), "").iter().filter_map(read).collect()
}
