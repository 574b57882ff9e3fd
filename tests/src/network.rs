//! Networks that are in the way: a gate before a port, proxies, a resolver of any temper, a network of one
//! family. All on this machine; dropping one closes it.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use futures_util::{SinkExt as _, StreamExt as _};
use muster_world::{World, output};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

/// What a gate does with those who come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Temper {
    /// Lets them through.
    Open,
    /// Hangs up.
    Resets,
    /// Says nothing.
    Silent,
    /// Answers as a login page does that stands in the way.
    LoginPage,
}

/// A port before another one.
pub struct Gate {
    _runtime: Runtime,
    address: SocketAddr,
    temper: Arc<Mutex<Temper>>,
}

impl Gate {
    /// Stands before `behind`; a text, since it need not be known yet.
    pub fn before(behind: Arc<Mutex<String>>, temper: Temper) -> Result<Self> {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), behind, temper)
    }

    /// The same at this address.
    pub fn at(address: SocketAddr, behind: Arc<Mutex<String>>, temper: Temper) -> Result<Self> {
        let runtime = runtime()?;
        let listener = runtime.block_on(TcpListener::bind(address))?;
        let (address, temper) = (listener.local_addr()?, Arc::new(Mutex::new(temper)));
        let now = temper.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (temper, behind) = (*now.lock().expect("no panic"), behind.lock().expect("no panic").clone());
                tokio::spawn(pass(stream, temper, behind));
            }
        });
        Ok(Self { _runtime: runtime, address, temper })
    }

    /// Where it stands.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes its mind, for those who come from now on.
    pub fn set(&self, temper: Temper) {
        *self.temper.lock().expect("no panic") = temper;
    }
}

async fn pass(mut stream: TcpStream, temper: Temper, behind: String) {
    match temper {
        Temper::Open => {
            if let Ok(mut other) = TcpStream::connect(&behind).await {
                let _ = copy_bidirectional(&mut stream, &mut other).await;
            }
        }
        Temper::Resets => {}
        Temper::Silent => {
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
        Temper::LoginPage => {
            let _ = stream.read(&mut [0; 4096]).await;
            let page = b"HTTP/1.1 302 Found\r\nlocation: http://login.example/\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.write_all(page).await;
        }
    }
}

/// What a proxy was asked to connect to, with the login.
type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// An HTTP proxy.
pub struct Proxy {
    _runtime: Runtime,
    address: SocketAddr,
    asked: Asked,
    refuses: Arc<Mutex<bool>>,
    /// The CA of one that ends TLS, PEM.
    pub ca: String,
}

impl Proxy {
    /// One that passes bytes on.
    pub fn start() -> Result<Self> {
        Self::with(None)
    }

    /// One that ends TLS, and reads what is in it.
    pub fn that_ends_tls() -> Result<Self> {
        Self::with(Some(Authority::new()?))
    }

    fn with(authority: Option<Authority>) -> Result<Self> {
        let runtime = runtime()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let ca = authority.as_ref().map_or_else(String::new, |authority| authority.pem.clone());
        let (asked, refuses) = (Asked::default(), Arc::<Mutex<bool>>::default());
        let (noted, refusing, authority) = (asked.clone(), refuses.clone(), authority.map(Arc::new));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(proxied(stream, noted.clone(), refusing.clone(), authority.clone()));
            }
        });
        Ok(Self { _runtime: runtime, address, asked, refuses, ca })
    }

    /// As agents are told it.
    pub fn url(&self, login: &str) -> String {
        format!("http://{login}{}", self.address)
    }

    /// What it was asked for.
    pub fn asked(&self) -> Vec<(String, Option<String>)> {
        self.asked.lock().expect("no panic").clone()
    }

    /// Refuses from now on, or not.
    pub fn refuse(&self, refuses: bool) {
        *self.refuses.lock().expect("no panic") = refuses;
    }
}

async fn proxied(
    mut stream: TcpStream,
    asked: Asked,
    refuses: Arc<Mutex<bool>>,
    authority: Option<Arc<Authority>>,
) -> Result<()> {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        anyhow::ensure!(head.len() < 8192 && stream.read_buf(&mut head).await? > 0, "no request");
    }
    let head = String::from_utf8(head)?;
    let target = head.split(' ').nth(1).context("a target")?.to_owned();
    let login = head.lines().find_map(|line| line.strip_prefix("proxy-authorization: Basic ")).map(str::to_owned);
    asked.lock().expect("no panic").push((target.clone(), login));
    if *refuses.lock().expect("no panic") || !head.starts_with("CONNECT ") {
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await?;
        return Ok(());
    }
    let mut other = TcpStream::connect(&target).await?;
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    let Some(authority) = authority else {
        copy_bidirectional(&mut stream, &mut other).await?;
        return Ok(());
    };
    let host = target.rsplit_once(':').map_or(target.as_str(), |(host, _)| host).to_owned();
    let mut near = TlsAcceptor::from(authority.server(&host)?).accept(stream).await?;
    // It has no certificate of a device to show, and looks at nothing itself.
    let far = TlsConnector::from(Arc::new(blind()?));
    let mut far = far.connect(ServerName::try_from(host)?, other).await?;
    copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}

/// A client that takes any server for good: the proxy's own business.
fn blind() -> Result<rustls::ClientConfig> {
    #[derive(Debug)]
    struct Blind;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    impl ServerCertVerifier for Blind {
        fn verify_server_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            muster_tls::provider().signature_verification_algorithms.supported_schemes()
        }
    }
    let builder = rustls::ClientConfig::builder_with_provider(muster_tls::provider());
    let builder = builder.with_safe_default_protocol_versions()?.dangerous();
    Ok(builder.with_custom_certificate_verifier(Arc::new(Blind)).with_no_client_auth())
}

/// A certificate authority that is nobody's.
struct Authority {
    pem: String,
    der: rustls::pki_types::CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Result<Self> {
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate()?);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key)?;
        Ok(Self { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) })
    }

    fn server(&self, host: &str) -> Result<Arc<rustls::ServerConfig>> {
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new([host.to_owned()])?.signed_by(&key, &self.issuer)?;
        let chain = vec![leaf.der().clone(), self.der.clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let builder = rustls::ServerConfig::builder_with_provider(muster_tls::provider());
        let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
        Ok(Arc::new(builder.with_single_cert(chain, key)?))
    }
}

/// Opens the tunnel of a world's listener for devices, and gives a port on this machine that leads into it.
pub fn tunnel(world: &World, tls: rustls::ClientConfig) -> Result<SocketAddr> {
    let devices = world.plane().devices.clone().context("the plane has no listener for devices")?;
    let address = devices.trim_start_matches("https://").to_owned();
    let (sender, near) = std::sync::mpsc::channel();
    std::thread::spawn(move || -> Result<()> {
        let runtime = runtime()?;
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            sender.send(listener.local_addr()?)?;
            let (client, _) = listener.accept().await?;
            let (mut from_client, mut to_client) = client.into_split();
            let stream = TcpStream::connect(&address).await?;
            let name = ServerName::try_from("127.0.0.1")?;
            let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
            let mut request = format!("wss://{address}/mqtt").into_client_request()?;
            request.headers_mut().insert("sec-websocket-protocol", "mqtt".parse()?);
            let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
            let (mut sink, mut stream) = socket.split();
            let up = async {
                let mut buffer = [0; 4096];
                loop {
                    match from_client.read(&mut buffer).await? {
                        0 => return Ok(()),
                        length => sink.send(Message::Binary(buffer[..length].to_vec().into())).await?,
                    }
                }
            };
            let down = async {
                while let Some(message) = stream.next().await {
                    if let Message::Binary(bytes) = message? {
                        to_client.write_all(&bytes).await?;
                    }
                }
                Ok(())
            };
            tokio::select! { ended = up => ended, ended = down => ended }
        })
    });
    Ok(near.recv()?)
}

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
