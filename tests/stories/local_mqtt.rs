//! What speaks MQTT beside a device asks its models, through a broker of its own.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use muster_tests::local_broker::{Client, Heard, LocalBroker};
use muster_tests::{MODELS, both_models_serve, world};
use muster_world::{DEADLINE, World, fixtures, resident_bytes};
use serde_json::{Value, json};

const ANSWERS: [&str; 2] = ["answers/#", "regression/#"];
/// Topics are at most so long (MQTT 3.1.1, §1.5.3).
const TOPIC_BYTES_MAX: usize = 65_535;
/// Far more than are asked at a time.
const FLOOD_MESSAGES: usize = 10_000;
/// How much more memory the agent and its workers may have after a flood.
const FLOOD_GROWTH_BYTES_MAX: u64 = 64 << 20;

fn routes(broker: SocketAddr) -> String {
    format!(
        r#"
[local-mqtt]
broker = "{broker}"

[[local-mqtt.route]]
input = "cameras/+/digits"
output = "answers/{{topic}}"
model = "digits"

[[local-mqtt.route]]
input = "sensors/raw"
output = "regression/raw"
model = "linear_regression"
payload = "raw"

[[local-mqtt.route]]
input = "sensors/two-outputs"
output = "answers/two-outputs"
model = "digits"
payload = "raw"

[[local-mqtt.route]]
input = "sensors/version-9"
output = "answers/version-9"
model = "digits"
version = 9
"#
    )
}

/// A device that serves both models, with the local door open to a broker.
fn beside(broker: &LocalBroker) -> Result<World> {
    let mut world = both_models_serve()?;
    world.stop_agent("edge-1")?;
    world.configure("edge-1", |text| text + &routes(broker.address()))?;
    world.start_agent("edge-1")?;
    until_logged(&mut world, "connected to the local broker", 1)?;
    for model in MODELS {
        world.until(&format!("{model} to answer again"), |world| {
            let answer = muster_world::get(&format!("{}/v2/models/{model}/ready", world.door("edge-1")?))?;
            Ok((answer.status == 200).then_some(()))
        })?;
    }
    Ok(world)
}

fn until_logged(world: &mut World, words: &str, times: usize) -> Result<()> {
    world.until(&format!("the agent to log {words:?} {times} times"), |world| {
        Ok((world.log("edge-1")?.matches(words).count() >= times).then_some(()))
    })
}

/// The next answer on a topic; others are passed over.
fn answer_on(client: &Client, topic: &str) -> Result<Heard> {
    let began = Instant::now();
    while began.elapsed() < DEADLINE {
        match client.next(Duration::from_secs(1)) {
            Some(heard) if heard.0 == topic => return Ok(heard),
            _ => {}
        }
    }
    anyhow::bail!("no answer on {topic}")
}

fn instances(rows: &[Value]) -> Vec<u8> {
    json!({ "instances": rows }).to_string().into_bytes()
}

/// Asks for a few held-out digits by one topic, and holds the answer against scikit-learn's.
fn ask_digits(client: &Client, camera: &str) -> Result<()> {
    let held_out = fixtures::held_out("digits", 1)?;
    let topic = format!("cameras/{camera}/digits");
    client.publish(&topic, &instances(&held_out.instances[..5]))?;
    let (_, payload) = answer_on(client, &format!("answers/{topic}"))?;
    let got: Value = serde_json::from_slice(&payload)?;
    let got = got["predictions"].as_array().with_context(|| format!("no predictions: {got}"))?;
    ensure!(got.len() == 5, "{got:?}");
    for (expected, got) in held_out.predictions.iter().zip(got) {
        ensure!(fixtures::agrees(expected, got), "{expected} {got}");
    }
    Ok(())
}

fn raw(rows: &[Value]) -> Vec<u8> {
    let elements = rows.iter().flat_map(|row| row.as_array().into_iter().flatten());
    elements.flat_map(|element| (element.as_f64().unwrap_or_default() as f32).to_le_bytes()).collect()
}

fn ask_raw(client: &Client) -> Result<()> {
    let held_out = fixtures::held_out("linear_regression", 1)?;
    client.publish("sensors/raw", &raw(&held_out.instances))?;
    let (_, payload) = answer_on(client, "regression/raw")?;
    let (chunks, rest) = payload.as_chunks::<4>();
    ensure!(rest.is_empty() && chunks.len() == held_out.predictions.len(), "{} bytes", payload.len());
    for (expected, bytes) in held_out.predictions.iter().zip(chunks) {
        ensure!(fixtures::agrees(expected, &f32::from_le_bytes(*bytes).into()), "{expected} {bytes:?}");
    }
    Ok(())
}

/// Asks what must fail, and gives back why it did.
fn refusal(client: &Client, topic: &str, payload: &[u8], answers: &str) -> Result<String> {
    client.publish(topic, payload)?;
    let (_, payload) = answer_on(client, &format!("{answers}/error"))?;
    let body: Value = serde_json::from_slice(&payload)?;
    Ok(body["error"].as_str().context("an error is a text")?.to_owned())
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

#[test]
fn a_message_is_a_request_and_its_answer_comes_by_another_topic() -> Result<()> {
    let broker = LocalBroker::start(any_port())?;
    let client = Client::connect(broker.address(), &ANSWERS)?;
    // Kept by the broker since before the agent knew it: nobody waits for its answer.
    let row = fixtures::held_out("digits", 1)?.instances[0].clone();
    client.publish_retained("cameras/old/digits", &instances(std::slice::from_ref(&row)))?;
    let world = beside(&broker)?;

    for camera in ["1", "2", "kitchen"] {
        ask_digits(&client, camera)?;
    }
    ask_raw(&client)?;
    let good = instances(std::slice::from_ref(&row));
    let why = refusal(&client, "cameras/1/digits", b"{\"instances\": [[1, 2]]}", "answers/cameras/1/digits")?;
    assert!(why.contains('x') && why.contains("64"), "{why}");
    let why = refusal(&client, "cameras/1/digits", b"\xff", "answers/cameras/1/digits")?;
    assert!(why.contains("JSON"), "{why}");
    let why = refusal(&client, "sensors/raw", &[0; 41], "regression/raw")?;
    assert_eq!(why, "41 bytes do not fill rows of 40 bytes each");
    let why = refusal(&client, "sensors/two-outputs", &[0; 256], "answers/two-outputs")?;
    assert!(why.starts_with("digits has 1 inputs and 2 outputs"), "{why}");
    let why = refusal(&client, "sensors/version-9", &good, "answers/version-9")?;
    assert_eq!(why, "Servable not found for request: Specific(digits, 9)");
    // The answer's topic would be too long for MQTT: there is none, and the connection stands.
    client.publish(&format!("cameras/{}/digits", "c".repeat(TOPIC_BYTES_MAX - 20)), &good)?;
    ask_digits(&client, "1")?;
    let log = world.log("edge-1")?;
    assert!(log.contains("topics would be too long") && !log.contains("is gone"), "{log}");

    // Everything asked before has been answered; the kept message was not asked. Live it is.
    let late = client.next(Duration::from_secs(1));
    assert_eq!(late, None);
    client.publish_retained("cameras/old/digits", &good)?;
    answer_on(&client, "answers/cameras/old/digits")?;
    Ok(())
}

#[test]
fn a_broker_that_comes_back_is_heard_again_and_a_flood_is_outlived() -> Result<()> {
    let broker = LocalBroker::start(any_port())?;
    let address = broker.address();
    let mut world = beside(&broker)?;
    let client = Client::connect(address, &ANSWERS)?;
    ask_digits(&client, "1")?;

    drop((client, broker));
    until_logged(&mut world, "the connection to the local broker is gone", 1)?;
    let _broker = LocalBroker::start(address)?;
    until_logged(&mut world, "connected to the local broker", 2)?;
    let client = Client::connect(address, &ANSWERS)?;
    ask_digits(&client, "2")?;
    ask_raw(&client)?;

    let before = resident_bytes(world.agent_id("edge-1")?)?;
    let rows = instances(&fixtures::held_out("digits", 1)?.instances);
    for _ in 0..FLOOD_MESSAGES {
        client.publish_lossy("cameras/flood/digits", &rows)?;
    }
    until_logged(&mut world, "messages of the local broker are dropped", 1)?;
    // What comes while the models are busy is dropped; then they answer again.
    world.until("an answer after the flood", |_| {
        client.publish("sensors/raw", &[0; 41])?;
        let answered = std::iter::from_fn(|| client.next(Duration::from_secs(1)));
        Ok(answered.into_iter().find(|(topic, _)| topic == "regression/raw/error").map(drop))
    })?;
    ask_digits(&client, "3")?;
    ask_raw(&client)?;
    world.check()?;
    let after = resident_bytes(world.agent_id("edge-1")?)?;
    println!("flood: {} MiB before, {} MiB after", before >> 20, after >> 20);
    assert!(after <= before + FLOOD_GROWTH_BYTES_MAX, "{before} bytes before, {after} after");
    Ok(())
}

#[test]
fn a_wrong_table_is_refused_at_start_with_the_name_of_the_key() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    world.stop_agent("edge-1")?;
    let good = routes(SocketAddr::from(([127, 0, 0, 1], 1883)));
    let mut before = String::new();
    world.configure("edge-1", |text| {
        before = text.clone();
        text
    })?;
    for (from, to, key) in [
        ("broker = \"127.0.0.1:1883\"", "broker = \"127.0.0.1\"", "local-mqtt.broker"),
        ("broker = \"127.0.0.1:1883\"", "", "broker"),
        ("cameras/+/digits", "cameras/+x/digits", "local-mqtt.route.input"),
        ("regression/raw", "regression/#", "local-mqtt.route.output"),
        ("answers/{topic}", "{topic}", "local-mqtt.route.output"),
        ("payload = \"raw\"", "payload = \"xml\"", "payload"),
        ("version = 9", "version = 0", "version"),
        ("version = 9", "versoin = 9", "versoin"),
        ("model = \"digits\"", "model = \"Digits!\"", "model"),
    ] {
        let wrong = good.replacen(from, to, 1);
        assert_ne!(wrong, good, "{from}");
        world.configure("edge-1", |_| format!("{before}{wrong}"))?;
        assert!(world.start_agent("edge-1").is_err(), "{to}");
        let said = world.log("edge-1")?;
        assert!(said.contains(key), "{to}: {said}");
    }
    world.configure("edge-1", |_| before + &good)?;
    world.start_agent("edge-1")
}
