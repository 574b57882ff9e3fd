//! What cloud-init is to find on its partition, beside what is there already.

/// The script that cloud-init runs, once for each instance.
pub const SCRIPT: &str = include_str!("../../device/stock/set-up");

/// `user-data` with the script, whatever stood there before; none: it is of a form that nothing can be added to.
pub fn user_data(before: Option<&str>) -> Option<String> {
    let before = before.unwrap_or_default();
    // Comments alone, as a fresh Raspberry Pi OS has them, say nothing.
    let says = |line: &str| !line.trim().is_empty() && (!line.starts_with('#') || line.starts_with("#!"));
    if !before.lines().any(says) {
        return Some(SCRIPT.to_owned());
    }
    if before == SCRIPT {
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
        part("text/x-shellscript", "muster", SCRIPT),
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
        assert_eq!(user_data(None).as_deref(), Some(SCRIPT));
        assert_eq!(user_data(Some("#cloud-config\n\n# hostname: x\n")).as_deref(), Some(SCRIPT));
        let both = user_data(Some("#cloud-config\nhostname: pi\n")).expect("joined");
        assert!(
            both.starts_with("Content-Type: multipart/mixed") && both.contains("hostname: pi") && both.contains(SCRIPT)
        );
        assert_eq!(user_data(Some(&both)), None, "twice is once too often");
        assert_eq!(user_data(Some("#include\nhttps://x\n")), None);
    }

    #[test]
    fn the_instance_is_a_new_one() {
        assert_eq!(meta_data(None, "7"), "instance-id: muster-7\n");
        let before = "instance-id: rpios-image\nlocal-hostname: pi\n";
        assert_eq!(meta_data(Some(before), "7"), "instance-id: muster-7\nlocal-hostname: pi\n");
    }
}
