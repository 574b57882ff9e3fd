//! One kept-alive connection that asks the same thing again and again.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::answer::{Answer, Incoming};

/// One read: more than any small answer.
const READ_BYTES: usize = 16 << 10;

pub(crate) struct Connection {
    stream: TcpStream,
    written: usize,
    asked_at: Instant,
    incoming: Incoming,
}

/// An answer that became whole.
pub(crate) struct Answered {
    pub status: u16,
    pub asked_at: Instant,
    pub answered_at: Instant,
}

impl Connection {
    pub fn open(address: SocketAddr, registry: &Registry, token: Token) -> anyhow::Result<Self> {
        let stream = std::net::TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, written: 0, asked_at: Instant::now(), incoming: Incoming::default() })
    }

    /// Begins to send the request.
    pub fn ask(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.incoming.clear();
        self.written = 0;
        self.asked_at = Instant::now();
        self.send(request)
    }

    fn send(&mut self, request: &[u8]) -> anyhow::Result<()> {
        while self.written < request.len() {
            match self.stream.write(&request[self.written..]) {
                Ok(0) => bail!("the connection takes no more"),
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot send a request"),
            }
        }
        Ok(())
    }

    /// Goes on after the kernel said that something is possible again.
    pub fn advance(&mut self, request: &[u8]) -> anyhow::Result<Option<Answered>> {
        self.send(request)?;
        let mut buffer = [0; READ_BYTES];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the server closed a connection"),
                // Not read until it would block, as mio advises: after a whole answer nothing follows
                // before the next request, and what arrives then wakes us anew on Linux.
                Ok(read) if self.incoming.take(&buffer[..read])? => {
                    let (status, asked_at) = (self.incoming.status(), self.asked_at);
                    return Ok(Some(Answered { status, asked_at, answered_at: Instant::now() }));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot read an answer"),
            }
        }
    }
}

/// Asks once, on a connection of its own.
pub fn ask(address: SocketAddr, request: &[u8], deadline: Duration) -> anyhow::Result<Answer> {
    let began = Instant::now();
    let mut stream = std::net::TcpStream::connect_timeout(&address, deadline)?;
    stream.set_read_timeout(Some(deadline))?;
    stream.set_write_timeout(Some(deadline))?;
    stream.write_all(request)?;
    let (mut incoming, mut buffer) = (Incoming::default(), vec![0; READ_BYTES]);
    while began.elapsed() < deadline {
        match stream.read(&mut buffer)? {
            0 => bail!("the server closed the connection"),
            read if incoming.take(&buffer[..read])? => return incoming.answer(),
            _ => {}
        }
    }
    bail!("no whole answer in {deadline:?}")
}
