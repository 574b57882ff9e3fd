//! Networks that are in the way: a gate before a port, proxies, a resolver of any temper, a network of one
//! family. All on this machine; dropping one closes it.

mod names;
mod proxy;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use futures_util::{SinkExt as _, StreamExt as _};
use muster_world::World;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

pub use names::{Answers, Dns, Network, own_address, with_resolver};
pub use proxy::Proxy;

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
