//! What arrives, and what must not.

use std::sync::Arc;

use bytes::Bytes;
use rumqttc::{QoS, SubscribeReasonCode};

use super::embedded::{self, BrokerError, PACKET_BYTES_MAX};
use super::support::{Bench, Device, connected, disconnected, message, soon, topic};

/// A payload that shows where a byte is missing.
fn pattern(bytes: usize, seed: usize) -> Bytes {
    (0..bytes).map(|at| ((at * 31 + seed) % 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_at_both_qualities() {
    let mut bench = Bench::new().await;
    let identity = bench.enroll("cam-1");
    let mut device = bench.connect("cam-1", &identity).await;
    let desired = topic("cam-1", "desired");
    for (up, ours) in [(QoS::AtMostOnce, embedded::QoS::AtMostOnce), (QoS::AtLeastOnce, embedded::QoS::AtLeastOnce)] {
        let ack = device.subscribe(&desired, up).await;
        assert_eq!(ack.return_codes, [SubscribeReasonCode::Success(up)]);
        device.client.publish(topic("cam-1", "hello"), up, false, "up").await.unwrap();
        if up == QoS::AtLeastOnce {
            device.puback().await;
        }
        bench.expect(message("cam-1", "hello", "up")).await;
        bench.broker.publish(&desired, Bytes::from_static(b"down"), ours).await.unwrap();
        let received = device.receive().await;
        assert_eq!((received.topic.as_str(), &received.payload[..]), (desired.as_str(), &b"down"[..]));
        assert_eq!(received.qos, up);
        assert!(!received.retain);
    }
    device.client.disconnect().await.unwrap();
    bench.expect(disconnected("cam-1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_payloads_pass_both_ways() {
    let mut bench = Bench::new().await;
    let identity = bench.enroll("cam-1");
    let mut device = bench.connect("cam-1", &identity).await;
    device.subscribe(&topic("cam-1", "down"), QoS::AtMostOnce).await;
    let payload = pattern(200 * 1024, 7);
    bench.broker.publish(&topic("cam-1", "down"), payload.clone(), embedded::QoS::AtMostOnce).await.unwrap();
    assert_eq!(device.receive().await.payload, payload);
    device.client.publish(topic("cam-1", "up"), QoS::AtMostOnce, false, payload.to_vec()).await.unwrap();
    bench.expect(message("cam-1", "up", payload)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bursts_of_chunks_arrive_complete() {
    const BURST: usize = 48;
    let mut bench = Bench::new().await;
    let identity = bench.enroll("cam-1");
    let mut device = bench.connect("cam-1", &identity).await;
    let chunks = topic("cam-1", "down");
    device.subscribe(&chunks, QoS::AtMostOnce).await;
    let frames: Vec<Bytes> = (0..100).map(|seed| pattern(32 * 1024, seed)).collect();
    for burst in frames.chunks(BURST) {
        for frame in burst {
            bench.broker.publish(&chunks, frame.clone(), embedded::QoS::AtMostOnce).await.unwrap();
        }
        for frame in burst {
            assert_eq!(device.receive().await.payload, *frame);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_kept_apart() {
    let mut bench = Bench::new().await;
    let (a, b) = (bench.enroll("cam-a"), bench.enroll("cam-b"));
    let mut a = bench.connect("cam-a", &a).await;
    let mut b = bench.connect("cam-b", &b).await;
    for filter in [topic("cam-b", "desired"), "#".into(), "muster/v1/+/desired".into(), topic("cam-a", "+")] {
        let ack = a.subscribe(&filter, QoS::AtLeastOnce).await;
        assert_eq!(ack.return_codes, [SubscribeReasonCode::Failure], "{filter}");
    }
    let shared = format!("$share/group/{}", topic("cam-a", "desired"));
    assert_eq!(a.subscribe(&shared, QoS::AtMostOnce).await.return_codes, [SubscribeReasonCode::Failure]);
    a.subscribe(&topic("cam-a", "desired"), QoS::AtLeastOnce).await;
    b.subscribe(&topic("cam-b", "desired"), QoS::AtLeastOnce).await;

    // Neither to the plane under another's name, nor to another device. Each device's own messages
    // come after, so they show that nothing came before.
    for (name, qos) in [("hello", QoS::AtMostOnce), ("hello", QoS::AtLeastOnce), ("desired", QoS::AtLeastOnce)] {
        a.client.publish(topic("cam-b", name), qos, false, "forged").await.unwrap();
    }
    a.client.publish(topic("cam-a", "hello"), QoS::AtLeastOnce, false, "mine").await.unwrap();
    bench.expect(message("cam-a", "hello", "mine")).await;
    let publish = async |name: &str| {
        let payload = Bytes::copy_from_slice(name.as_bytes());
        bench.broker.publish(&topic(name, "desired"), payload, embedded::QoS::AtLeastOnce).await.unwrap();
    };
    publish("cam-b").await;
    publish("cam-a").await;
    assert_eq!(a.receive().await.payload, "cam-a");
    assert_eq!(b.receive().await.payload, "cam-b");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_plane_reads_what_devices_publish() {
    let mut bench = Bench::new().await;
    let identity = bench.enroll("cam-1");
    let mut device = bench.connect("cam-1", &identity).await;
    let both = topic("cam-1", "both");
    device.subscribe(&both, QoS::AtLeastOnce).await;
    device.client.publish(&both, QoS::AtLeastOnce, false, "up").await.unwrap();
    bench.expect(message("cam-1", "both", "up")).await;
    bench.broker.publish(&both, Bytes::from_static(b"down"), embedded::QoS::AtLeastOnce).await.unwrap();
    assert_eq!(device.receive().await.payload, "down");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_waits_for_a_device_that_is_away() {
    let mut bench = Bench::new().await;
    let identity = bench.enroll("cam-1");
    let desired = topic("cam-1", "desired");
    let publish = async |bench: &Bench, payload: &'static str| {
        let payload = Bytes::from_static(payload.as_bytes());
        bench.broker.publish(&desired, payload, embedded::QoS::AtLeastOnce).await.unwrap();
    };
    let mut options = bench.options("cam-1", &identity);
    // Not even if it asks to be waited for.
    options.set_clean_session(false);
    let mut device = Device::start(options.clone()).await.unwrap();
    bench.expect(connected("cam-1")).await;
    device.subscribe(&desired, QoS::AtLeastOnce).await;
    device.die().await;
    bench.expect(disconnected("cam-1")).await;
    publish(&bench, "missed").await;
    let mut device = Device::start(options).await.unwrap();
    bench.expect(connected("cam-1")).await;
    publish(&bench, "before the subscription").await;
    device.subscribe(&desired, QoS::AtLeastOnce).await;
    publish(&bench, "now").await;
    assert_eq!(device.receive().await.payload, "now");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_event_channel_delays_and_loses_nothing() {
    let mut bench = Bench::with_room_for(1).await;
    let identity = bench.enroll("cam-1");
    let mut device = bench.connect("cam-1", &identity).await;
    for number in 0..50u8 {
        device.client.publish(topic("cam-1", "telemetry"), QoS::AtLeastOnce, false, [number]).await.unwrap();
    }
    for number in 0..50u8 {
        bench.expect(message("cam-1", "telemetry", vec![number])).await;
    }
    for _ in 0..50 {
        device.puback().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_is_refused() {
    let bench = Bench::new().await;
    let broker = Arc::clone(&bench.broker);
    let publish = async |topic: &str, bytes: usize| {
        soon(broker.publish(topic, pattern(bytes, 0), embedded::QoS::AtMostOnce)).await
    };
    assert!(matches!(publish("muster/v1/+/desired", 1).await, Err(BrokerError::Topic { .. })));
    assert!(matches!(publish("a", PACKET_BYTES_MAX).await, Err(BrokerError::TooLarge { .. })));
    publish("a", PACKET_BYTES_MAX - 10).await.unwrap();
}
