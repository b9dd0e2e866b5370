// A small broker on rhea, as foreign to our client as servers get: it knows nothing of Daymark.
//
// server.js
//
// Prints `listening PORT`. What an address does:
//
//	missing     is refused with amqp:not-found
//	rejects, releases, modifies   every message that is sent to it ends so
//	gone        takes a message, and ends the link with amqp:resource-deleted
//	closes      takes a message, and ends the connection with amqp:connection:forced
//	drops       forgets the first message, and ends the socket without a word; then it is a queue
//	others      are queues, made on first use
//
// It reads frames of 4 KiB at most, wants a sign of life every two seconds, and lets in nobody but ANONYMOUS, and PLAIN
// as `guest` with the password `secret`.
"use strict";

const rhea = require("rhea");

const IDLE_MS = 2_000;

const container = rhea.create_container({
  id: "rhea",
  receiver_options: { autoaccept: false, credit_window: 100 },
  sender_options: { treat_modified_as_released: false },
});
container.sasl_server_mechanisms.enable_anonymous();
container.sasl_server_mechanisms.enable_plain((user, password) => user === "guest" && password === "secret");

/** Messages by address, and the links that want them. */
const queues = new Map();

let dropped = false;

function queue(address) {
  if (!queues.has(address)) queues.set(address, { messages: [], senders: new Set() });
  return queues.get(address);
}

/** For how many messages there is credit; the library counts those that wait for the end of the turn as not sent. */
function room(sender) {
  sender.given = Math.max(sender.given || 0, sender.delivery_count);
  return sender.credit - (sender.given - sender.delivery_count);
}

function dispatch({ messages, senders }) {
  for (const sender of senders) {
    if (!sender.is_open()) senders.delete(sender);
    while (senders.has(sender) && messages.length > 0 && room(sender) > 0) {
      const message = messages.shift();
      sender.given += 1;
      const delivery = sender.send(message);
      delivery.held = message;
    }
  }
}

container.on("receiver_open", ({ receiver }) => {
  const address = receiver.target && receiver.target.address;
  if (!address || address === "missing") {
    receiver.close({ condition: "amqp:not-found", description: `there is no ${address}` });
    return;
  }
  receiver.set_source({});
  receiver.set_target({ address });
});

container.on("message", ({ receiver, message, delivery, connection }) => {
  const { address } = receiver.target;
  switch (address) {
    case "rejects":
      return delivery.reject({ condition: "amqp:precondition-failed", description: "not this one" });
    case "releases":
      return delivery.release();
    case "modifies":
      return delivery.modified({ delivery_failed: true, undeliverable_here: true });
    case "gone":
      delivery.accept();
      return receiver.close({ condition: "amqp:resource-deleted", description: "it is gone" });
    case "closes":
      delivery.accept();
      return connection.close({ condition: "amqp:connection:forced", description: "going away" });
    case "drops":
      if (!dropped) {
        dropped = true;
        return connection.socket.destroy();
      }
    // falls through
    default:
      queue(address).messages.push(message);
      delivery.accept();
      return dispatch(queue(address));
  }
});

container.on("sender_open", ({ sender }) => {
  const address = sender.source && sender.source.address;
  if (!address || address === "missing") {
    sender.close({ condition: "amqp:not-found", description: `there is no ${address}` });
    return;
  }
  // Of what is asked for beside the address it has nothing, and does not say that it has.
  sender.set_source({ address });
  sender.set_target({});
  queue(address).senders.add(sender);
});

/** The queue of a link that takes from one; none if the link was refused. */
function queue_of(sender) {
  const held = sender.source && queues.get(sender.source.address);
  return held && held.senders.has(sender) ? held : undefined;
}

container.on("sendable", ({ sender }) => {
  const held = queue_of(sender);
  if (held) dispatch(held);
});

container.on("sender_draining", ({ sender }) => {
  const held = queue_of(sender);
  if (held) dispatch(held);
  sender.set_drained(true);
});

/** Puts a message back at the front, as it was or counted. */
function back({ sender, delivery }, failed) {
  if (!delivery.held) return;
  const message = delivery.held;
  delivery.held = undefined;
  if (failed) message.delivery_count = (message.delivery_count || 0) + 1;
  const held = queue(sender.source.address);
  held.messages.unshift(message);
  dispatch(held);
}

container.on("released", (context) => back(context, false));
container.on("modified", (context) => back(context, context.delivery.remote_state.delivery_failed));

// What goes wrong on one connection is its own matter; what the client sees of it is what is tested.
container.on("connection_error", () => {});
container.on("protocol_error", (error) => console.error(error));
container.on("error", (error) => console.error(error));

const server = container.listen({ host: "127.0.0.1", port: 0, max_frame_size: 4_096, idle_time_out: IDLE_MS });
server.on("listening", () => console.log(`listening ${server.address().port}`));
// It ends with the test.
process.stdin.on("end", () => process.exit(0)).resume();
