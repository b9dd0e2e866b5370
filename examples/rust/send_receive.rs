//! Sends a message to a queue and receives it, both found by name.
//!
//!     cargo run -p daymark-client --example send_receive -- 127.0.0.1:9736

use std::error::Error;
use std::time::Duration;

use daymark_client::{Message, Naming, NamingConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let providers = std::env::args().nth(1);
    let text = send_and_receive(providers.as_deref().unwrap_or("127.0.0.1:9736")).await?;
    println!("received: {text}");
    Ok(())
}

/// `providers` are the naming servers, separated by commas.
pub(crate) async fn send_and_receive(providers: &str) -> Result<String, Box<dyn Error>> {
    let naming = Naming::new(providers.parse()?, NamingConfig::default());
    let connection = naming
        .connection_factory(&"QueueConnectionFactory".parse()?)
        .await?
        .connect()
        .await?;
    let queue = naming.destination(&"ExamplesQueue".parse()?).await?;
    let producer = connection.session().await?.producer(&queue).await?;
    producer.send(Message::text("stored before this returns")).await?;

    let consumer = connection.session().await?.consumer(&queue).await?;
    let delivery = consumer
        .receive(Duration::from_secs(30))
        .await?
        .ok_or("nothing came")?;
    delivery.accept().await?;
    Ok(delivery.message().as_text().unwrap_or_default().to_owned())
}
