//! Who gets in, and how sessions end.

use bytes::Bytes;
use rumqttc::{ConnectReturnCode, ConnectionError, LastWill, MqttOptions, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::embedded;
use super::support::{Bench, Device, connected, disconnected, message, soon, topic};

async fn assert_refused(options: MqttOptions) {
    match Device::start(options).await {
        Err(ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized)) => {}
        Err(other) => panic!("{other:?} instead of a refusal"),
        Ok(_) => panic!("admitted"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_enrolled_key_of_that_name_gets_in() {
    let mut bench = Bench::new().await;
    let (a, b) = (bench.enroll("cam-a"), bench.enroll("cam-b"));
    let mut device = bench.connect("cam-a", &a).await;
    // Another device's certificate; a certified key that is not enrolled, under either name; and a
    // last will in another's name.
    assert_refused(bench.options("cam-a", &b)).await;
    let stranger = bench.issue("cam-a");
    assert_refused(bench.options("cam-a", &stranger)).await;
    assert_refused(bench.options("cam-b", &stranger)).await;
    let mut forged = bench.options("cam-b", &b);
    forged.set_last_will(LastWill::new(topic("cam-a", "gone"), "forged", QoS::AtMostOnce, false));
    assert_refused(forged).await;
    // None of them disturbed the device that is in.
    assert!(bench.broker.is_connected("cam-a") && !bench.broker.is_connected("cam-b"));
    device.client.publish(topic("cam-a", "hello"), QoS::AtLeastOnce, false, "still here").await.unwrap();
    device.puback().await;
    bench.expect(message("cam-a", "hello", "still here")).await;
    bench.revoke("cam-b");
    assert_refused(bench.options("cam-b", &b)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_and_garbage_peers_hold_up_nobody() {
    let mut bench = Bench::new().await;
    let mut peers = Vec::new();
    for number in 0..50 {
        let mut peer = TcpStream::connect(bench.broker.local_addr()).await.unwrap();
        if number % 5 == 0 {
            peer.write_all(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00").await.unwrap();
        }
        peers.push(peer);
    }
    let identity = bench.enroll("cam-1");
    let started = std::time::Instant::now();
    let device = bench.connect("cam-1", &identity).await;
    assert!(started.elapsed() < std::time::Duration::from_secs(3), "{:?}", started.elapsed());
    // And they are thrown out.
    for mut peer in peers {
        let _ = soon(peer.read_to_end(&mut Vec::new())).await;
    }
    assert!(bench.broker.is_connected("cam-1"));
    drop(device);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_will_comes_from_a_dead_socket_only() {
    let mut bench = Bench::new().await;
    let identity = bench.enroll("cam-1");
    let device = bench.connect_with_will("cam-1", &identity).await;
    device.die().await;
    bench.expect(message("cam-1", "gone", "lost")).await;
    bench.expect(disconnected("cam-1")).await;
    assert!(!bench.broker.is_connected("cam-1"));

    let device = bench.connect_with_will("cam-1", &identity).await;
    device.client.disconnect().await.unwrap();
    bench.expect(disconnected("cam-1")).await;

    let device = bench.connect_with_will("cam-1", &identity).await;
    bench.broker.disconnect("cam-1");
    bench.expect(disconnected("cam-1")).await;
    drop(device);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_cut_at_once() {
    let mut bench = Bench::new().await;
    let identity = bench.enroll("cam-1");
    let mut device = bench.connect("cam-1", &identity).await;
    // It does not stop to send, so that some of it is on the way when the session is cut.
    let client = device.client.clone();
    let talking = tokio::spawn(async move {
        while client.publish(topic("cam-1", "telemetry"), QoS::AtLeastOnce, false, "talk").await.is_ok() {}
    });
    bench.expect(message("cam-1", "telemetry", "talk")).await;
    bench.revoke("cam-1");
    bench.broker.disconnect("cam-1");
    assert!(!bench.broker.is_connected("cam-1"));
    // What was passed on before the cut is all there is, but for one on its way through.
    let passed_on = bench.events.len() + 1;
    let mut messages = 0;
    while let embedded::BrokerEvent::Message { .. } = soon(bench.events.recv()).await.unwrap() {
        messages += 1;
    }
    assert!(messages <= passed_on, "{messages} instead of {passed_on}");
    device.lost().await;
    assert_refused(bench.options("cam-1", &identity)).await;
    talking.abort();
    bench.stop.cancel();
    soon(bench.broker.closed()).await;
    drop(bench.broker);
    assert_eq!(soon(bench.events.recv()).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_connection_takes_over() {
    let mut bench = Bench::new().await;
    let identity = bench.enroll("cam-1");
    let mut first = bench.connect_with_will("cam-1", &identity).await;
    first.subscribe(&topic("cam-1", "desired"), QoS::AtLeastOnce).await;
    let mut second = Device::start(bench.options("cam-1", &identity)).await.unwrap();
    // No last will, and the last word is that it is connected.
    bench.expect(disconnected("cam-1")).await;
    bench.expect(connected("cam-1")).await;
    assert!(bench.broker.is_connected("cam-1"));
    let error = first.lost().await;
    assert!(matches!(error, ConnectionError::Io(_) | ConnectionError::MqttState(_)), "{error:?}");

    second.subscribe(&topic("cam-1", "desired"), QoS::AtLeastOnce).await;
    let payload = Bytes::from_static(b"for the second");
    bench.broker.publish(&topic("cam-1", "desired"), payload, embedded::QoS::AtLeastOnce).await.unwrap();
    assert_eq!(second.receive().await.payload, "for the second");
    second.client.publish(topic("cam-1", "hello"), QoS::AtLeastOnce, false, "second").await.unwrap();
    bench.expect(message("cam-1", "hello", "second")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_at_a_time_leave_one_session() {
    let mut bench = Bench::new().await;
    let identity = bench.enroll("cam-1");
    let starts: Vec<_> = (0..8).map(|_| tokio::spawn(Device::start(bench.options("cam-1", &identity)))).collect();
    let mut devices = Vec::new();
    for start in starts {
        // Some are cut before their CONNACK.
        devices.extend(start.await.unwrap().ok());
    }
    bench.stop.cancel();
    soon(bench.broker.closed()).await;
    drop(bench.broker);
    let mut up = false;
    while let Some(event) = soon(bench.events.recv()).await {
        assert_eq!(event, if up { disconnected("cam-1") } else { connected("cam-1") });
        up = !up;
    }
    assert!(!up && !devices.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_is_taken_over_and_cut() {
    let mut bench = Bench::new().await;
    let identity = bench.enroll("cam-1");
    let down = topic("cam-1", "down");
    for taken_over in [true, false] {
        // This client's event loop is not polled once it has subscribed.
        let (client, mut event_loop) = rumqttc::AsyncClient::new(bench.options("cam-1", &identity), 8);
        client.subscribe(&down, QoS::AtLeastOnce).await.unwrap();
        while !matches!(soon(event_loop.poll()).await.unwrap(), rumqttc::Event::Incoming(rumqttc::Packet::SubAck(_))) {}
        bench.expect(connected("cam-1")).await;
        // More than the socket's buffers hold, so the broker's writing blocks; nobody else's does.
        let payload = Bytes::from(vec![7; 900_000]);
        for _ in 0..200 {
            let published = bench.broker.publish(&down, payload.clone(), embedded::QoS::AtLeastOnce);
            soon(published).await.unwrap();
        }
        let started = std::time::Instant::now();
        if taken_over {
            let mut device = Device::start(bench.options("cam-1", &identity)).await.unwrap();
            bench.expect(disconnected("cam-1")).await;
            bench.expect(connected("cam-1")).await;
            device.subscribe(&topic("cam-1", "desired"), QoS::AtLeastOnce).await;
            let payload = Bytes::from_static(b"fresh");
            let desired = topic("cam-1", "desired");
            bench.broker.publish(&desired, payload, embedded::QoS::AtLeastOnce).await.unwrap();
            assert_eq!(device.receive().await.payload, "fresh");
            device.client.disconnect().await.unwrap();
        } else {
            bench.broker.disconnect("cam-1");
        }
        bench.expect(disconnected("cam-1")).await;
        assert!(started.elapsed() < std::time::Duration::from_secs(4), "{:?}", started.elapsed());
        drop(event_loop);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_sessions_and_the_listener() {
    let mut bench = Bench::with_room_for(1).await;
    let (a, b) = (bench.enroll("cam-a"), bench.enroll("cam-b"));
    let mut first = bench.connect_with_will("cam-a", &a).await;
    let mut second = bench.connect("cam-b", &b).await;
    bench.stop.cancel();
    // Even though nobody reads the events now.
    soon(bench.broker.closed()).await;
    first.lost().await;
    second.lost().await;
    assert!(TcpStream::connect(bench.broker.local_addr()).await.is_err());
    assert!(!bench.broker.is_connected("cam-a") && !bench.broker.is_connected("cam-b"));
}
