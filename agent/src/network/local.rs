//! The local end of a connection: the MQTT client speaks to a socket in a folder of its own, and here is
//! what stands behind it. It is nobody else's: the folder is 0700, the one connection that is taken comes from this
//! very process, which the kernel says, and then the socket's name is gone.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tracing::warn;

const FOLDER: &str = "network";
const NAME: &str = "mqtt.sock";
/// How long our own client may take to connect.
const ACCEPT_TIME: Duration = Duration::from_secs(5);
/// Connections of others that are turned away; then the socket is made anew.
const STRANGERS_MAX: usize = 1000;

/// A socket that waits for the one connection.
#[derive(Debug)]
pub struct LocalEnd {
    listener: UnixListener,
    /// Held open: `path` goes through it.
    _folder: File,
    path: String,
    file: PathBuf,
}

impl LocalEnd {
    /// Makes the socket below `data`. What a crash left there goes.
    pub fn open(data: &Path) -> io::Result<Self> {
        let folder = data.join(FOLDER);
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW;
        let held = fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(&folder)?;
        let found = held.metadata()?;
        if found.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other(format!("{} belongs to another user", folder.display())));
        }
        if found.mode() & 0o777 != 0o700 {
            held.set_permissions(fs::Permissions::from_mode(0o700))?;
        }
        // A socket's path is short, a data folder's need not be.
        let path = format!("/proc/self/fd/{}/{NAME}", held.as_raw_fd());
        let file = folder.join(NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        Ok(Self { listener, _folder: held, path, file })
    }

    /// Where the client connects.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Takes the one connection that comes from this process, and removes the socket's name.
    pub async fn accept(self) -> io::Result<UnixStream> {
        let own = async {
            for _ in 0..STRANGERS_MAX {
                let (stream, _) = self.listener.accept().await?;
                if is_own(&stream)? {
                    return Ok(stream);
                }
                warn!(path = %self.file.display(), "another process tried to use the connection to the broker; turned away");
            }
            Err(io::Error::other("other processes keep connecting to the local end of the connection"))
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the MQTT client did not connect to its local end");
        timeout(ACCEPT_TIME, own).await.map_err(late)?
    }
}

impl Drop for LocalEnd {
    fn drop(&mut self) {
        // Another one may stand there already, or nothing.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether this very process is at the other end, as the kernel noted when it connected.
fn is_own(stream: &UnixStream) -> io::Result<bool> {
    let peer = stream.peer_cred()?;
    Ok(peer.pid() == i32::try_from(std::process::id()).ok() && peer.uid() == rustix::process::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::process::{Command, Stdio};

    use super::*;

    const STRANGER: &str = "MUSTER_TEST_STRANGER";

    /// Not a test: what [`stranger`] runs in another process.
    #[test]
    fn connects_as_a_stranger() {
        use std::io::Write as _;
        let Some(path) = std::env::var_os(STRANGER) else { return };
        let mut stream = std::os::unix::net::UnixStream::connect(path).expect("connects");
        eprintln!("in");
        let served = stream.write_all(b"x").is_ok() && stream.read(&mut [0; 1]).is_ok_and(|length| length > 0);
        eprintln!("{}", if served { "served" } else { "turned away" });
    }

    /// Another process of the same user that connects, and says what came of it.
    fn stranger(path: &Path) -> std::process::Child {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.args(["--exact", "network::local::tests::connects_as_a_stranger", "--nocapture", "--test-threads=1"]);
        command.env(STRANGER, path).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn another_process_of_the_same_user_is_turned_away_even_if_it_comes_first() {
        let data = tempfile::tempdir().expect("a folder");
        let end = LocalEnd::open(data.path()).expect("a socket");
        let mode = fs::metadata(data.path().join(FOLDER)).expect("a folder").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let (path, file) = (end.path().to_owned(), data.path().join(FOLDER).join(NAME));
        let mut stranger = stranger(&file);
        let mut said = stranger.stderr.take().expect("piped");
        // It is in the queue before we are.
        let mut line = [0; 3];
        said.read_exact(&mut line).expect("it says so");
        assert_eq!(&line, b"in\n");
        let accepted = tokio::spawn(end.accept());
        let own = UnixStream::connect(&path).await.expect("connects");
        let theirs = accepted.await.expect("no panic").expect("ours is taken");
        let mut rest = String::new();
        said.read_to_string(&mut rest).expect("it ends");
        let _ = stranger.wait();
        assert_eq!(rest.trim(), "turned away");
        own.writable().await.expect("open");
        assert_eq!(own.try_write(b"ours").expect("writes"), 4);
        theirs.readable().await.expect("open");
        let mut bytes = [0; 8];
        assert_eq!(theirs.try_read(&mut bytes).expect("reads"), 4);
        assert!(!file.exists(), "its name is gone");
        assert!(UnixStream::connect(&path).await.is_err(), "there is no second connection");
    }

    #[tokio::test]
    async fn what_a_crash_left_is_replaced_and_a_folder_that_others_may_enter_is_closed() {
        let data = tempfile::Builder::new().prefix(&"long".repeat(30)).tempdir().expect("a folder");
        let folder = data.path().join(FOLDER);
        fs::create_dir(&folder).expect("a folder");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("opens it");
        fs::write(folder.join(NAME), "left behind").expect("writes");
        let end = LocalEnd::open(data.path()).expect("a socket");
        assert_eq!(fs::metadata(&folder).expect("a folder").permissions().mode() & 0o777, 0o700);
        let path = end.path().to_owned();
        let (accepted, own) = tokio::join!(end.accept(), UnixStream::connect(&path));
        assert!(accepted.is_ok() && own.is_ok());
    }

    #[tokio::test]
    async fn a_link_in_the_folders_place_is_not_followed() {
        let data = tempfile::tempdir().expect("a folder");
        let elsewhere = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(elsewhere.path(), data.path().join(FOLDER)).expect("a link");
        assert!(LocalEnd::open(data.path()).is_err());
    }
}
