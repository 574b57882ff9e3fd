//! Resolvers of any temper, and networks of one family. They need rights that not every machine gives a test.

use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use muster_world::{World, output};
use tokio::net::UdpSocket;
use tokio::runtime::Runtime;

use super::runtime;

/// An address of this machine that no other story uses: some things have to be at a port of their own.
pub fn own_address() -> IpAddr {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    IpAddr::from([127, 64 + high % 64, low, NUMBER.fetch_add(1, Ordering::SeqCst).to_le_bytes()[0]])
}

/// How a resolver answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answers {
    /// With these addresses for every name.
    Addresses(Vec<IpAddr>),
    /// That there is no such name.
    NoSuchName,
    /// That it failed.
    Failure,
    /// Not at all.
    Nothing,
}

/// A resolver at port 53 of an address of this machine.
pub struct Dns {
    _runtime: Runtime,
    answers: Arc<Mutex<Answers>>,
}

impl Dns {
    /// Starts it.
    pub fn start(at: IpAddr, answers: Answers) -> Result<Self> {
        let runtime = runtime()?;
        let socket = runtime.block_on(UdpSocket::bind((at, 53))).context("port 53 of an own address")?;
        let answers = Arc::new(Mutex::new(answers));
        let now = answers.clone();
        runtime.spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let answers = now.lock().expect("no panic").clone();
                if let Some(answer) = answer(&buffer[..length], &answers) {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        Ok(Self { _runtime: runtime, answers })
    }

    /// Changes its mind.
    pub fn set(&self, answers: Answers) {
        *self.answers.lock().expect("no panic") = answers;
    }
}

/// The answer to a question for one name, of type A or AAAA.
fn answer(question: &[u8], answers: &Answers) -> Option<Vec<u8>> {
    let name_end = 12 + question.get(12..)?.iter().position(|byte| *byte == 0)? + 1;
    let asked = question.get(12..name_end + 4)?;
    let kind = u16::from_be_bytes([question[name_end], question[name_end + 1]]);
    let (code, addresses) = match answers {
        Answers::Addresses(addresses) => (0, addresses.as_slice()),
        Answers::NoSuchName => (3, &[][..]),
        Answers::Failure => (2, &[][..]),
        Answers::Nothing => return None,
    };
    let records: Vec<Vec<u8>> = addresses
        .iter()
        .filter_map(|address| match (kind, address) {
            (1, IpAddr::V4(it)) => Some(it.octets().to_vec()),
            (28, IpAddr::V6(it)) => Some(it.octets().to_vec()),
            _ => None,
        })
        .collect();
    let mut bytes = vec![question[0], question[1], 0x81, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0];
    bytes.extend(asked);
    for record in records {
        bytes.extend([0xc0, 12, 0, kind as u8, 0, 1, 0, 0, 0, 1, 0, record.len() as u8]);
        bytes.extend(record);
    }
    Some(bytes)
}

/// A network of a device's own, joined to this machine by a cable. Dropping it takes it away.
pub struct Network {
    name: String,
    cable: String,
}

impl Network {
    /// Makes one whose end here has `here` and whose end there has `there` (with the length of the prefix), and whose
    /// resolver is at `dns`. None where this machine does not let tests do so; the reason is printed.
    pub fn make(here: &[&str], there: &[&str], dns: IpAddr) -> Result<Option<Self>> {
        if let Err(error) = ip(&["netns", "list"]) {
            println!("skipped: no network of an own can be made here: {error:#}");
            return Ok(None);
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let id = format!("{}-{number}", std::process::id());
        let (name, cable) = (format!("muster-{id}"), format!("m{id}"));
        if let Err(error) = ip(&["netns", "add", &name]) {
            println!("skipped: no network of an own can be made here: {error:#}");
            return Ok(None);
        }
        let network = Self { name: name.clone(), cable: cable.clone() };
        let far = format!("{cable}f");
        ip(&["link", "add", &cable, "type", "veth", "peer", "name", &far, "netns", &name])?;
        for address in here {
            ip(&["addr", "add", address, "dev", &cable, "nodad"])?;
        }
        ip(&["link", "set", &cable, "up"])?;
        for address in there {
            ip(&["-n", &name, "addr", "add", address, "dev", &far, "nodad"])?;
        }
        ip(&["-n", &name, "link", "set", &far, "up"])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        let folder = network.folder();
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("resolv.conf"), format!("nameserver {dns}\noptions timeout:1 attempts:1\n"))?;
        Ok(Some(network))
    }

    /// What a program in it is started by.
    pub fn command(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.name]
    }

    /// Files that stand in the place of those in `/etc` there.
    fn folder(&self) -> std::path::PathBuf {
        std::path::Path::new("/etc/netns").join(&self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = ip(&["link", "del", &self.cable]);
        let _ = ip(&["netns", "del", &self.name]);
        let _ = std::fs::remove_dir_all(self.folder());
    }
}

fn ip(arguments: &[&str]) -> Result<String> {
    output(Command::new("ip").args(arguments))
}

/// A command that starts programs with the resolver at `dns`, and leaves the rest of the machine alone. None where
/// this machine does not let tests do so; the reason is printed.
pub fn with_resolver(world: &World, dns: IpAddr) -> Result<Option<Vec<String>>> {
    let file = world.folder().join("resolv.conf");
    std::fs::write(&file, format!("nameserver {dns}\noptions timeout:1 attempts:1\n"))?;
    let script = format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", file.display());
    let command = ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned);
    if let Err(error) = output(Command::new(&command[0]).args(&command[1..]).arg("true")) {
        println!("skipped: no resolver of an own can be set here: {error:#}");
        return Ok(None);
    }
    Ok(Some(command.to_vec()))
}
