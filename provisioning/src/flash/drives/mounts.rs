//! What is mounted and what swaps, from the kernel's own tables.

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The device, as `major:minor`. File systems over several devices (btrfs) have a number of their own.
    pub number: String,
    /// What was mounted, as it was named: `/dev/sda2`.
    pub source: String,
    /// Where.
    pub at: String,
}

/// The mounts in the text of `/proc/self/mountinfo`. Lines that have another form are left out.
pub fn mounts(text: &str) -> Vec<Mount> {
    let line = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ');
        let number = before.nth(2)?.to_owned();
        let at = unescaped(before.nth(1)?);
        let source = unescaped(after.split(' ').nth(1)?);
        Some(Mount { number, source, at })
    };
    text.lines().filter_map(line).collect()
}

/// What swaps, by the paths in the text of `/proc/swaps`.
pub fn swaps(text: &str) -> Vec<String> {
    text.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(unescaped).collect()
}

/// Blanks, tabs, newlines and backslashes stand as `\ooo` in these tables.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_the_kernel_are_read() {
        let text = "22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw\n\
                    31 22 8:17 / /media/my\\040card rw - vfat /dev/sdb1 rw\n\
                    40 22 0:35 / /data rw - btrfs /dev/sdc1 rw,space_cache\n\
                    nonsense\n41 22 0:5\n";
        let read = mounts(text);
        let short: Vec<_> =
            read.iter().map(|mount| format!("{} {} {}", mount.number, mount.source, mount.at)).collect();
        assert_eq!(short, ["8:2 /dev/sda2 /", "8:17 /dev/sdb1 /media/my card", "0:35 /dev/sdc1 /data"]);
        let text =
            "Filename\t\t\tType\t\tSize\tUsed\tPriority\n/dev/zram0  partition\t5\t0\t100\n/swap\\040file file 1 0 1\n";
        assert_eq!(swaps(text), ["/dev/zram0", "/swap file"]);
        assert_eq!(
            (unescaped("a\\"), unescaped("\\9x"), unescaped("\\777")),
            ("a\\".into(), "\\9x".into(), "\\777".into())
        );
    }
}
