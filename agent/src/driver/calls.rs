//! Calls over MQTT: predictions for the gateway, and what only a director may ask.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Method, StatusCode};
use muster_agent_core::reconcile::Action;
use muster_shared::Nonce;
use muster_shared::checks::{self, Check};
use muster_shared::command::Order;
use muster_shared::id::InstanceId;
use muster_shared::limits::clip;
use muster_shared::message::{Call, DoorRequest, EventKind, Reply, Request};
use muster_shared::signing::Envelope;
use muster_shared::topic::Leaf;
use muster_shared::wire;
use rumqttc::QoS;
use tokio::time::timeout;

use super::Driver;
use super::leaving::Leaving;
use crate::departure::Told;
use crate::diagnosis;
use crate::doors::Doors;
use crate::doors::http::{Answer, Ask, JSON_BYTES};

/// Calls whose ids are remembered, so that a repeated one is answered once.
const CALLS_REMEMBERED_MAX: usize = 1024;
/// Calls under way; more are told to come again later.
const CALLS_MAX: usize = 256;

impl Driver {
    /// A call that asks for something else than a prediction: only a director's word counts.
    fn commanded(&mut self, id: Nonce, reply_to: &InstanceId, envelope: &Envelope) -> Option<Answer> {
        match self.agent.command(envelope, id) {
            // Counted apart from other calls, which anybody on the broker can make until this id is forgotten.
            Ok(_) if !self.commands.is_new(id) => None,
            Ok(Order::Diagnose) => {
                Some(Answer::json(StatusCode::OK, &diagnosis::of(&self.agent, self.time.steady_ms())))
            }
            Ok(Order::Decommission) if checks::on(Check::OwnerLimits) && !self.config.decommission_from_plane => {
                let text = "this device's owner does not let the control plane take it out of its fleet \
                            (limits.decommission-from-plane)";
                Some(Answer::error(StatusCode::FORBIDDEN, text))
            }
            // Answered once it is done.
            Ok(Order::Decommission) => {
                self.leaving = Some(Leaving::Told(Told { command: id, reply_to: reply_to.clone() }));
                None
            }
            Err(error) => {
                let text = format!("a command was not believed: {error}");
                self.carry_out(vec![Action::Tell(EventKind::TrustRefused, None, clip(text.clone()))]);
                Some(Answer::error(StatusCode::FORBIDDEN, &text))
            }
        }
    }

    pub(super) fn answer(&self, id: Nonce, reply_to: InstanceId, answer: Answer) {
        if let Ok(bytes) = encoded(id, answer) {
            self.effects.mqtt.send(Leaf::Reply(reply_to), QoS::AtLeastOnce, bytes);
        }
    }

    pub(super) fn called(&mut self, call: Call) {
        let request = match call.request {
            Request::Command(envelope) => {
                if let Some(answer) = self.commanded(call.id, &call.reply_to, &envelope) {
                    self.answer(call.id, call.reply_to, answer);
                }
                return;
            }
            Request::Door(request) => request,
        };
        if !self.calls.is_new(call.id) {
            return;
        }
        if checks::on(Check::OwnerLimits) && !self.config.predictions_from_plane {
            let text = "this device's owner does not let the control plane ask for predictions \
                        (limits.predictions-from-plane); ask the device's own door";
            self.answer(call.id, call.reply_to, Answer::error(StatusCode::FORBIDDEN, text));
            return;
        }
        let (doors, mqtt, room) = (self.doors.clone(), self.effects.mqtt.clone(), self.calls.room.clone());
        tokio::spawn(async move {
            let (id, deadline) = (call.id, Duration::from_millis(call.deadline_ms.into()));
            let answer = match room.try_acquire() {
                Ok(_room) => timeout(deadline, answer_call(&doors, request)).await.ok(),
                Err(_) => {
                    Some(Answer::error(StatusCode::TOO_MANY_REQUESTS, "the device has more requests than it can take"))
                }
            };
            // Past its deadline nobody waits for it.
            let Some(answer) = answer else { return };
            if let Ok(bytes) = encoded(id, answer) {
                mqtt.send(Leaf::Reply(call.reply_to), QoS::AtLeastOnce, bytes);
            }
        });
    }
}

/// A reply on the wire, or word that it is too large for it.
fn encoded(id: Nonce, answer: Answer) -> Result<Vec<u8>, wire::WireError> {
    wire::encode(&reply(id, answer)).or_else(|_| {
        let text = "the answer is too large for the gateway; ask the device's own door";
        wire::encode(&reply(id, Answer::error(StatusCode::INSUFFICIENT_STORAGE, text)))
    })
}

async fn answer_call(doors: &Doors, request: DoorRequest) -> Answer {
    let method = if request.post { Method::POST } else { Method::GET };
    let mut headers = HeaderMap::new();
    if let Some(bytes) = request.json_bytes {
        headers.insert(JSON_BYTES, bytes.into());
    }
    let (path, body) = (request.path(), request.body.into());
    doors.answer(Ask { method: &method, path: &path, headers: &headers, body: &body }).await
}

fn reply(id: Nonce, answer: Answer) -> Reply {
    let json_bytes = answer.headers.iter().find(|(name, _)| name == JSON_BYTES);
    let json_bytes = json_bytes.and_then(|(_, value)| value.to_str().ok()?.parse().ok());
    Reply { id, status: answer.status.as_u16(), version: answer.version, json_bytes, body: answer.body.to_vec() }
}

/// Calls that came before.
pub(super) struct Calls {
    seen: VecDeque<Nonce>,
    room: Arc<tokio::sync::Semaphore>,
}

impl Default for Calls {
    fn default() -> Self {
        Self { seen: VecDeque::new(), room: Arc::new(tokio::sync::Semaphore::new(CALLS_MAX)) }
    }
}

impl Calls {
    pub(super) fn is_new(&mut self, id: Nonce) -> bool {
        if checks::on(Check::CallOnce) && self.seen.contains(&id) {
            return false;
        }
        if self.seen.len() == CALLS_REMEMBERED_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(id);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_call_is_answered_once() {
        let mut calls = Calls::default();
        assert!(calls.is_new(Nonce([1; 16])));
        assert!(!calls.is_new(Nonce([1; 16])));
        for number in 0..CALLS_REMEMBERED_MAX as u64 + 5 {
            let mut id = [9; 16];
            id[..8].copy_from_slice(&number.to_le_bytes());
            calls.is_new(Nonce(id));
        }
        assert_eq!(calls.seen.len(), CALLS_REMEMBERED_MAX);
    }
}
