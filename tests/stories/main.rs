//! Stories over the real processes: a plane, agents, workers, the command line.

mod attacks;
mod delivery;
mod doctor;
mod enrolment;
mod fleet;
mod gateway;
mod local_mqtt;
mod membership;
mod names;
mod network;
mod outages;
mod provisioning;
mod refusals;
mod releases;
mod resilience;
mod resume;
mod rollouts;
mod time;
mod trust;
