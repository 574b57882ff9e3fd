//! Boards as their kernels describe them, each a small made-up tree, and what is read from them.

use std::path::Path;

use muster_shared::hardware::{BatteryState, Hardware, Health, Medium, PowerKind, Reserve, Strain};

use super::roots::Roots;
use super::{hardware, health};

/// A tree, a line for each file: `path = text`, `path -> where it points to`. `\n` in a text is a new line,
/// `\0` a zero.
pub(crate) fn plant(tree: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for line in tree.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let make = |path: &str| {
            let path = folder.path().join(path.trim());
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            path
        };
        if let Some((path, text)) = line.split_once(" = ") {
            std::fs::write(make(path), text.replace("\\n", "\n").replace("\\0", "\0").replace("\\t", "\t"))
                .expect("written");
        } else if let Some((path, to)) = line.split_once(" -> ") {
            std::os::unix::fs::symlink(to.trim(), make(path)).expect("linked");
        } else {
            panic!("{line:?} is no file");
        }
    }
    folder
}

fn read(tree: &str, data: &str) -> (Hardware, Health) {
    let folder = plant(tree);
    let roots = Roots::below(folder.path());
    (hardware(&roots), health(&roots, Path::new(data)))
}

/// How many, what they are called, what one can do, how fast.
type Cores<'a> = (u32, Option<&'a str>, Option<u32>, Option<u64>);
/// Its kind, name, driver and node, and whether it may be opened.
type Beside<'a> = (&'a str, &'a str, Option<&'a str>, Option<&'a str>, Option<bool>);

fn cores(hardware: &Hardware) -> Vec<Cores<'_>> {
    hardware.cores.iter().map(|kind| (kind.count, kind.name.as_deref(), kind.capacity, kind.khz_max)).collect()
}

fn accelerators(hardware: &Hardware) -> Vec<Beside<'_>> {
    hardware
        .accelerators
        .iter()
        .map(|it| (it.kind.words(), it.name.as_str(), it.driver.as_deref(), it.node.as_deref(), it.may_open))
        .collect()
}

fn sensors(health: &Health) -> Vec<(&str, i32, Option<i32>)> {
    health.temperatures.iter().map(|it| (it.sensor.as_str(), it.millicelsius, it.critical_millicelsius)).collect()
}

const PI_2: &str = r"
    sys/firmware/devicetree/base/model = Raspberry Pi 2 Model B Rev 1.1\0
    sys/firmware/devicetree/base/compatible = raspberrypi,2-model-b\0brcm,bcm2836\0
    proc/sys/kernel/osrelease = 6.1.0-rpi7-rpi-v7\n
    proc/meminfo = MemTotal:         945512 kB\nMemFree:          1 kB\nSwapTotal:        102396 kB\n
    proc/cpuinfo = processor\t: 0\nmodel name\t: ARMv7 Processor rev 5 (v7l)\nFeatures\t: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm\nCPU implementer\t: 0x41\nCPU part\t: 0xc07\n\nprocessor\t: 1\nFeatures\t: neon vfpv4\nCPU implementer\t: 0x41\nCPU part\t: 0xc07\n\nHardware\t: BCM2835\nModel\t\t: Raspberry Pi 2 Model B Rev 1.1\n
    sys/devices/system/cpu/online = 0-1\n
    sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq = 900000\n
    sys/devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq = 900000\n
    sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq = 900000\n
    sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq = 900000\n
    sys/devices/platform/soc/soc:firmware/get_throttled = 50005\n
    sys/class/thermal/thermal_zone0/type = cpu-thermal\n
    sys/class/thermal/thermal_zone0/temp = 48312\n
    sys/class/thermal/thermal_zone0/trip_point_0_type = critical\n
    sys/class/thermal/thermal_zone0/trip_point_0_temp = 80000\n
    sys/class/hwmon/hwmon0/name = cpu_thermal\n
    sys/class/hwmon/hwmon0/temp1_input = 48312\n
    sys/class/hwmon/hwmon1/name = rpi_volt\n
    sys/class/hwmon/hwmon1/in0_lcrit_alarm = 1\n
    proc/self/mountinfo = 22 1 179:2 / / rw,noatime - ext4 /dev/root rw\n
    sys/devices/platform/soc/mmc_host/mmc0/mmc0:0001/block/mmcblk0/mmcblk0p2/partition = 2\n
    sys/devices/platform/soc/mmc_host/mmc0/mmc0:0001/block/mmcblk0/device -> ../..
    sys/devices/platform/soc/mmc_host/mmc0/mmc0:0001/type = SD\n
    sys/dev/block/179:2 -> ../../devices/platform/soc/mmc_host/mmc0/mmc0:0001/block/mmcblk0/mmcblk0p2
";

#[test]
fn a_raspberry_pi_2_with_a_weak_supply() {
    let (hardware, health) = read(PI_2, "/var/lib/muster");
    let board = hardware.board.as_ref().expect("a board");
    assert_eq!((board.model.as_str(), board.compatible.len()), ("Raspberry Pi 2 Model B Rev 1.1", 2));
    assert_eq!(hardware.soc.as_deref(), Some("brcm,bcm2836"));
    assert_eq!(cores(&hardware), [(2, Some("Cortex-A7"), None, Some(900_000))]);
    assert_eq!(hardware.cpu_features, ["neon", "vfpv4"]);
    assert_eq!((hardware.memory_bytes, hardware.swap_bytes), (Some(945_512 << 10), Some(102_396 << 10)));
    assert_eq!(hardware.kernel.as_deref(), Some("6.1.0-rpi7-rpi-v7"));
    assert!(hardware.accelerators.is_empty());
    // Each sensor once, although the kernel shows it twice.
    assert_eq!(sensors(&health), [("cpu-thermal", 48_312, Some(80_000))]);
    assert_eq!(health.strains, [Strain::UnderVoltage, Strain::Throttled]);
    assert_eq!(health.strains_since_boot, [Strain::UnderVoltage, Strain::Throttled]);
    assert_eq!((health.khz_allowed, health.power.len()), (None, 0));
    let storage = health.storage.expect("storage");
    assert_eq!((storage.device.as_deref(), storage.medium), (Some("mmcblk0"), Some(Medium::SdCard)));
    assert_eq!((storage.wear_percent, storage.reserve, storage.read_only), (None, None, false));
}

const PI_3: &str = r"
    sys/firmware/devicetree/base/model = Raspberry Pi 3 Model B Plus Rev 1.3\0
    sys/firmware/devicetree/base/compatible = raspberrypi,3-model-b-plus\0brcm,bcm2837\0
    proc/meminfo = MemTotal:         928588 kB\nSwapTotal:             0 kB\n
    proc/cpuinfo = processor\t: 0\nBogoMIPS\t: 38.40\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd03\n
    sys/devices/system/cpu/online = 0\n
    sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq = 1400000\n
    sys/class/thermal/thermal_zone0/type = cpu-thermal\n
    sys/class/thermal/thermal_zone0/temp = 83790\n
    sys/devices/platform/soc/soc:firmware/get_throttled = 80008\n
    proc/self/mountinfo = 22 1 179:2 / / rw,noatime - ext4 /dev/mmcblk0p2 ro,errors=remount-ro\n
    sys/devices/platform/soc/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0/mmcblk0p2/partition = 2\n
    sys/devices/platform/soc/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0/device -> ../..
    sys/devices/platform/soc/mmc_host/mmc0/mmc0:aaaa/type = SD\n
    sys/dev/block/179:2 -> ../../devices/platform/soc/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0/mmcblk0p2
";

#[test]
fn a_raspberry_pi_3_whose_card_failed() {
    let (hardware, health) = read(PI_3, "/var/lib/muster");
    assert_eq!(cores(&hardware), [(1, Some("Cortex-A53"), None, Some(1_400_000))]);
    assert_eq!(hardware.cpu_features, ["neon"]);
    assert_eq!((hardware.memory_bytes, hardware.swap_bytes), (Some(928_588 << 10), Some(0)));
    assert_eq!(sensors(&health), [("cpu-thermal", 83_790, None)]);
    assert_eq!(health.strains, [Strain::SoftTemperatureLimit]);
    // After an error the kernel mounted it anew, to be read only.
    assert_eq!(health.read_only, ["/"]);
    let storage = health.storage.expect("storage");
    assert_eq!((storage.medium, storage.read_only), (Some(Medium::SdCard), true));
}

const PI_4: &str = r"
    sys/firmware/devicetree/base/model = Raspberry Pi 4 Model B Rev 1.4\0
    sys/firmware/devicetree/base/compatible = raspberrypi,4-model-b\0brcm,bcm2711\0
    proc/cpuinfo = processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n
    sys/devices/system/cpu/online = 0\n
    sys/class/hwmon/hwmon0/name = rpi_volt\n
    sys/class/hwmon/hwmon0/in0_lcrit_alarm = 1\n
    sys/class/hwmon/hwmon1/name = pwmfan\n
    sys/class/hwmon/hwmon1/fan1_input = 2200\n
    sys/class/drm/renderD128/device/uevent = DRIVER=v3d\nOF_COMPATIBLE_0=brcm,2711-v3d\n
    proc/self/mountinfo = 22 1 8:2 / / rw - ext4 /dev/sda2 rw\n
    sys/devices/platform/scb/pcie/usb2/2-1/2-1:1.0/host0/block/sda/sda2/partition = 2\n
    sys/devices/platform/scb/pcie/usb2/2-1/2-1:1.0/host0/block/sda/queue/rotational = 0\n
    sys/dev/block/8:2 -> ../../devices/platform/scb/pcie/usb2/2-1/2-1:1.0/host0/block/sda/sda2
";

#[test]
fn a_raspberry_pi_4_with_a_disk_on_usb_and_a_kernel_without_its_firmwares_word() {
    let (hardware, health) = read(PI_4, "/srv/muster");
    assert_eq!(hardware.soc.as_deref(), Some("brcm,bcm2711"));
    assert_eq!(cores(&hardware), [(1, Some("Cortex-A72"), None, None)]);
    assert_eq!(accelerators(&hardware), [("GPU", "brcm,2711-v3d", Some("v3d"), None, None)]);
    assert_eq!(health.strains, [Strain::UnderVoltage]);
    assert_eq!(health.storage.and_then(|storage| storage.medium), Some(Medium::Usb));
    assert!(health.temperatures.is_empty() && health.power.is_empty());
}

const PI_5: &str = r"
    sys/firmware/devicetree/base/model = Raspberry Pi 5 Model B Rev 1.0\0
    sys/firmware/devicetree/base/compatible = raspberrypi,5-model-b\0brcm,bcm2712\0
    proc/cpuinfo = processor\t: 0\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\nprocessor\t: 1\nFeatures\t: fp asimd asimdhp asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n
    sys/devices/system/cpu/online = 0-1\n
    sys/devices/system/cpu/cpu0/cpu_capacity = 1024\n
    sys/devices/system/cpu/cpu1/cpu_capacity = 1024\n
    sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq = 2400000\n
    sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq = 1500000\n
    sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled = 0xe0008\n
    sys/class/thermal/cooling_device0/type = pwm-fan\n
    sys/class/thermal/cooling_device0/cur_state = 3\n
    sys/class/thermal/cooling_device1/type = cpufreq-cpu0\n
    sys/class/thermal/cooling_device1/cur_state = 2\n
    sys/class/drm/renderD128/device/uevent = DRIVER=v3d\nOF_FULLNAME=/axi/v3d@2000000\nOF_COMPATIBLE_0=brcm,2712-v3d\n
    sys/class/drm/renderD129/device/uevent = DRIVER=vgem\n
    dev/dri/renderD128 = x
    dev/hailo0 = x
    dev/apex_0 = x
    dev/apex_unrelated = x
    sys/bus/usb/devices/2-1/idVendor = 18d1\n
    sys/bus/usb/devices/2-1/idProduct = 9302\n
    sys/bus/usb/devices/2-1/busnum = 2\n
    sys/bus/usb/devices/2-1/devnum = 7\n
    dev/bus/usb/002/007 = x
    sys/bus/usb/devices/usb1/idVendor = 1d6b\n
    sys/bus/usb/devices/usb1/idProduct = 0002\n
    proc/self/mountinfo = 22 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw\n30 22 259:1 / /boot/firmware rw - vfat /dev/nvme0n1p1 ro,errors=remount-ro\n
    sys/devices/platform/axi/pcie/nvme/nvme0/nvme0n1/nvme0n1p2/partition = 2\n
    sys/dev/block/259:2 -> ../../devices/platform/axi/pcie/nvme/nvme0/nvme0n1/nvme0n1p2
";

#[test]
fn a_raspberry_pi_5_with_accelerators_that_runs_hot() {
    let (hardware, health) = read(PI_5, "/var/lib/muster");
    assert_eq!(hardware.cpu_features, ["neon", "fp16", "dotprod"]);
    assert_eq!(cores(&hardware), [(2, Some("Cortex-A76"), Some(1024), None)]);
    assert_eq!(
        accelerators(&hardware),
        [
            ("GPU", "brcm,2712-v3d", Some("v3d"), Some("/dev/dri/renderD128"), Some(true)),
            ("NPU", "Coral Edge TPU", Some("apex"), Some("/dev/apex_0"), Some(true)),
            ("NPU", "Coral USB Accelerator", None, Some("/dev/bus/usb/002/007"), Some(true)),
            ("NPU", "Hailo", Some("hailo"), Some("/dev/hailo0"), Some(true)),
        ]
    );
    assert_eq!(health.strains, [Strain::FrequencyCapped, Strain::SoftTemperatureLimit, Strain::CoolingDown]);
    // Of what it says since it was started, this much it says no more.
    let ended = [Strain::FrequencyCapped, Strain::Throttled, Strain::SoftTemperatureLimit, Strain::CoolingDown];
    assert_eq!(health.strains_since_boot, ended);
    assert_eq!(health.khz_allowed, Some(1_500_000));
    assert_eq!(health.read_only, ["/boot/firmware"]);
    assert_eq!(health.storage.and_then(|storage| storage.medium), Some(Medium::Nvme));
}

const JETSON: &str = r"
    sys/firmware/devicetree/base/model = NVIDIA Jetson Orin Nano Developer Kit\0
    sys/firmware/devicetree/base/compatible = nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0
    proc/cpuinfo = processor\t: 0\nFeatures\t: fp asimd fphp asimdhp asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n
    sys/devices/system/cpu/online = 0\n
    dev/nvgpu/igpu0/ctrl = x
    dev/nvhost-gpu = x
    sys/class/drm/renderD128/device/uevent = DRIVER=nvgpu\n
    sys/class/thermal/thermal_zone0/type = cpu-thermal\n
    sys/class/thermal/thermal_zone0/temp = 51000\n
    sys/class/thermal/thermal_zone1/type = gpu-thermal\n
    sys/class/thermal/thermal_zone1/temp = 53500\n
    sys/class/thermal/thermal_zone2/type = cv0-thermal\n
    sys/class/thermal/thermal_zone2/temp = -256000\n
    sys/class/thermal/thermal_zone3/type = gpu-thermal\n
    sys/class/thermal/thermal_zone3/temp = 40000\n
    sys/class/thermal/cooling_device0/type = 17000000.gpu-devfreq\n
    sys/class/thermal/cooling_device0/cur_state = 0\n
    proc/self/mountinfo = 22 1 179:1 / / rw - ext4 /dev/mmcblk0p1 rw\n
    sys/devices/platform/sdhci/mmc_host/mmc0/mmc0:0001/block/mmcblk0/mmcblk0p1/partition = 1\n
    sys/devices/platform/sdhci/mmc_host/mmc0/mmc0:0001/block/mmcblk0/device -> ../..
    sys/devices/platform/sdhci/mmc_host/mmc0/mmc0:0001/type = MMC\n
    sys/devices/platform/sdhci/mmc_host/mmc0/mmc0:0001/life_time = 0x02 0x0b\n
    sys/devices/platform/sdhci/mmc_host/mmc0/mmc0:0001/pre_eol_info = 0x03\n
    sys/dev/block/179:1 -> ../../devices/platform/sdhci/mmc_host/mmc0/mmc0:0001/block/mmcblk0/mmcblk0p1
";

#[test]
fn a_jetson_with_a_worn_out_emmc() {
    let (hardware, health) = read(JETSON, "/var/lib/muster");
    assert_eq!(hardware.soc.as_deref(), Some("nvidia,tegra234"));
    assert_eq!(cores(&hardware), [(1, Some("Cortex-A78AE"), None, None)]);
    let gpu = ("GPU", "NVIDIA integrated GPU", Some("nvgpu"), Some("/dev/nvgpu/igpu0/ctrl"), Some(true));
    assert_eq!(accelerators(&hardware), [gpu]);
    // A sensor without a value is absent, and no two have one name.
    let expected = [("gpu-thermal", 53_500, None), ("cpu-thermal", 51_000, None), ("gpu-thermal 2", 40_000, None)];
    assert_eq!(sensors(&health), expected);
    let storage = health.storage.expect("storage");
    assert_eq!((storage.medium, storage.wear_percent), (Some(Medium::Emmc), Some(110)));
    assert_eq!(storage.reserve, Some(Reserve::Urgent));
    assert!(health.strains.is_empty() && health.strains_since_boot.is_empty());
}

const ROCKCHIP: &str = r"
    proc/device-tree/model = Radxa ROCK 5B\0
    proc/device-tree/compatible = radxa,rock-5b\0rockchip,rk3588\0
    proc/cpuinfo = processor\t: 0\nFeatures\t: asimd asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd05\n\nprocessor\t: 4\nFeatures\t: asimd asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\nprocessor\t: 5\nFeatures\t: asimd asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n
    sys/devices/system/cpu/online = 0,4-5\n
    sys/devices/system/cpu/cpu0/cpu_capacity = 414\n
    sys/devices/system/cpu/cpu4/cpu_capacity = 1024\n
    sys/devices/system/cpu/cpu5/cpu_capacity = 1024\n
    sys/devices/system/cpu/cpu5/cpufreq/cpuinfo_max_freq = 2400000\n
    sys/class/drm/renderD129/device/uevent = DRIVER=RKNPU\nOF_COMPATIBLE_0=rockchip,rk3588-rknpu\n
    dev/dri/renderD129 = x
    sys/class/accel/accel0/device/uevent = DRIVER=rocket\n
    dev/accel/accel0 = x
";

#[test]
fn a_rockchip_board_with_two_kinds_of_cores() {
    let (hardware, health) = read(ROCKCHIP, "/var/lib/muster");
    assert_eq!(hardware.board.as_ref().map(|board| board.model.as_str()), Some("Radxa ROCK 5B"));
    let kinds = [(2, Some("Cortex-A76"), Some(1024), Some(2_400_000)), (1, Some("Cortex-A55"), Some(414), None)];
    assert_eq!(cores(&hardware), kinds);
    let npus = [
        ("NPU", "rockchip,rk3588-rknpu", Some("RKNPU"), Some("/dev/dri/renderD129"), Some(true)),
        ("NPU", "Rockchip NPU", Some("rocket"), Some("/dev/accel/accel0"), Some(true)),
    ];
    assert_eq!(accelerators(&hardware), npus);
    assert_eq!(health, Health::default());
}

const LAPTOP: &str = r"
    sys/class/dmi/id/product_name = ThinkPad T14 Gen 3\n
    sys/class/dmi/id/sys_vendor = LENOVO\n
    proc/sys/kernel/osrelease = 6.12.9-amd64\n
    proc/cpuinfo = processor\t: 0\nmodel name\t: 12th Gen Intel(R) Core(TM) i5-1240P\nflags\t\t: fpu sse4_2 avx f16c fma avx2 avx_vnni\n\nprocessor\t: 1\nflags\t\t: fpu sse4_2 avx f16c fma avx2 avx_vnni\n\nprocessor\t: 2\nflags\t\t: fpu sse4_2 avx f16c fma avx2\n
    sys/devices/system/cpu/online = 0-2\n
    sys/devices/cpu_core/cpus = 0-1\n
    sys/devices/cpu_atom/cpus = 2\n
    sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq = 4400000\n
    sys/devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq = 4300000\n
    sys/devices/system/cpu/cpu2/cpufreq/cpuinfo_max_freq = 3300000\n
    sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count = 17\n
    sys/class/drm/renderD128/device/uevent = DRIVER=i915\nPCI_ID=8086:46A6\n
    sys/class/drm/renderD129/device/uevent = DRIVER=nvidia\nPCI_ID=10DE:2204\n
    sys/class/accel/accel0/device/uevent = DRIVER=intel_vpu\n
    dev/nvidia0 = x
    dev/nvidiactl = x
    proc/driver/nvidia/gpus/0000:01:00.0/information = Model: \t\t NVIDIA GeForce RTX 3080\nIRQ:   \t\t 170\nDevice Minor: \t 0\n
    sys/class/power_supply/AC/type = Mains\n
    sys/class/power_supply/AC/online = 0\n
    sys/class/power_supply/BAT0/type = Battery\n
    sys/class/power_supply/BAT0/capacity = 71\n
    sys/class/power_supply/BAT0/status = Discharging\n
    sys/class/power_supply/hidpp_battery_0/type = Battery\n
    sys/class/power_supply/hidpp_battery_0/scope = Device\n
    sys/class/power_supply/hidpp_battery_0/capacity = 5\n
    sys/class/hwmon/hwmon3/name = nvme\n
    sys/class/hwmon/hwmon3/temp1_input = 38850\n
    sys/class/hwmon/hwmon3/temp1_label = Composite\n
    sys/class/hwmon/hwmon3/temp1_crit = 84850\n
    sys/class/hwmon/hwmon3/temp2_input = 65261850\n
    proc/self/mountinfo = 22 1 0:25 /@ / rw - btrfs /dev/mapper/luks rw,subvol=/@\n25 22 0:30 / /tmp\040dir rw - tmpfs tmpfs rw\n
    sys/class/block/luks -> ../../devices/virtual/block/dm-0
    sys/devices/virtual/block/dm-0/slaves/nvme0n1p3 -> ../../../../pci0000:00/nvme/nvme0/nvme0n1/nvme0n1p3
    sys/devices/pci0000:00/nvme/nvme0/nvme0n1/nvme0n1p3/partition = 3\n
";

#[test]
fn a_laptop_on_its_battery() {
    let (hardware, health) = read(LAPTOP, "/home/me/muster");
    let board = hardware.board.as_ref().expect("a board");
    assert_eq!((board.model.as_str(), board.vendor.as_deref()), ("ThinkPad T14 Gen 3", Some("LENOVO")));
    assert_eq!(hardware.soc, None);
    let kinds = [(2, Some("performance"), None, Some(4_400_000)), (1, Some("efficient"), None, Some(3_300_000))];
    assert_eq!(cores(&hardware), kinds);
    // What only some of its cores can do is not said of the processor.
    assert_eq!(hardware.cpu_features, ["sse4.2", "f16c", "fma", "avx", "avx2"]);
    assert_eq!(
        accelerators(&hardware),
        [
            ("GPU", "NVIDIA GeForce RTX 3080", Some("nvidia"), Some("/dev/nvidia0"), Some(true)),
            ("GPU", "Intel graphics", Some("i915"), None, None),
            ("NPU", "Intel NPU", Some("intel_vpu"), None, None),
        ]
    );
    let power: Vec<_> = health.power.iter().map(|it| (it.kind, it.online, it.percent, it.state)).collect();
    let battery = (PowerKind::Battery, None, Some(71), Some(BatteryState::Discharging));
    assert_eq!(power, [(PowerKind::Mains, Some(false), None, None), battery]);
    assert_eq!(super::power::on_mains(&health.power), Some(false));
    assert_eq!(super::power::battery_percent(&health.power), Some(71));
    assert_eq!(sensors(&health), [("nvme Composite", 38_850, Some(84_850))]);
    assert!(health.strains.is_empty());
    assert_eq!(health.strains_since_boot, [Strain::Throttled]);
    // Through the encrypted volume to the disk below it.
    let storage = health.storage.expect("storage");
    assert_eq!((storage.device.as_deref(), storage.medium), (Some("nvme0n1"), Some(Medium::Nvme)));
    assert_eq!(storage.filesystem.as_deref(), Some("btrfs"));
}

const MACHINE_OF_A_CLOUD: &str = r"
    sys/class/dmi/id/product_name = To be filled by O.E.M.\n
    sys/class/dmi/id/board_name = Default string\n
    sys/class/dmi/id/sys_vendor = QEMU\n
    proc/cpuinfo = processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx avx2 fma avx512f\n
    sys/devices/system/cpu/online = 0\n
    sys/class/thermal/cooling_device0/type = Processor\n
    sys/class/thermal/cooling_device0/cur_state = 0\n
    proc/self/mountinfo = 22 1 254:1 / / rw - ext4 /dev/vda1 rw\n23 22 0:9 / /data ro,nosuid - overlay overlay rw\n
    sys/devices/pci0000:00/virtio2/block/vda/vda1/partition = 1\n
    sys/dev/block/254:1 -> ../../devices/pci0000:00/virtio2/block/vda/vda1
";

#[test]
fn a_virtual_machine_tells_little_and_nothing_is_made_up() {
    let (hardware, health) = read(MACHINE_OF_A_CLOUD, "/");
    assert_eq!((hardware.board.as_ref(), hardware.soc.as_ref()), (None, None));
    assert_eq!(cores(&hardware), [(1, None, None, None)]);
    assert_eq!((hardware.memory_bytes, hardware.swap_bytes, hardware.kernel.as_ref()), (None, None, None));
    assert!(health.temperatures.is_empty() && health.power.is_empty() && health.strains.is_empty());
    assert_eq!(health.storage.and_then(|storage| storage.medium), Some(Medium::Virtual));
    assert_eq!(super::power::on_mains(&health.power), None);
    // Another file system may only be read, and is no disk's.
    let (_, health) = read(MACHINE_OF_A_CLOUD, "/data/muster");
    let storage = health.storage.expect("storage");
    assert_eq!((storage.read_only, storage.device, storage.medium), (true, None, None));
    assert!(health.read_only.is_empty(), "it is meant to be read only here");
}

#[test]
fn nothing_at_all_is_known_of_an_empty_tree() {
    let (hardware, health) = read("", "/");
    let libc = super::board::libc();
    assert_eq!((hardware, health), (Hardware { libc, ..Hardware::default() }, Health::default()));
}

#[test]
fn all_of_a_machine_that_has_too_much_of_everything_still_fits_a_report() {
    use std::fmt::Write as _;
    let mut tree = String::new();
    let mut add = |line: std::fmt::Arguments<'_>| writeln!(tree, "{line}").expect("written");
    let long = "ä".repeat(3000);
    add(format_args!("proc/device-tree/model = {long}"));
    add(format_args!("proc/device-tree/compatible = {}", "name\\0".repeat(500)));
    add(format_args!("sys/devices/system/cpu/online = 0-4294967295"));
    for at in 0..300 {
        add(format_args!("sys/devices/system/cpu/cpu{at}/cpu_capacity = {at}"));
        add(format_args!("dev/hailo{at} = x"));
        add(format_args!("sys/class/thermal/thermal_zone{at}/type = {long}"));
        add(format_args!("sys/class/thermal/thermal_zone{at}/temp = {at}"));
        add(format_args!("sys/class/power_supply/BAT{at}/type = Battery"));
    }
    let mounts: String = (0..2000).map(|at| format!("1 1 8:1 / /{at}{long} ro - ext4 x ro\\n")).collect();
    add(format_args!("proc/self/mountinfo = {mounts}"));
    let (hardware, health) = read(&tree, "/");
    let bytes = postcard::to_stdvec(&(&hardware, &health)).expect("encodes").len();
    assert!(bytes < 16 * 1024, "{bytes} bytes");
    assert_eq!(health.temperatures.first().map(|hottest| hottest.millicelsius), Some(299));
}
