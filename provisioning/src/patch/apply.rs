//! Makes the changes of a plan in a raw image.

use std::fs::File;
use std::io;
use std::path::Path;

use super::ext4::{Ext4Error, Place, What, Write};
use super::plan::{Plan, Way};
use crate::disk::{Window, fat};

/// Why a change failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ApplyError {
    #[error("cannot change the image's boot partition")]
    Boot(#[source] io::Error),
    #[error(transparent)]
    Ext4(#[from] Ext4Error),
}

/// Makes them. The image is a copy of the user's: where this fails, the copy is thrown away.
pub fn apply(image: &Path, plan: &Plan) -> Result<(), ApplyError> {
    let writes: Vec<Write> = plan.changes.iter().map(|change| change.write.clone()).collect();
    match plan.way {
        Way::Inject => Ok(Place::new(image, &plan.partition)?.write(&writes)?),
        Way::NoCloud => boot(image, plan, &writes).map_err(ApplyError::Boot),
    }
}

fn boot(image: &Path, plan: &Plan, writes: &[Write]) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(image)?;
    let mut window = Window::new(&file, plan.partition.start, plan.partition.bytes)?;
    fat::change(&mut window, |system| {
        for write in writes {
            if let What::File(bytes, _) = &write.what {
                fat::put(system, &write.path, bytes)?;
            }
        }
        Ok(())
    })?;
    file.sync_all()
}
