//! Where secret keys must not be made: on a control plane, whose thief must not get what signs bundles
//! and roots.

use std::path::Path;

use crate::error::{Failure, Result};

/// What shows that a folder is a control plane's data.
const SIGNS_OF_A_SERVER: [&str; 3] = ["state.db", "director.pem", "ca.pem"];

/// Refuses a path in or below a control plane's data folder.
pub fn refuse_server(path: &Path) -> Result<()> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let found = absolute.ancestors().skip(1).find(|folder| {
        let signs = SIGNS_OF_A_SERVER.iter().filter(|name| folder.join(name).exists()).count();
        // One file of such a name may be anything; a control plane has all of them.
        signs >= 2
    });
    match found {
        None => Ok(()),
        Some(folder) => Err(Failure::new(format!(
            "{} lies in {}, a control plane's data: keys that sign off line are not put on a server",
            path.display(),
            folder.display()
        ))
        .hint("make them on your own machine, or name another folder with --dir")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_made_below_a_control_planes_data() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("keys/home/root.pem");
        assert!(refuse_server(&key).is_ok());
        std::fs::write(folder.path().join("state.db"), "").expect("writes");
        std::fs::write(folder.path().join("director.pem"), "").expect("writes");
        assert!(refuse_server(&key).is_err());
        assert!(refuse_server(&folder.path().join("root.pem")).is_err());
        assert!(refuse_server(folder.path()).is_ok(), "beside it is another place");
    }
}
