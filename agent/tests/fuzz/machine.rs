//! What a kernel tells of its machine: a broken driver, or a folder that pretends to be `/sys`.

use muster_agent::doctor::{addresses, dns, heard};
use muster_agent::facts::{accelerators, board, cpu, roots, storage, throttling};
use muster_fuzz::alone;
use muster_shared::limits::{CPU_FEATURES_MAX, HARDWARE_TEXT_BYTES_MAX, MOUNTS_MAX};

const CPUINFO: &str = "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp\nCPU implementer\t: 0x41\nCPU part\t: \
                       0xd0b\n\nprocessor\t: 1\nflags\t\t: fma avx2 avx512f\nCPU part\t: 0xd05\n";
const MOUNTINFO: &str = "22 1 179:2 / / rw,noatime shared:1 - ext4 /dev/root rw\n\
                         30 22 259:1 / /boot\\040x rw - vfat /dev/nvme0n1p1 ro,errors=remount-ro\n";

#[test]
fn what_a_kernel_tells_is_read_or_passed_over() {
    let alone = alone();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    alone.parser("cpuinfo", [CPUINFO]).run(|bytes| {
        let info = cpu::parse(&text(bytes));
        assert!(info.features.len() <= CPU_FEATURES_MAX);
        !info.features.is_empty() || !info.parts.is_empty()
    });
    alone.parser("mountinfo", [MOUNTINFO]).run(|bytes| {
        let mounts = storage::mounts(&text(bytes));
        let read_only = storage::read_only(&mounts);
        assert!(read_only.len() <= MOUNTS_MAX && read_only.iter().all(|point| point.len() <= HARDWARE_TEXT_BYTES_MAX));
        let _ = storage::mount_of(&mounts, std::path::Path::new("/boot x/muster"));
        !mounts.is_empty()
    });
    alone.parser("meminfo", ["MemTotal:         945512 kB\nSwapTotal:        102396 kB\n"]).run(|bytes| {
        let table = text(bytes);
        board::kilobytes(&table, "MemTotal").is_some() || board::kilobytes(&table, "SwapTotal").is_some()
    });
    alone.parser("get_throttled", ["0x50005\n", "0\n"]).run(|bytes| throttling::parse(&text(bytes)).is_some());
    alone.parser("life_time", ["0x01 0x0b\n"]).run(|bytes| {
        let wear = storage::parse_wear(&text(bytes));
        assert!(wear.is_none_or(|percent| (10..=110).contains(&percent)));
        wear.is_some()
    });
    alone.parser("list of processors", ["0-3,8\n", "0-4294967295\n"]).run(|bytes| {
        let listed = roots::listed(&text(bytes));
        !listed.is_empty()
    });
    alone.parser("NVIDIA's information", ["Model: \t\t NVIDIA GeForce RTX 3080\nDevice Minor: \t 0\n"]).run(|bytes| {
        let read = accelerators::nvidia_information(&text(bytes));
        read.is_some_and(|(_, model)| model.len() <= HARDWARE_TEXT_BYTES_MAX)
    });
}

const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\neth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n";
const ADDRESSES_V6: &str = "fd000000000000000000000000000002 02 40 00 80     eth0\n";
const PAGE: &str =
    "HTTP/1.1 302 Found\r\nlocation: http://login.example/\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";

#[test]
fn what_networks_say_to_doctor_is_read_or_passed_over() {
    let alone = alone();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    alone.parser("routes", [ROUTES]).run(|bytes| addresses::routes_v4(&text(bytes)).any);
    alone.parser("addresses of IPv6", [ADDRESSES_V6]).run(|bytes| addresses::routes_v6("", &text(bytes)).any);
    alone.parser("resolv.conf", ["nameserver 10.0.0.53\nnameserver fe80::1%eth0\n"]).run(|bytes| {
        let named = addresses::nameservers(&text(bytes));
        assert!(named.len() <= 3);
        !named.is_empty()
    });
    let answer: &[u8] = &[0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    alone.parser("answers of resolvers", [answer]).run(|bytes| dns::answer(7, bytes).is_some());
    alone.parser("login pages", [PAGE]).run(|bytes| {
        let page = heard::page_of(bytes);
        assert!(page.as_ref().is_none_or(|page| page.len() <= 3 * HARDWARE_TEXT_BYTES_MAX));
        heard::date_of(bytes).is_some() || page.is_some()
    });
}
