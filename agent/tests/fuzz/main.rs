//! Everything in the agent that reads bytes from outside, on inputs that are nearly good: see
//! [`muster_fuzz`]. What a body at a door is read as is asked of the doors themselves, before models that
//! give back what they take.

#![allow(clippy::unwrap_used)]

mod machine;
mod network;
mod trust;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method};
use bytes::{Bytes, BytesMut};
use muster_agent::doors::http::{Ask, JSON_BYTES};
use muster_agent::doors::oip::OipDoor;
use muster_agent::doors::{Doors, local_mqtt, server, tfs};
use muster_agent::engine::{EngineError, Model};
use muster_agent::identity::{self, DeviceKey};
use muster_agent::table::Served;
use muster_agent::tensor::Tensor;
use muster_agent::worker::protocol::{self, Frames, FromWorker, TensorHead, ToWorker};
use muster_agent::worker::queue::{Prediction, queue};
use muster_agent::{config, enrol, worker};
use muster_fuzz::{PeakAlloc, alone};
use muster_shared::Version;
use muster_shared::api::{EnrolWaiting, Enrolled};
use muster_shared::golden::Golden;
use muster_shared::manifest::{Dtype, Port};
use tokio::runtime::Runtime;
use tokio_util::codec::Decoder as _;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static COUNTED: PeakAlloc = PeakAlloc;

/// Reading a list, serde takes room for at most so much at once on the word of its length; a tensor of a
/// worker's may be told in as many bytes.
const PROMISED_BYTES: usize = 4 * 1024 * 1024;
/// Nearly every byte of gzip may become a thousand; and then the body's bound holds.
const GZIP_PER_BYTE: usize = 4 * 1032;
/// The journal's file itself, and what its library keeps of it.
const JOURNAL_BYTES: usize = 64 * 1024 * 1024;
/// Rows of zeros that are made in the test are shorter.
const SMALL_ROW_BYTES: usize = 1 << 20;
/// Of frames that promise much to a worker, one of so many is read.
const LARGE_FRAMES_ONE_OF: usize = 5_000;
/// A request over a socket takes buffers of the server's, too.
const SERVER_BYTES: usize = 2 * 1024 * 1024;

fn port(name: &str, dtype: Dtype, shape: &[Option<u32>]) -> Port {
    Port { name: name.into(), dtype, shape: shape.to_vec() }
}

/// Adds a model whose outputs are its inputs.
fn add_echo(doors: &Doors, name: &str, ports: &[Port]) {
    let (worker, mut queue) = queue(CancellationToken::new());
    tokio::spawn(async move {
        while let Some(requests) = queue.next().await {
            for request in requests {
                let time = Duration::from_micros(1);
                assert!(request.inputs.iter().all(Tensor::is_sound), "{:?}", request.inputs);
                let outputs = request.inputs;
                let _ =
                    request.reply.send(Ok(Prediction { outputs, cpu_us: 1, queue: time, compute: time, together: 1 }));
            }
        }
    });
    let name = name.parse().unwrap();
    doors.table.add(
        &name,
        Served {
            deployment: name.clone(),
            model: "echo".parse().unwrap(),
            version: Version::new(3).unwrap(),
            inputs: ports.to_vec(),
            outputs: ports.to_vec(),
            worker,
            counters: Default::default(),
            metrics: Default::default(),
        },
    );
}

fn pair() -> [Port; 2] {
    [port("a", Dtype::F32, &[None, Some(2)]), port("b", Dtype::I64, &[None])]
}

/// Doors before a few models, and what runs them: one thread, so that only one request allocates.
fn doors() -> (Runtime, Arc<Doors>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let table: Arc<muster_agent::table::Table> = Arc::default();
    let device = "edge-1".parse().unwrap();
    let doors = Arc::new(Doors { oip: OipDoor::closed(table.clone()), table, device });
    runtime.block_on(async {
        add_echo(&doors, "pair", &pair());
        add_echo(&doors, "one", &[port("x", Dtype::F32, &[None])]);
        add_echo(&doors, "text", &[port("t", Dtype::String, &[None])]);
        add_echo(&doors, "bytes", &[port("x", Dtype::U8, &[Some(2), None])]);
    });
    (runtime, doors)
}

/// Asks with the first line of the input as `path[ json_bytes]`, the rest as body. True: it was answered.
fn ask(runtime: &Runtime, doors: &Doors, input: &[u8]) -> bool {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (line, body) = (String::from_utf8_lossy(&input[..end]), input.get(end + 1..).unwrap_or_default());
    let (path, json_bytes) = line.split_once(' ').map_or((&*line, None), |(path, bytes)| (path, Some(bytes)));
    let mut headers = HeaderMap::new();
    if let Some(value) = json_bytes.and_then(|bytes| HeaderValue::from_str(bytes).ok()) {
        headers.insert(JSON_BYTES, value);
    }
    let body = Bytes::copy_from_slice(body);
    let mut answered = false;
    for method in [Method::POST, Method::GET] {
        let answer = runtime.block_on(doors.answer(Ask { method: &method, path, headers: &headers, body: &body }));
        assert!(answer.status.as_u16() < 500 || answer.status == 503, "{}: {:?}", answer.status, answer.body);
        answered |= answer.status.is_success();
    }
    answered
}

#[test]
fn requests_of_tf_serving_are_answered_or_refused() {
    let alone = alone();
    let (runtime, doors) = doors();
    let good = [
        r#"/v1/models/pair:predict
{"instances": [{"a": [1.5, -2e3], "b": 7}, {"a": [NaN, Infinity], "b": -1}]}"#,
        r#"/v1/models/pair/versions/3:predict
{"signature_name": "serving_default", "inputs": {"a": [[1, 2]], "b": [3]}}"#,
        r#"/v1/models/text:predict
{"instances": ["ab", {"b64": "aGk="}, "\ud83e\udd80"]}"#,
        r#"/v1/models/one:classify
{"examples": [{"x": 1.5}, {"x": [2]}], "context": {"x": 3}}"#,
        "/v1/models/one:regress\n{\"examples\": [{\"x\": 1.5}]}",
        "/v1/models/bytes:predict\n{\"inputs\": [[1, 2, 3], [4, 5, 255]]}",
        "/v1/models/pair/metadata\n",
    ];
    // A model that gives back numbers has no classes: those are asked for their words, not for an answer.
    let good: Vec<&str> = good.into_iter().filter(|text| ask(&runtime, &doors, text.as_bytes())).collect();
    assert!(good.len() >= 5, "{good:?}");
    alone.parser("TF Serving requests", good).run(|input| ask(&runtime, &doors, input));
    let ports = [port("x", Dtype::F32, &[None]), port("s", Dtype::String, &[None])];
    let examples = r#"{"examples": [{"x": 1.5, "s": "a"}, {"x": [2], "s": {"b64": "aGk="}}], "context": {"x": 3}}"#;
    alone.parser("TF Serving examples", [examples]).run(|body| {
        let Ok((tensors, _)) = tfs::examples::read(&ports, body) else { return false };
        assert!(tensors.iter().all(Tensor::is_sound));
        true
    });
}

#[test]
fn requests_of_the_open_inference_protocol_are_answered_or_refused() {
    let alone = alone();
    let (runtime, doors) = doors();
    let json = r#"{"id":"7","inputs":[{"name":"a","shape":[1,2],"datatype":"FP32","data":[[1,2]]},{"name":"b","shape":[1],"datatype":"INT64","data":[3]}],"outputs":[{"name":"a","parameters":{"binary_data":true}}]}"#;
    let binary = r#"{"inputs":[{"name":"t","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":6}}]}"#;
    let good = [
        format!("/v2/models/pair/infer\n{json}"),
        format!("/v2/models/text/infer {}\n{binary}\u{2}\0\0\0hi", binary.len()),
        "/v2/models/bytes/infer 0\n12345678".to_owned(),
        r#"/v2/models/text/infer
{"inputs":[{"name":"t","shape":[2],"datatype":"BYTES","data":["a","b"]}]}"#
            .to_owned(),
        "/v2/repository/index\n{\"ready\":true}".to_owned(),
        "/v2/models/pair/versions/3/config\n".to_owned(),
        "/v2/models/stats\n".to_owned(),
    ];
    alone.parser("Open Inference requests", good).memory(1024, 512 * 1024).run(|input| ask(&runtime, &doors, input));
}

#[cfg(feature = "grpc")]
#[test]
fn grpc_messages_are_answered_or_refused() {
    let alone = alone();
    use muster_agent::doors::grpc::contents;
    use muster_agent::doors::grpc::generated::{
        InferTensorContents, ModelInferRequest, RepositoryModelLoadRequest, model_infer_request::InferInputTensor,
    };
    use muster_agent::doors::oip::infer::infer;
    use prost::Message as _;
    let (runtime, doors) = doors();
    let latest = muster_shared::door::VersionChoice::Latest;
    let served = runtime.block_on(doors.table.find_started("pair", &latest)).unwrap();
    let input = |datatype: &str, contents| InferInputTensor {
        name: "a".into(),
        datatype: datatype.into(),
        shape: vec![1, 2],
        contents,
        ..Default::default()
    };
    let floats = InferTensorContents { fp32_contents: vec![1.0, 2.0], ..Default::default() };
    let texts =
        InferTensorContents { bytes_contents: vec![Bytes::from_static(b"x"), Bytes::new()], ..Default::default() };
    let listed = ModelInferRequest {
        model_name: "pair".into(),
        inputs: vec![input("FP32", Some(floats)), input("BYTES", Some(texts))],
        ..Default::default()
    };
    let raw = ModelInferRequest {
        model_name: "pair".into(),
        inputs: vec![input("FP32", None)],
        raw_input_contents: vec![Bytes::from_static(b"12345678")],
        ..Default::default()
    };
    alone.parser("gRPC requests", [listed.encode_to_vec(), raw.encode_to_vec()]).run(|bytes| {
        let Ok(request) = ModelInferRequest::decode(Bytes::copy_from_slice(bytes)) else { return false };
        let Ok(asked) = contents::read(request) else { return false };
        // The model behind it asserts that what reaches it is sound.
        let _ = runtime.block_on(infer(&doors.table, &served, asked));
        true
    });
    let load = RepositoryModelLoadRequest { model_name: "pair".into(), ..Default::default() };
    alone
        .parser("gRPC repository requests", [load.encode_to_vec()])
        .run(|bytes| RepositoryModelLoadRequest::decode(bytes).is_ok());
}

#[test]
fn gzip_is_unpacked_within_its_bound_or_refused() {
    let alone = alone();
    let pack = |bytes: &[u8]| {
        let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::best());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    };
    let good = [pack(b"{\"instances\": [1, 2, 3]}"), pack(&vec![0; 100_000])];
    alone.parser("gzip bodies", good).memory(GZIP_PER_BYTE, 256 * 1024).past_permille_min(1).run(|bytes| {
        let Ok(unpacked) = server::unpack(bytes) else { return false };
        unpacked.is_some()
    });
}

#[test]
fn payloads_of_the_local_broker_are_read_or_refused() {
    let alone = alone();
    let ports = [pair().to_vec(), vec![port("x", Dtype::F64, &[None, Some(u32::MAX), Some(u32::MAX)])]].concat();
    alone.parser("raw payloads", [&b"12345678"[..]]).run(|bytes| {
        let shapes = ports.iter().filter_map(|port| Some((port, local_mqtt::shape_of(port, bytes.len()).ok()?)));
        let bytes = Bytes::copy_from_slice(bytes);
        shapes.filter(|(port, shape)| Tensor::for_port(port, shape.clone(), bytes.clone()).is_ok()).count() > 0
    });
}

#[test]
fn the_owners_file_is_read_or_refused() {
    let alone = alone();
    let good = r#"
data = "."
telemetry-every = "10s"
door.listen = "127.0.0.1:8501"
[limits]
memory = "64Mi"
cpu = "500m"
[labels]
site = "north"
[local-mqtt]
broker = "127.0.0.1:1883"
[[local-mqtt.route]]
input = "plant/+/in"
output = "plant/out/{topic}"
model = "digits"
version = 3
payload = "raw"
"#;
    let path = Path::new("/etc/muster/agent.toml");
    alone.parser("agent.toml", [good, "data = \".\""]).memory(1024, 512 * 1024).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        let Ok(config) = config::Config::parse(text, path) else { return false };
        assert!(config.listen.ip().is_loopback());
        if let Some(settings) = config.local_mqtt {
            let _ = settings.route("plant/1/in").map(|route| route.output_for("plant/1/in"));
        }
        true
    });
}

#[test]
fn what_a_device_keeps_of_its_enrolment_is_read_or_refused() {
    let alone = alone();
    let digest = muster_shared::Digest::of("x");
    let good = format!(
        r#"{{"device":"edge-1","url":"https://plane:8443","mqtt":"plane:8883","ca":"{digest}","root":"{digest}",
        "roots":[{{"payloadType":"t","payload":"aGk=","signatures":[{{"keyid":"{digest}","sig":"AAAA"}}]}}]}}"#
    );
    alone.parser("enrolment.json", [good]).run(|bytes| {
        let Ok(enrolment) = serde_json::from_slice::<identity::Enrolment>(bytes) else { return false };
        let _ = enrol::broker_address(&enrolment.mqtt, &enrolment.url);
        let _ = enrol::follow_roots(&enrolment.roots, enrolment.root);
        true
    });
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let pem = key.serialize_pem();
    let own = DeviceKey::from_pem(&pem).unwrap();
    alone
        .parser("device's key.pem", [pem])
        .past_permille_min(0)
        .run(|bytes| std::str::from_utf8(bytes).is_ok_and(|pem| DeviceKey::from_pem(pem).is_ok()));
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    alone
        .parser("certificate.pem", [certificate.pem()])
        .run(|bytes| identity::certificate_of(bytes).is_ok_and(|certificate| identity::Life::of(&certificate).is_ok()));
    alone.parser("certificate's validity", [certificate.der().to_vec()]).run(|bytes| {
        let certificate = rustls::pki_types::CertificateDer::from(bytes.to_vec());
        let _ = identity::is_for(&certificate, &own);
        identity::Life::of(&certificate).is_ok_and(|life| life.renew_at_ms() >= life.from_ms)
    });
    let answer = serde_json::to_vec(&Enrolled {
        device: "edge-1".parse().unwrap(),
        certificate: certificate.pem(),
        ca: certificate.pem(),
        roots: vec![],
        mqtt: ":8883".into(),
        tunnel: Some(":443".into()),
    });
    alone.parser("answer to an enrolment", [answer.unwrap()]).run(|bytes| {
        let Ok(answer) = serde_json::from_slice::<Enrolled>(bytes) else { return false };
        let _ = (enrol::follow_roots(&answer.roots, digest), enrol::broker_address(&answer.mqtt, "https://plane:1"));
        let _ = enrol::check_certificates(&answer, digest, &own);
        true
    });
    let waiting = r#"{"device":"edge-1","detail":"an operator has yet to let it in"}"#;
    alone
        .parser("answer that an enrolment waits", [waiting])
        .run(|bytes| serde_json::from_slice::<EnrolWaiting>(bytes).is_ok());
}

/// The broker is another's, also the local one: what it sends is read by the client's library.
#[test]
fn packets_of_a_broker_are_read_or_refused() {
    use rumqttc::mqttbytes::v4::Packet;
    let alone = alone();
    let good: [&[u8]; 7] = [
        &[0x20, 2, 0, 0],
        b"\x30\x18\0\x0emuster/v1/e/ackpayload!",
        b"\x32\x0a\0\x03a/b\0\x07abc",
        &[0x40, 2, 0, 7],
        &[0x90, 4, 0, 7, 1, 0x80],
        &[0xb0, 2, 0, 7],
        &[0xd0, 0],
    ];
    let most = muster_shared::limits::MQTT_PACKET_BYTES_MAX;
    alone.parser("MQTT of a broker", [good.concat()]).inputs(100_000).memory(256, most + 4096).run(|bytes| {
        let mut stream = BytesMut::from(bytes);
        let mut read = 0;
        while let Ok(packet) = Packet::read(&mut stream, most) {
            read += 1;
            if let Packet::Publish(publish) = packet {
                let _ = publish.topic.parse::<muster_shared::topic::Topic>();
            }
        }
        read > 0
    });
}

/// The input says which bytes of a good journal are others: five bytes each, a place and a byte. Each input
/// is a whole database on the disk, so there are fewer; its records are read from memory in [`trust`].
#[test]
fn a_journal_on_a_bad_disk_is_read_or_refused() {
    use muster_agent::journal::Journal;
    use muster_shared::signing::key::SecretKey;
    use muster_shared::signing::{Envelope, payload_type};
    let alone = alone();
    let good = tempfile::tempdir().unwrap();
    {
        let journal = Journal::open(good.path()).unwrap();
        let key = SecretKey::from_seed([1; 32]);
        let envelope = |payload: &[u8]| Envelope::sign(payload_type::ROOT, payload.to_vec(), &[&key]);
        journal.save_root(1, &envelope(b"root")).unwrap();
        journal.save_desired(&envelope(b"desired")).unwrap();
    }
    let file = std::fs::read(good.path().join("journal.redb")).unwrap();
    // What is not zero is what is read.
    let used: Vec<usize> = (0..file.len()).filter(|at| file[*at] != 0).collect();
    let bad = tempfile::tempdir().unwrap();
    let path = bad.path().join("journal.redb");
    let journals = alone.parser("journals", [&[0, 0, 0, 9, 1][..], &[9; 15]]).inputs(200).long_inputs(10_000);
    journals.memory(1024, JOURNAL_BYTES).past_permille_min(0).run(|patches| {
        let mut bytes = file.clone();
        for patch in patches.as_chunks::<5>().0.iter().take(64) {
            let [a, b, c, d, byte] = *patch;
            bytes[used[u32::from_be_bytes([a, b, c, d]) as usize % used.len()]] = byte;
        }
        std::fs::write(&path, bytes).unwrap();
        let Ok(journal) = Journal::open(bad.path()) else { return false };
        let read = (journal.roots().is_ok(), journal.desired().is_ok(), journal.refusals().is_ok());
        let _ = (journal.proven(), journal.batches(0, 10));
        let envelope = Envelope::sign(payload_type::ROOT, b"root".to_vec(), &[&SecretKey::from_seed([1; 32])]);
        let _ = (journal.save_root(2, &envelope), journal.save_desired(&envelope));
        read.0 && read.1
    });
}

/// Frames in both directions: a worker may have been taken over by what it loaded.
#[test]
fn frames_of_a_hostile_worker_are_read_or_refused() {
    let alone = alone();
    let tensor = |values: &[u8]| Tensor {
        name: "x".into(),
        dtype: Dtype::U8,
        shape: vec![values.len()],
        data: values.to_vec().into(),
    };
    let (one, two) = (tensor(&[1, 2, 3]), tensor(&[]));
    let answer = |id, result| protocol::AnswerHead { id, result, cpu_us: 1, compute_us: 2, together: 2 };
    let answers = vec![
        answer(7, Ok(vec![TensorHead::of(&one), TensorHead::of(&two)])),
        answer(8, Err("it does not fit".to_owned())),
    ];
    let loaded = protocol::Loaded { inputs: pair().to_vec(), outputs: pair().to_vec(), batches: true };
    let measured = muster_shared::reported::Measured { memory_peak_bytes: 9, latency_us: 3 };
    let mut seeds = vec![];
    for head in [
        FromWorker::Answers { answers, rest_us: 5 },
        FromWorker::Loaded(loaded),
        FromWorker::Checked(measured),
        FromWorker::CannotLoad("no".into()),
        FromWorker::WrongAnswers("other".into()),
    ] {
        let mut bytes = vec![];
        let tensors: &[&Tensor] = if matches!(head, FromWorker::Answers { .. }) { &[&one, &two] } else { &[] };
        protocol::frame(&mut bytes, &head, tensors.iter().copied()).unwrap();
        seeds.push(bytes);
    }
    alone.parser("frames from a worker", seeds).memory(256, 2 * PROMISED_BYTES).run(|bytes| {
        let mut buffer = BytesMut::from(bytes);
        let mut read = false;
        while let Ok(Some((head, mut body))) = Frames.decode(&mut buffer) {
            read = true;
            match head {
                FromWorker::Answers { answers, .. } => {
                    for tensor in answers.into_iter().filter_map(|answer| answer.result.ok()).flatten() {
                        let Ok(tensor) = tensor.take("x", &mut body) else { break };
                        assert!(tensor.is_sound());
                    }
                }
                FromWorker::Loaded(loaded) => {
                    for port in loaded.inputs.iter().chain(&loaded.outputs) {
                        let _ = local_mqtt::shape_of(port, 8);
                    }
                }
                _ => {}
            }
        }
        read
    });
    let mut frame = vec![];
    let head = ToWorker::Predict(vec![protocol::RequestHead { id: 7, inputs: vec![TensorHead::of(&one)] }]);
    protocol::frame(&mut frame, &head, [&one].into_iter()).unwrap();
    // The agent is believed about its lengths: they are its own.
    let most = protocol::HEAD_BYTES_MAX + protocol::BODY_BYTES_MAX + PROMISED_BYTES;
    let mut large = 0;
    alone.parser("frames to a worker", [frame]).memory(256, most).run(|bytes| {
        // To make so much ready takes a while, and then there is nothing to read: now and then is enough.
        let promised =
            |at: usize| bytes.get(at..at + 4).map_or(0, |bytes| u32::from_le_bytes(bytes.try_into().unwrap()));
        if promised(0) as usize + promised(4) as usize > PROMISED_BYTES {
            large += 1;
            if large % LARGE_FRAMES_ONE_OF != 1 {
                return false;
            }
        }
        let Ok(Some((head, mut body))) = protocol::read::<ToWorker>(&mut &bytes[..]) else { return false };
        if let ToWorker::Predict(requests) = head {
            let inputs = requests.into_iter().flat_map(|request| request.inputs);
            inputs.for_each(|input| drop(input.take("x", &mut body)));
        }
        true
    });
}

/// A model that gives back what it takes.
struct Echo(Vec<Port>);

impl Model for Echo {
    fn inputs(&self) -> &[Port] {
        &self.0
    }

    fn outputs(&self) -> &[Port] {
        &self.0
    }

    fn has_rows(&self) -> bool {
        true
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        Ok(inputs.to_vec())
    }
}

#[test]
fn golden_vectors_are_checked_or_refused() {
    let alone = alone();
    let echo = Echo(pair().to_vec());
    let case = r#"{"inputs": {"a": [[1.0, 2.0]], "b": [3]}, "outputs": {"a": [[1.0, 2.0]], "b": [3]}}"#;
    let good = format!(r#"{{"cases": [{case}, {case}], "tolerance": {{"absolute": 1e-4, "relative": 1e-4}}}}"#);
    alone.parser("golden vectors at a model", [good]).run(|bytes| {
        let Ok(golden) = Golden::parse(bytes) else { return false };
        let _ = worker::golden::check(&golden, &echo, &echo.0, &echo.0);
        let _ = worker::golden::one_row(&golden, &echo.0);
        true
    });
    // What a model says that it takes, four bytes a size; zero is free.
    let shapes = alone.parser("shapes of a model's inputs", [[1u32, 2, 0].map(u32::to_le_bytes).concat()]);
    shapes.memory(256, SMALL_ROW_BYTES).run(|bytes| {
        let shape: Vec<_> = bytes.as_chunks::<4>().0.iter().map(|size| u32::from_le_bytes(*size)).collect();
        let shape: Vec<_> = shape.into_iter().map(|size| (size > 0).then_some(size)).collect();
        let ports = [Dtype::U8, Dtype::F64, Dtype::String].map(|dtype| port("x", dtype, &shape));
        // Rows that may be large are made in one of the tests of `worker::golden`.
        let sizes = shape.iter().map(|size| u128::from(size.unwrap_or(1)));
        let count = sizes.fold(1u128, |all, size| all.saturating_mul(size));
        if (SMALL_ROW_BYTES as u128 / 16..=protocol::BODY_BYTES_MAX as u128).contains(&count) {
            return false;
        }
        worker::golden::zeros(&ports).is_ok_and(|row| row.iter().all(Tensor::is_sound))
    });
}

/// One connection: everything is sent; what came back within the time.
fn talk(address: SocketAddr, bytes: &[u8], patience: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    let (mut answer, mut piece) = (vec![], [0; 4096]);
    // The server may close before everything is written. A head that never ends gets no answer.
    if stream.write_all(bytes).is_ok() && bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        stream.set_read_timeout(Some(patience)).unwrap();
        if let Ok(count) = stream.read(&mut piece) {
            answer.extend_from_slice(&piece[..count]);
        }
    }
    // To hyper the end of what a client says is the end of the connection.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn raw_requests_at_the_doors_socket_end_no_server() {
    let alone = alone();
    let (runtime, doors) = doors();
    let stop = CancellationToken::new();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let served = std::thread::spawn({
        let stop = stop.clone();
        move || runtime.block_on(server::serve(listener, doors, server::Options::default(), stop))
    });
    let host = address.to_string();
    let with = |head: &str, body: &str| format!("{head}\r\nHost: {host}\r\n{body}");
    let good = [
        with("POST /v1/models/one:predict HTTP/1.1", "Content-Length: 21\r\n\r\n{\"instances\": [1, 2]}"),
        with(
            "POST /v1/models/one:predict HTTP/1.1",
            "Transfer-Encoding: chunked\r\n\r\n15\r\n{\"instances\": [1, 2]}\r\n0\r\n\r\n",
        ),
        with("GET /v2/models/pair HTTP/1.1", "Accept-Encoding: gzip;q=0.5\r\nOrigin: http://localhost\r\n\r\n"),
        with("GET /healthz HTTP/1.1", "Connection: close\r\n\r\n"),
    ];
    let mut tries = 0;
    let patient = Duration::from_secs(10);
    let server = alone.parser("HTTP at the doors", good.clone()).inputs(2_000).long_inputs(100_000);
    server.memory(1024, SERVER_BYTES).run(|bytes| {
        tries += 1;
        if tries % 500 == 0 {
            assert!(talk(address, good[0].as_bytes(), patient).starts_with(b"HTTP/1.1 200"), "the server is gone");
        }
        let is_good = good.iter().any(|good| good.as_bytes() == bytes);
        let patience = if is_good { patient } else { Duration::from_millis(3) };
        talk(address, bytes, patience).starts_with(b"HTTP/1.1 2")
    });
    stop.cancel();
    served.join().unwrap().unwrap();
}
