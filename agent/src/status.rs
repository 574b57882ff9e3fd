//! How this device stands with its control plane, for people and programs beside it: `DATA/status.json`, a line
//! on the console for each change, and a LED.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use muster_shared::id::UnixMs;
use muster_shared::limits::clip;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

/// The file's name below the data folder.
pub const FILE: &str = "status.json";
/// A longer file is none that an agent wrote.
const BYTES_MAX: u64 = 64 * 1024;

/// What `status.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// When this was written, by the device's clock.
    pub at_ms: UnixMs,
    /// How it stands.
    pub state: State,
    /// Since when it stands so.
    pub since: UnixMs,
    /// Which way the connection goes, or went last.
    pub via: Via,
    /// The other end, `host:port`: the broker, or the tunnel.
    pub broker: String,
    /// What is wrong, for a person, with the next move.
    pub error: Option<String>,
    /// What is wrong, for a program.
    pub error_kind: Option<ErrorKind>,
    /// The addresses that were tried last.
    pub addresses: Vec<String>,
    /// Whether a director has told this run of the agent the time.
    pub clock_confirmed: bool,
    /// A time that has surely passed.
    pub bound_ms: UnixMs,
}

impl Status {
    /// What is known of the time changed. A connection that waited for that stands from now on.
    pub fn clock_changed(&mut self, confirmed: bool, bound_ms: UnixMs) {
        (self.clock_confirmed, self.bound_ms) = (confirmed, bound_ms);
        if confirmed && self.state == State::TlsTime {
            self.state = State::Connected;
            (self.error, self.error_kind) = (None, None);
        }
    }
}

/// How the device stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// The agent begins; models start first.
    Starting,
    /// It asks for the control plane's address.
    Resolving,
    /// It connects.
    Connecting,
    /// It is connected, or would be, but does not know the time: nothing but signed documents is taken.
    TlsTime,
    /// It is connected.
    Connected,
    /// The control plane does not let it in.
    Held,
    /// There is no connection. What serves goes on.
    Offline,
}

/// Which way a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Via {
    /// To the broker's own port.
    Mqtt,
    /// Through the tunnel.
    Tunnel,
    /// Through the tunnel, behind a proxy.
    Proxy,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ErrorKind {
    /// No address.
    Dns,
    /// Refused, reset, no way there.
    Refused,
    /// No answer.
    Timeout,
    /// TLS fails, or a certificate is not taken.
    Tls,
    /// A certificate is not good at this time.
    Time,
    /// Revoked, held or unknown.
    NotLetIn,
    /// The proxy.
    Proxy,
    /// Something else answers in the control plane's place.
    Captive,
}

/// How the LED shows a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Off.
    Off,
    /// On.
    On,
    /// Two short flashes, a pause: the kernel's heartbeat.
    Heartbeat,
    /// On and off for so many milliseconds.
    Blink(u32, u32),
}

/// What the LED does in a state.
pub fn pattern(state: State) -> Pattern {
    match state {
        State::Starting | State::Resolving | State::Connecting => Pattern::Blink(500, 500),
        State::Connected => Pattern::On,
        State::TlsTime => Pattern::Heartbeat,
        State::Held => Pattern::Blink(100, 100),
        State::Offline => Pattern::Blink(100, 1900),
    }
}

/// Keeps the status, and shows each change.
#[derive(Debug, Clone)]
pub struct StatusKeeper {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    status: Status,
    file: PathBuf,
    led: Option<PathBuf>,
    told: Told,
}

/// What could not be written, told once.
#[derive(Debug, Default)]
struct Told {
    file: bool,
    led: bool,
}

impl StatusKeeper {
    /// Begins with [`State::Starting`].
    pub fn start(
        data: &Path,
        led: Option<PathBuf>,
        (via, broker): (Via, String),
        now_ms: UnixMs,
        bound_ms: UnixMs,
    ) -> Self {
        let status = Status {
            at_ms: now_ms,
            state: State::Starting,
            since: now_ms,
            via,
            broker,
            error: None,
            error_kind: None,
            addresses: vec![],
            clock_confirmed: false,
            bound_ms,
        };
        let mut inner = Inner { status, file: data.join(FILE), led, told: Told::default() };
        inner.write();
        inner.light();
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// The status as it is.
    pub fn now(&self) -> Status {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).status.clone()
    }

    /// Changes it; where anything differs, it is written, and where the state does, it is shown.
    pub fn change(&self, now_ms: UnixMs, change: impl FnOnce(&mut Status)) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let before = inner.status.clone();
        change(&mut inner.status);
        if inner.status == before {
            return;
        }
        inner.status.at_ms = now_ms;
        let shown = |status: &Status| (status.state, status.via, status.error_kind);
        if inner.status.state != before.state {
            inner.status.since = now_ms;
            inner.light();
        }
        if shown(&inner.status) != shown(&before) {
            tell(&inner.status);
        }
        inner.write();
    }
}

/// A line on the console.
fn tell(status: &Status) {
    let Status { state, via, broker, error, .. } = status;
    match state {
        State::Held => {
            warn!(?via, broker, error, "held: the control plane does not let this device in; what serves goes on")
        }
        State::Offline => warn!(?via, broker, error, "offline: trying again; what serves goes on"),
        State::TlsTime => warn!(?via, broker, error, "the time is not known: nothing but signed documents is taken"),
        _ => info!(?state, ?via, broker, "the connection's state"),
    }
}

impl Inner {
    fn write(&mut self) {
        let written = serde_json::to_vec(&self.status).map_err(io::Error::from);
        // Not made durable: after a power cut it is written anew, and flash wears.
        let temporary = self.file.with_extension("json.new");
        let written =
            written.and_then(|bytes| fs::write(&temporary, bytes)).and_then(|()| fs::rename(&temporary, &self.file));
        match written {
            Ok(()) => self.told.file = false,
            Err(error) if !self.told.file => {
                self.told.file = true;
                warn!(path = %self.file.display(), %error, "cannot write the status; it goes on without");
            }
            Err(_) => {}
        }
    }

    fn light(&mut self) {
        let Some(led) = &self.led else { return };
        match show(led, self.status.state) {
            Ok(()) => self.told.led = false,
            Err(error) if !self.told.led => {
                self.told.led = true;
                warn!(path = %led.display(), %error, "cannot set the status LED; it goes on without");
            }
            Err(_) => {}
        }
    }
}

/// Shows a state at a LED's folder (`/sys/class/leds/NAME`), or writes it to a plain file.
fn show(led: &Path, state: State) -> io::Result<()> {
    let pattern = pattern(state);
    if !led.is_dir() {
        return put(led, &format!("{} {}\n", name(state), words(pattern)));
    }
    match pattern {
        Pattern::Off => put(&led.join("trigger"), "none")?,
        Pattern::On => put(&led.join("trigger"), "default-on")?,
        Pattern::Heartbeat => put(&led.join("trigger"), "heartbeat")?,
        Pattern::Blink(on_ms, off_ms) => {
            put(&led.join("trigger"), "timer")?;
            // The trigger has made these.
            put(&led.join("delay_on"), &on_ms.to_string())?;
            put(&led.join("delay_off"), &off_ms.to_string())?;
        }
    }
    Ok(())
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    // A pipe that nobody reads must not hold up the agent.
    options.write(true).create(true).truncate(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    options.open(path)?.write_all(text.as_bytes())
}

fn words(pattern: Pattern) -> String {
    match pattern {
        Pattern::Off => "off".to_owned(),
        Pattern::On => "on".to_owned(),
        Pattern::Heartbeat => "heartbeat".to_owned(),
        Pattern::Blink(on_ms, off_ms) => format!("timer {on_ms} {off_ms}"),
    }
}

fn name(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Resolving => "resolving",
        State::Connecting => "connecting",
        State::TlsTime => "tlsTime",
        State::Connected => "connected",
        State::Held => "held",
        State::Offline => "offline",
    }
}

/// Notes an error, within its bound.
pub fn note(status: &mut Status, kind: ErrorKind, text: &str) {
    status.error = Some(clip(text.to_owned()));
    status.error_kind = Some(kind);
}

/// Reads the status that an agent left below `data`.
pub fn read(data: &Path) -> io::Result<Status> {
    let mut bytes = vec![];
    fs::File::open(data.join(FILE))?.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    of_bytes(&bytes)
}

/// What such a file says.
pub fn of_bytes(bytes: &[u8]) -> io::Result<Status> {
    if bytes.len() as u64 > BYTES_MAX {
        return Err(io::Error::other("it is longer than it ever is"));
    }
    Ok(serde_json::from_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeper(data: &Path, led: Option<PathBuf>) -> StatusKeeper {
        StatusKeeper::start(data, led, (Via::Mqtt, "plane:8883".to_owned()), 5, 1)
    }

    #[test]
    fn each_change_is_written_with_its_time_and_as_programs_read_it() {
        let data = tempfile::tempdir().expect("a folder");
        let keeper = keeper(data.path(), None);
        assert_eq!(read(data.path()).expect("written").state, State::Starting);
        keeper.change(7, |status| status.state = State::Offline);
        keeper.change(9, |status| note(status, ErrorKind::NotLetIn, "revoked"));
        keeper.change(11, |_| {});
        let bytes = fs::read(data.path().join(FILE)).expect("written");
        let json: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        let expected = serde_json::json!({"atMs": 9, "state": "offline", "since": 7, "via": "mqtt", "broker": "plane:8883",
            "error": "revoked", "errorKind": "notLetIn", "addresses": [], "clockConfirmed": false, "boundMs": 1});
        assert_eq!(json, expected);
        assert_eq!(read(data.path()).expect("readable"), keeper.now());
        assert_eq!(serde_json::to_value(State::TlsTime).expect("JSON"), "tlsTime");
    }

    #[test]
    fn a_led_shows_each_state_by_its_kernel_trigger_or_in_words() {
        let data = tempfile::tempdir().expect("a folder");
        let led = data.path().join("led");
        fs::create_dir(&led).expect("a folder");
        let (folder, plain) = (keeper(data.path(), Some(led.clone())), data.path().join("plain"));
        let file = keeper(data.path(), Some(plain.clone()));
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        for (state, trigger, delays, text) in [
            (State::Connecting, "timer", Some(("500", "500")), "connecting timer 500 500\n"),
            (State::Connected, "default-on", None, "connected on\n"),
            (State::TlsTime, "heartbeat", None, "tlsTime heartbeat\n"),
            (State::Held, "timer", Some(("100", "100")), "held timer 100 100\n"),
            (State::Offline, "timer", Some(("100", "1900")), "offline timer 100 1900\n"),
        ] {
            for keeper in [&folder, &file] {
                keeper.change(1, |status| status.state = state);
            }
            assert_eq!(read(&led.join("trigger")), trigger, "{state:?}");
            if let Some((on, off)) = delays {
                assert_eq!((read(&led.join("delay_on")).as_str(), read(&led.join("delay_off")).as_str()), (on, off));
            }
            assert_eq!(read(&plain), text);
        }
    }

    #[test]
    fn a_led_and_a_folder_that_cannot_be_written_stop_nothing() {
        let data = tempfile::tempdir().expect("a folder");
        let keeper = keeper(&data.path().join("missing"), Some(data.path().join("missing/led")));
        keeper.change(7, |status| status.state = State::Connected);
        assert_eq!(keeper.now().state, State::Connected);
    }
}
