//! Many clients at once.

use anyhow::Result;
use muster_tests::programs;
use muster_tests::serving::{COLUMNS, Client, is_times, metric, request, row, times, together};
use muster_world::Server;
use serde_json::json;

const CLIENTS: usize = 32;
const REQUESTS: usize = 200;

#[test]
fn each_of_32_clients_times_200_requests_gets_its_own_answer() -> Result<()> {
    let server = Server::start(&programs()?, &["--model", "double={}/double.onnx"], |folder| {
        Ok(std::fs::write(folder.join("double.onnx"), times(2.0))?)
    })?;
    let ask = |client: usize| -> Result<usize> {
        let mut door = Client::new(server.door());
        for number in 0..REQUESTS {
            let row = row(client * REQUESTS + number);
            // Several rows now and then: they must come apart rightly, too.
            let rows = 1 + number % 3;
            let body = json!({ "instances": vec![row; rows] }).to_string();
            let answer = door.post("/v1/models/double:predict", body.as_bytes())?;
            let body = answer.json();
            let count = body["predictions"].as_array().map_or(0, Vec::len);
            anyhow::ensure!(answer.status == 200 && count == rows, "{} {body}", answer.status);
            anyhow::ensure!(is_times(2.0, &row, &body), "{row:?}: {body}");
        }
        Ok(REQUESTS)
    };
    let answered: Result<Vec<usize>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || ask(client))).collect();
        clients.into_iter().map(|client| client.join().unwrap_or_else(|_| anyhow::bail!("a client panicked"))).collect()
    });
    assert_eq!(answered?.iter().sum::<usize>(), CLIENTS * REQUESTS);
    assert_eq!(metric(server.door(), "muster_requests_total", "double")?, (CLIENTS * REQUESTS) as f64);
    let together = together(server.door(), "double")?;
    println!("{together:.1} requests in a run, seen by each request");
    assert!(together > 1.0, "requests that wait at the same time run together");
    Ok(())
}

#[test]
fn a_model_whose_rows_look_at_each_other_answers_each_request_alone() -> Result<()> {
    use muster_tests::onnx::Graph;
    // y = x − the greatest of all rows: a free first size that is no batch.
    let set = Graph::default()
        .node("ReduceMax", &["x"], "greatest")
        .node("Sub", &["x", "greatest"], "y")
        .input("x", &[0, COLUMNS as u64])
        .output("y", &[0, COLUMNS as u64])
        .file();
    let server = Server::start(&programs()?, &["--model", "set={}/set.onnx"], |folder| {
        Ok(std::fs::write(folder.join("set.onnx"), set)?)
    })?;
    std::thread::scope(|scope| {
        let ask = |client: usize| -> Result<()> {
            let mut door = Client::new(server.door());
            for number in 0..REQUESTS {
                let row = row(client * REQUESTS + number);
                let answer = door.post("/v1/models/set:predict", request(&row).as_bytes())?.json();
                anyhow::ensure!(answer["predictions"] == json!([[-3.0, -2.0, -1.0, 0.0]]), "{row:?}: {answer}");
            }
            Ok(())
        };
        let clients: Vec<_> = (0..8).map(|client| scope.spawn(move || ask(client))).collect();
        clients.into_iter().try_for_each(|client| client.join().unwrap_or_else(|_| anyhow::bail!("a client panicked")))
    })
}
