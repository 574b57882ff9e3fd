//! Broken messages at the gRPC door, by the thousand, over HTTP/2 as it is.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use muster_tests::mutate::{Rng, mutate};
use muster_tests::onnx::{field, field_number, varint};
use muster_tests::programs;
use muster_tests::serving::{COLUMNS, identity_of_texts, row, times};
use muster_world::{Server, resident_bytes};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

const MESSAGES: usize = 10_000;
/// A valid message is sent in between, one after so many broken ones.
const VALID_EVERY: usize = 20;
/// How much the memory of all processes may grow meanwhile.
const GROWTH_BYTES_MAX: u64 = 32 << 20;
const SEED: u64 = 20_261_128;
const FACTOR: f32 = 3.0;

/// Numbers of gRPC's statuses.
const OK: u32 = 0;
const INVALID_ARGUMENT: u32 = 3;
const DEADLINE_EXCEEDED: u32 = 4;
const NOT_FOUND: u32 = 5;
const OUT_OF_RANGE: u32 = 11;
const INTERNAL: u32 = 13;

/// One connection.
struct Caller {
    runtime: Runtime,
    connection: SendRequest<Bytes>,
    address: String,
}

/// An answer: its status, its words, its message.
struct Told {
    status: u32,
    text: String,
    message: Vec<u8>,
}

impl Caller {
    fn connect(address: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let connection = runtime.block_on(async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (connection, driver) = h2::client::handshake(stream).await?;
            tokio::spawn(driver);
            anyhow::Ok(connection)
        })?;
        Ok(Self { runtime, connection, address: address.to_owned() })
    }

    /// Calls `ModelInfer` with bytes as they are, whatever their frame says.
    fn infer(&self, frame: Vec<u8>) -> Result<Told> {
        let uri = format!("http://{}/inference.GRPCInferenceService/ModelInfer", self.address);
        let request = http::Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
        let request = request.body(())?;
        let connection = self.connection.clone();
        self.runtime.block_on(async {
            let (response, mut sending) = connection.ready().await?.send_request(request, false)?;
            sending.send_data(frame.into(), true)?;
            let (head, mut body) = response.await?.into_parts();
            let mut message = vec![];
            while let Some(piece) = body.data().await {
                let piece = piece?;
                body.flow_control().release_capacity(piece.len())?;
                message.extend_from_slice(&piece);
            }
            let trailers = body.trailers().await?.unwrap_or(head.headers);
            let said = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let status = said("grpc-status").parse().context("an answer without a status")?;
            Ok(Told { status, text: said("grpc-message").to_owned(), message })
        })
    }
}

/// A message in its frame.
fn frame(message: &[u8]) -> Vec<u8> {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

/// The name, the datatype and the shape that tensors have either way.
fn tensor(name: &str, datatype: &str, shape: &[u64]) -> Vec<u8> {
    let shape: Vec<u8> = shape.iter().flat_map(|size| varint(*size)).collect();
    [field(1, name.as_bytes()), field(2, datatype.as_bytes()), field(3, &shape)].concat()
}

fn parameter(map: u32, name: &str, number: u64) -> Vec<u8> {
    field(map, &[field(1, name.as_bytes()), field(2, &field_number(2, number))].concat())
}

fn elements(row: &[f32]) -> Vec<u8> {
    row.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn request(model: &str, parts: &[Vec<u8>]) -> Vec<u8> {
    [field(1, model.as_bytes()), field(3, b"one"), parts.concat()].concat()
}

/// Asks for one row.
fn valid(row: &[f32]) -> Vec<u8> {
    request("steady", &[field(5, &tensor("x", "FP32", &[1, COLUMNS as u64])), field(7, &elements(row))])
}

/// What must come for it.
fn expected(row: &[f32]) -> Vec<u8> {
    let times: Vec<f32> = row.iter().map(|value| value * FACTOR).collect();
    let output = field(5, &tensor("y", "FP32", &[1, COLUMNS as u64]));
    [field(1, b"steady"), field(2, b"1"), field(3, b"one"), output, field(6, &elements(&times))].concat()
}

/// Requests of every form, right before they are broken.
fn whole_requests() -> Vec<Vec<u8>> {
    let (row, shape) = (row(3), [1, COLUMNS as u64]);
    let listed = field(5, &field(6, &elements(&row)));
    let classes = field(6, &[field(1, b"y"), parameter(2, "classification", 2)].concat());
    let texts = field(5, &[tensor("x", "BYTES", &[2]), field(5, &[field(8, b"a"), field(8, b"bc")].concat())].concat());
    let raw_texts = [&3u32.to_le_bytes()[..], b"abc"].concat();
    vec![
        valid(&row),
        request("steady", &[field(2, b"1"), field(5, &[tensor("x", "FP32", &shape), listed.clone()].concat())]),
        request(
            "steady",
            &[
                parameter(4, "timeout", 10_000_000),
                field(5, &[tensor("x", "FP32", &shape), listed].concat()),
                classes,
                field(6, &field(1, b"y")),
            ],
        ),
        request("text", &[texts]),
        request("text", &[field(5, &tensor("x", "BYTES", &[1])), field(7, &raw_texts)]),
    ]
}

fn check_valid(caller: &Caller, number: usize) -> Result<()> {
    let row = row(number);
    let told = caller.infer(frame(&valid(&row)))?;
    ensure!(told.status == OK, "{}: {}", told.status, told.text);
    ensure!(told.message == frame(&expected(&row)), "row {number}: {:?}", told.message);
    Ok(())
}

#[test]
fn broken_messages_are_the_callers_fault_and_cost_nobody_else_anything() -> Result<()> {
    let flags = ["--grpc=127.0.0.1:0", "--model=steady={}/steady.onnx", "--model=text={}/text.onnx"];
    let mut server = Server::start(&programs()?, &flags, |folder| {
        std::fs::write(folder.join("steady.onnx"), times(FACTOR))?;
        Ok(std::fs::write(folder.join("text.onnx"), identity_of_texts())?)
    })?;
    let caller = Caller::connect(server.grpc().context("no gRPC door")?)?;
    let whole = whole_requests();
    for message in &whole[..2] {
        assert_eq!(caller.infer(frame(message))?.message, frame(&expected(&row(3))));
    }
    for message in &whole[2..] {
        assert_eq!(caller.infer(frame(message))?.status, OK);
    }
    let (mut rng, mut statuses, mut before) = (Rng::new(SEED), BTreeMap::<u32, usize>::new(), 0);
    for number in 0..MESSAGES {
        let message = rng.pick(&whole).clone();
        // One in ten has a broken frame; that is between the caller and tonic.
        let broken_frame = rng.permille(100);
        let sent = if broken_frame { mutate(&frame(&message), &mut rng) } else { frame(&mutate(&message, &mut rng)) };
        let told = caller.infer(sent.clone()).with_context(|| format!("message {number} of seed {SEED}: {sent:?}"))?;
        *statuses.entry(told.status).or_default() += 1;
        let fault_of_the_caller =
            matches!(told.status, OK | INVALID_ARGUMENT | DEADLINE_EXCEEDED | NOT_FOUND | OUT_OF_RANGE);
        ensure!(
            fault_of_the_caller || (broken_frame && told.status == INTERNAL),
            "message {number} of seed {SEED}: {} {:?}: {sent:?}",
            told.status,
            told.text
        );
        if number % VALID_EVERY == 0 {
            check_valid(&caller, number).with_context(|| format!("after message {number} of seed {SEED}"))?;
            server.check()?;
        }
        if number == MESSAGES / 4 {
            before = resident_bytes(server.id())?;
        }
    }
    println!("{MESSAGES} broken messages (seed {SEED}), by status: {statuses:?}");
    assert!(statuses.get(&INVALID_ARGUMENT).copied().unwrap_or(0) > MESSAGES / 3, "{statuses:?}");
    let after = resident_bytes(server.id())?;
    assert!(after <= before + GROWTH_BYTES_MAX, "{before} bytes before, {after} after");
    Ok(())
}
