//! Foreign AMQP 1.0 clients against real brokers: what they can do is what programs written for other brokers
//! can rely on. Each file is one client; each client is fetched and built by the test itself, once, below the
//! cargo target directory. In `servers` it is the other way round: our client against foreign servers.

mod examples;
mod go_amqp;
mod jms;
#[path = "../e2e/stage.rs"]
#[allow(dead_code, reason = "this suite uses its part")]
mod pair;
mod proton;
mod rhea;
mod servers;
mod stage;
