//! What a closed sandbox refuses and what it leaves, tried by real processes: this program starts itself
//! again in a role, which closes all of the sandbox, a part or nothing, tries everything and tells.
//!
//! The role that closes nothing shows that each attempt would have come through; the ones that close a part
//! show which part refuses it, so that a check that is taken out is missed.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::time::{Duration, Instant};

use muster_agent::worker::sandbox::{self, Accelerator, Confinement, landlock, limits, seccomp, status_bytes};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};

/// Says which role this process has; absent: the tests.
const ROLE: &str = "MUSTER_SANDBOX_ROLE";
/// What a role needs to know, as JSON.
const PLACE: &str = "MUSTER_SANDBOX_PLACE";
const MEMORY_BYTES: u64 = 64 << 20;
const END_DEADLINE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(ROLE) {
        let place = std::env::var(PLACE).expect("a place");
        play(&role, &serde_json::from_str(&place).expect("a place"));
        return ExitCode::SUCCESS;
    }
    let tests: [(&str, fn()); 9] = [
        ("the_open_process_reaches_everything", the_open_process_reaches_everything),
        ("the_closed_process_reaches_nothing", the_closed_process_reaches_nothing),
        ("landlock_alone_refuses_its_part", landlock_alone_refuses_its_part),
        ("seccomp_alone_refuses_its_part", seccomp_alone_refuses_its_part),
        ("limits_alone_refuse_their_part", limits_alone_refuse_their_part),
        ("what_computing_needs_goes_on", what_computing_needs_goes_on),
        ("an_open_file_takes_nothing_more", an_open_file_takes_nothing_more),
        ("an_end_by_its_own_hand_is_told_as_before", an_end_by_its_own_hand_is_told_as_before),
        ("a_worker_ends_with_the_agent", a_worker_ends_with_the_agent),
    ];
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, test) in tests {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            test();
            println!("test {name} ... ok");
        }
    }
    ExitCode::SUCCESS
}

/// What the roles find outside.
#[derive(Clone, Serialize, Deserialize)]
struct Place {
    folder: PathBuf,
    tcp: std::net::SocketAddr,
    /// A process that may be signalled.
    other: i32,
}

impl Place {
    fn model(&self) -> PathBuf {
        self.folder.join("model.bin")
    }

    fn weights(&self) -> PathBuf {
        self.folder.join("weights")
    }

    fn secret(&self) -> PathBuf {
        self.folder.join("secret.txt")
    }

    fn abstract_name(&self) -> io::Result<SocketAddr> {
        SocketAddr::from_abstract_name(self.folder.as_os_str().as_encoded_bytes())
    }

    fn confinement(&self) -> Confinement {
        let read_only = vec![self.model(), self.weights()];
        Confinement { memory_bytes: MEMORY_BYTES, cpu_milli: Some(500), read_only, accelerator: Accelerator::None }
    }
}

/// The outside while a test runs.
struct Outside {
    place: Place,
    other: Child,
    _folder: tempfile::TempDir,
    _listeners: (TcpListener, UnixListener, UnixListener),
}

impl Outside {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let other = Command::new("sleep").arg("600").spawn().expect("a process");
        let place = Place {
            folder: folder.path().to_owned(),
            tcp: tcp.local_addr().expect("an address"),
            other: other.id() as i32,
        };
        std::fs::write(place.model(), "model").expect("a file");
        std::fs::create_dir(place.weights()).expect("a folder");
        std::fs::write(place.weights().join("part.bin"), "part").expect("a file");
        std::fs::write(place.secret(), "secret").expect("a file");
        std::fs::write(place.folder.join("spare.txt"), "spare").expect("a file");
        std::os::unix::fs::symlink("../secret.txt", place.weights().join("link")).expect("a link");
        let unix = UnixListener::bind(place.folder.join("socket")).expect("a socket");
        let hidden = UnixListener::bind_addr(&place.abstract_name().expect("a name")).expect("a socket");
        Self { place, other, _folder: folder, _listeners: (tcp, unix, hidden) }
    }

    fn command(&self, role: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.env(ROLE, role).env(PLACE, serde_json::to_string(&self.place).expect("it is text"));
        command.stdin(Stdio::null());
        command
    }

    fn play(&self, role: &str) -> Output {
        self.command(role).output().expect("it runs")
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.other.kill();
        let _ = self.other.wait();
    }
}

/// Starts a role and reads what came of each attempt.
fn outcomes(role: &str) -> BTreeMap<String, Outcome> {
    let output = Outside::new().play(role);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{role}: {} {stderr}", output.status);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{role}: {error}; {stderr}"))
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Outcome {
    Reached(String),
    Refused,
}

/// Refused is what the kernel calls so; whatever else came, the attempt got further than that.
fn outcome(result: io::Result<()>) -> Outcome {
    match result {
        Ok(()) => Outcome::Reached("done".into()),
        Err(error) => match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Outcome::Refused,
            // As RLIMIT_DATA and RLIMIT_NOFILE refuse.
            Some(libc::EMFILE) => Outcome::Refused,
            None if error.kind() == io::ErrorKind::OutOfMemory => Outcome::Refused,
            _ => Outcome::Reached(error.to_string()),
        },
    }
}

/// Which part of the sandbox refuses an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Parts {
    /// From this version on.
    landlock: Option<i32>,
    seccomp: bool,
    limits: bool,
}

const LANDLOCK: Parts = Parts { landlock: Some(1), seccomp: false, limits: false };
const SECCOMP: Parts = Parts { landlock: None, seccomp: true, limits: false };
const LIMITS: Parts = Parts { landlock: None, seccomp: false, limits: true };
const BOTH: Parts = both(1);

const fn both(landlock: i32) -> Parts {
    Parts { landlock: Some(landlock), seccomp: true, limits: false }
}

type Attempt = fn(&Place) -> io::Result<()>;

/// Every attempt, harmless where it comes through. In the order in which they are made: the last ones change
/// the process.
const ATTEMPTS: &[(&str, Parts, Attempt)] = &[
    ("read another file", LANDLOCK, |place| std::fs::read(place.secret()).map(drop)),
    ("read a file of the system", LANDLOCK, |_| std::fs::read("/etc/passwd").map(drop)),
    ("read through a link", LANDLOCK, |place| std::fs::read(place.weights().join("link")).map(drop)),
    ("read through a parent", LANDLOCK, |place| std::fs::read(place.weights().join("../secret.txt")).map(drop)),
    ("read in a thread", LANDLOCK, |place| {
        let secret = place.secret();
        std::thread::spawn(move || std::fs::read(secret).map(drop)).join().expect("no panic")
    }),
    ("read its environment", LANDLOCK, |_| std::fs::read("/proc/self/environ").map(drop)),
    ("read another process's memory map", LANDLOCK, |place| {
        std::fs::read(format!("/proc/{}/maps", place.other)).map(drop)
    }),
    ("list another folder", LANDLOCK, |place| std::fs::read_dir(&place.folder).map(drop)),
    ("make a file", BOTH, |place| File::create(place.folder.join("new")).map(drop)),
    ("make a file beside the weights", BOTH, |place| File::create(place.weights().join("new")).map(drop)),
    ("change the model", BOTH, |place| OpenOptions::new().append(true).open(place.model()).map(drop)),
    ("write to a device", BOTH, |_| OpenOptions::new().write(true).open("/dev/null").map(drop)),
    ("make a folder", BOTH, |place| std::fs::create_dir(place.folder.join("folder"))),
    ("make a link", BOTH, |place| std::os::unix::fs::symlink("a", place.folder.join("b"))),
    ("make a name", BOTH, |place| std::fs::hard_link(place.model(), place.folder.join("name"))),
    ("move a file", BOTH, |place| std::fs::rename(place.weights().join("part.bin"), place.weights().join("moved"))),
    ("remove a file", BOTH, |place| std::fs::remove_file(place.folder.join("spare.txt"))),
    ("change who may read", SECCOMP, |place| std::fs::set_permissions(place.model(), PermissionsExt::from_mode(0o600))),
    ("connect over TCP", both(4), |place| TcpStream::connect(place.tcp).map(drop)),
    ("listen on TCP", both(4), |_| TcpListener::bind("127.0.0.1:0").map(drop)),
    ("connect over TCP in a thread", both(4), |place| {
        let tcp = place.tcp;
        std::thread::spawn(move || TcpStream::connect(tcp).map(drop)).join().expect("no panic")
    }),
    ("send over UDP", both(10), |place| {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.send_to(b"x", place.tcp).map(drop)
    }),
    ("connect to a socket in the file system", both(9), |place| {
        UnixStream::connect(place.folder.join("socket")).map(drop)
    }),
    ("connect to an abstract socket", both(6), |place| UnixStream::connect_addr(&place.abstract_name()?).map(drop)),
    ("make a pair of sockets", SECCOMP, |_| UnixStream::pair().map(drop)),
    ("run a program", BOTH, |_| Command::new("/bin/true").status().map(drop)),
    // Where it came through there is nothing to become.
    ("become a program", SECCOMP, |_| Ok(nix::unistd::execv(c"/nothing", &[c"/nothing"]).map(drop)?)),
    ("signal another process", both(6), |place| Ok(rustix::process::kill_process(other(place), Signal::CONT)?)),
    ("hold another process", SECCOMP, |place| {
        let flags = rustix::process::PidfdFlags::empty();
        Ok(rustix::process::pidfd_open(other(place), flags).map(drop)?)
    }),
    ("trace another process", BOTH, |place| {
        let other = nix::unistd::Pid::from_raw(place.other);
        nix::sys::ptrace::attach(other)?;
        nix::sys::wait::waitpid(other, None)?;
        Ok(nix::sys::ptrace::detach(other, None)?)
    }),
    ("make memory that has no file", SECCOMP, |_| {
        Ok(rustix::fs::memfd_create("m", rustix::fs::MemfdFlags::CLOEXEC).map(drop)?)
    }),
    ("change its limits", SECCOMP, |_| {
        Ok(rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?)
    }),
    ("outlive the agent", SECCOMP, |_| Ok(rustix::process::set_parent_process_death_signal(None)?)),
    ("take more memory", LIMITS, |_| allocate(2 * MEMORY_BYTES as usize)),
    ("open many files", LIMITS, |place| {
        let files: io::Result<Vec<File>> = (0..100).map(|_| File::open(place.model())).collect();
        files.map(drop)
    }),
    // There is no such file system.
    ("mount", BOTH, |place| {
        let (none, flags) = (None::<&str>, nix::mount::MsFlags::empty());
        Ok(nix::mount::mount(none, &place.weights(), Some("nonesuch"), flags, none)?)
    }),
    ("make a name space", SECCOMP, |_| Ok(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS)?)),
];

fn other(place: &Place) -> Pid {
    Pid::from_raw(place.other).expect("a process")
}

fn allocate(bytes: usize) -> io::Result<()> {
    let mut memory: Vec<u8> = vec![];
    memory.try_reserve_exact(bytes).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    memory.resize(bytes, 1);
    Ok(())
}

/// One life of this program as another than the tests.
fn play(role: &str, place: &Place) {
    match role {
        "open" => attempt(place),
        "closed" => {
            // A thread from before: the filter must take it too.
            let (go, late) = late_thread();
            sandbox::close(&place.confinement()).expect("it closes");
            go.send(()).expect("the thread waits");
            let bound = late.recv().expect("it answers");
            assert!(matches!(outcome(bound), Outcome::Refused) || !seccomp::available());
            attempt(place);
        }
        "landlock" => {
            rustix::thread::set_no_new_privs(true).expect("it is set");
            landlock::close(&[place.model(), place.weights()], Accelerator::None).expect("it closes");
            attempt(place);
        }
        "seccomp" => {
            let filter = seccomp::Filter::compile(Accelerator::None).expect("it compiles");
            filter.close().expect("it closes");
            attempt(place);
        }
        "limits" => {
            limits::open_status().expect("it is there");
            limits::close(MEMORY_BYTES, Accelerator::None).expect("it closes");
            attempt(place);
        }
        "compute" => {
            sandbox::close(&place.confinement()).expect("it closes");
            compute(place);
        }
        "write" => {
            let mut file = File::create(place.folder.join("open before")).expect("a file");
            sandbox::close(&place.confinement()).expect("it closes");
            let written = file.write_all(b"x");
            println!("{written:?}");
        }
        "abort" => {
            sandbox::close(&place.confinement()).expect("it closes");
            std::process::abort();
        }
        "agent" => {
            let outside = std::env::current_exe().expect("this program");
            let worker = Command::new(outside).env(ROLE, "worker").stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
            let stdout = worker.map(|mut worker| worker.stdout.take()).expect("it starts");
            let mut ready = [0];
            stdout.expect("a pipe").read_exact(&mut ready).expect("it closed its sandbox");
            // And ends without a word to its worker, which keeps the tests' stream open.
        }
        "worker" => {
            sandbox::close(&place.confinement()).expect("it closes");
            io::stdout().write_all(b"x").expect("it is read");
            io::stdout().flush().expect("it is read");
            std::thread::sleep(END_DEADLINE * 6);
        }
        other => panic!("no role {other}"),
    }
}

/// Tries everything and tells.
fn attempt(place: &Place) {
    let tried: BTreeMap<&str, Outcome> =
        ATTEMPTS.iter().map(|(name, _, attempt)| (*name, outcome(attempt(place)))).collect();
    println!("{}", serde_json::to_string(&tried).expect("it is text"));
}

fn late_thread() -> (std::sync::mpsc::SyncSender<()>, Receiver<io::Result<()>>) {
    let ((go, wait), (tell, told)) = (sync_channel(0), channel());
    std::thread::spawn(move || {
        let _ = wait.recv();
        let _ = tell.send(UdpSocket::bind("127.0.0.1:0").map(drop));
    });
    (go, told)
}

/// What engines and the standard library do all the time.
fn compute(place: &Place) {
    assert_eq!(std::fs::read(place.model()).expect("it may be read"), b"model");
    assert_eq!(std::fs::read(place.weights().join("part.bin")).expect("it may be read"), b"part");
    assert_eq!(std::fs::read_dir(place.weights()).expect("it may be listed").count(), 2);
    assert_eq!(std::fs::metadata(place.model()).expect("it may be seen").len(), 5);
    allocate(MEMORY_BYTES as usize / 2).expect("within its grant");
    let threads: Vec<_> = (0..8)
        .map(|number| {
            let work = move || (0..1000).map(|_| vec![number; 4096].len()).sum::<usize>();
            std::thread::Builder::new().name(format!("compute {number}")).spawn(work).expect("a thread")
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().expect("no panic"), 4_096_000);
    }
    let began = Instant::now();
    std::thread::sleep(Duration::from_millis(20));
    assert!(began.elapsed() >= Duration::from_millis(20));
    assert!(std::time::SystemTime::now() > std::time::UNIX_EPOCH);
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    assert!(used.tv_sec > 0 || used.tv_nsec > 0);
    assert!(std::thread::available_parallelism().is_ok());
    // Its order is random: the kernel is asked for chance.
    assert_eq!(std::collections::HashMap::from([(1, 2)]).get(&1), Some(&2));
    let (_keep, never) = channel::<()>();
    assert!(never.recv_timeout(Duration::from_millis(5)).is_err());
    assert!(std::panic::catch_unwind(|| panic!("as an engine does")).is_err());
    let most = status_bytes("VmHWM");
    assert!(most.is_some_and(|bytes| bytes > MEMORY_BYTES / 2), "{most:?}");
    println!("computed");
}

fn the_open_process_reaches_everything() {
    for (name, outcome) in outcomes("open") {
        // Not everybody may trace or mount: then this machine cannot show what the sandbox adds.
        let needs_rights = ["trace another process", "mount", "make a name space"].contains(&name.as_str());
        if needs_rights && outcome == Outcome::Refused {
            println!("not shown here: {name}");
            continue;
        }
        assert!(matches!(outcome, Outcome::Reached(_)), "{name}: {outcome:?}");
    }
}

/// Exactly what `refuses` says is refused: no less, and no more than the part is thought to do.
fn check(role: &str, refuses: impl Fn(Parts) -> bool) {
    let open = outcomes("open");
    let outcomes = outcomes(role);
    for (name, parts, _) in ATTEMPTS {
        let refused = outcomes[*name] == Outcome::Refused;
        let expected = refuses(*parts) || open[*name] == Outcome::Refused;
        assert_eq!(refused, expected, "{role}: {name}: {:?}", outcomes[*name]);
    }
}

fn by_landlock(parts: Parts) -> bool {
    parts.landlock.is_some_and(|since| landlock::abi() >= since)
}

fn by_seccomp(parts: Parts) -> bool {
    parts.seccomp && seccomp::available()
}

fn the_closed_process_reaches_nothing() {
    check("closed", |parts| by_landlock(parts) || by_seccomp(parts) || parts.limits);
}

fn landlock_alone_refuses_its_part() {
    check("landlock", by_landlock);
}

fn seccomp_alone_refuses_its_part() {
    check("seccomp", by_seccomp);
}

fn limits_alone_refuse_their_part() {
    check("limits", |parts| parts.limits);
}

fn what_computing_needs_goes_on() {
    let output = Outside::new().play("compute");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "computed\n", "{}", String::from_utf8_lossy(&output.stderr));
}

fn an_open_file_takes_nothing_more() {
    let outside = Outside::new();
    let output = outside.play("write");
    assert_eq!(output.status.signal(), Some(Signal::XFSZ.as_raw()), "{output:?}");
    assert_eq!(std::fs::read(outside.place.folder.join("open before")).expect("a file"), b"");
}

fn an_end_by_its_own_hand_is_told_as_before() {
    assert_eq!(Outside::new().play("abort").status.signal(), Some(Signal::ABORT.as_raw()));
}

fn a_worker_ends_with_the_agent() {
    let outside = Outside::new();
    // The worker has the tests' error stream: that it ends says that nobody holds it any more.
    let mut agent = outside.command("agent").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stream = agent.stderr.take().expect("a pipe");
    let (tell, told) = channel();
    std::thread::spawn(move || tell.send(stream.read_to_end(&mut vec![])));
    told.recv_timeout(END_DEADLINE).expect("the worker is gone").expect("it is read");
    assert!(agent.wait().expect("it ended").success());
}
