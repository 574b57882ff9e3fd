//! What cloud-init is to find on its partition, beside what is there already.

/// The script that cloud-init runs at each boot; it knows whether it is done.
pub const SCRIPT: &str = include_str!("../../device/stock/set-up");

/// What user-data has of it. A script there is run once, done or not; a hook runs at every boot, but before all is
/// mounted. So this hook puts the script where every boot runs it at its end.
fn hook() -> String {
    format!(
        "#cloud-boothook\n#!/bin/sh\nset -e\nfolder=/var/lib/cloud/scripts\nmkdir -p $folder/per-boot\n\
         cat >$folder/muster.new <<'{END}'\n{SCRIPT}{END}\n\
         chmod 0755 $folder/muster.new\nsync\nmv -f $folder/muster.new $folder/per-boot/muster\n"
    )
}

/// The line that ends the script inside of the hook.
const END: &str = "END-OF-MUSTER-SET-UP";

/// `user-data` with the script, whatever stood there before; none: it is of a form that nothing can be added to.
pub fn user_data(before: Option<&str>) -> Option<String> {
    let before = before.unwrap_or_default();
    // Comments alone, as a fresh Raspberry Pi OS has them, say nothing.
    let says = |line: &str| !line.trim().is_empty() && (!line.starts_with('#') || line.starts_with("#!"));
    if !before.lines().any(says) {
        return Some(hook());
    }
    if before == hook() {
        return Some(before.to_owned());
    }
    let kind = if before.starts_with("#cloud-config") {
        "text/cloud-config"
    } else if before.starts_with("#!") {
        "text/x-shellscript"
    } else {
        return None;
    };
    let mark = "==muster==";
    if before.contains(mark) {
        return None;
    }
    let part = |kind: &str, name: &str, text: &str| {
        format!(
            "--{mark}\nContent-Type: {kind}; charset=\"utf-8\"\nMIME-Version: 1.0\nContent-Disposition: attachment; filename=\"{name}\"\n\n{text}\n"
        )
    };
    Some(format!(
        "Content-Type: multipart/mixed; boundary=\"{mark}\"\nMIME-Version: 1.0\n\n{}{}--{mark}--\n",
        part(kind, "before", before),
        part("text/cloud-boothook", "muster", &hook()),
    ))
}

/// `meta-data` with an instance id of this patch, so that cloud-init takes the machine for a new one.
pub fn meta_data(before: Option<&str>, instance: &str) -> String {
    let line = format!("instance-id: muster-{instance}\n");
    let others = before.unwrap_or_default().lines().filter(|text| !is_instance(text));
    line + &others.map(|text| format!("{text}\n")).collect::<String>()
}

fn is_instance(text: &str) -> bool {
    text.trim_start().starts_with("instance-id:") || text.trim_start().starts_with("instance_id:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stood_there_stays() {
        assert_eq!(user_data(None), Some(hook()));
        assert_eq!(user_data(Some("#cloud-config\n\n# hostname: x\n")), Some(hook()));
        assert_eq!(user_data(Some(&hook())), Some(hook()));
        let both = user_data(Some("#cloud-config\nhostname: pi\n")).expect("joined");
        assert!(
            both.starts_with("Content-Type: multipart/mixed")
                && both.contains("hostname: pi")
                && both.contains(&hook())
        );
        assert_eq!(user_data(Some(&both)), None, "twice is once too often");
        assert_eq!(user_data(Some("#include\nhttps://x\n")), None);
    }

    #[test]
    fn a_set_up_that_was_cut_off_is_run_again_by_every_boot() {
        let folder = tempfile::tempdir().expect("a folder");
        let here = hook().replace("/var/lib/cloud", &folder.path().display().to_string());
        for _ in 0..2 {
            let output = std::process::Command::new("sh").args(["-c", &here]).output().expect("a shell");
            assert!(output.status.success(), "{output:?}");
        }
        let script = folder.path().join("scripts/per-boot/muster");
        let inside = SCRIPT.replace("/var/lib/cloud", &folder.path().display().to_string());
        assert_eq!(std::fs::read_to_string(&script).expect("a script"), inside);
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&script.metadata().expect("it").permissions()) & 0o777,
            0o755
        );
        assert!(!SCRIPT.contains(END));
    }

    #[test]
    fn the_instance_is_a_new_one() {
        assert_eq!(meta_data(None, "7"), "instance-id: muster-7\n");
        let before = "instance-id: rpios-image\nlocal-hostname: pi\n";
        assert_eq!(meta_data(Some(before), "7"), "instance-id: muster-7\nlocal-hostname: pi\n");
    }
}
