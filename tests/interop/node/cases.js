// rhea against a broker: one line for each case, `ok NAME (MS ms)` or `FAILED NAME: why`.
//
// cases.js WILLING STRICT CASE...
//
// WILLING and STRICT are HOST:PORT: the first makes queues on first use, the second knows only `examples`.
"use strict";

const assert = require("node:assert");
const rhea = require("rhea");

const SOON_MS = 30_000;
const [willing, strict, ...names] = process.argv.slice(2);

/** The first of these events, within the time; `fails` are events that must not come before. */
function once(emitter, event, fails = []) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${event} came`)), SOON_MS);
    emitter.once(event, (context) => {
      clearTimeout(timer);
      resolve(context);
    });
    for (const fail of fails) {
      emitter.once(fail, (context) => {
        clearTimeout(timer);
        const held = context.receiver || context.sender || context.connection;
        reject(Object.assign(new Error(`${fail}: ${held && held.error}`), { held }));
      });
    }
  });
}

async function connect(options = {}, address = willing) {
  const [host, port] = address.split(":");
  const container = rhea.create_container();
  const connection = container.connect({ host, port: Number(port), reconnect: false, ...options });
  await once(connection, "connection_open", ["connection_error", "disconnected"]);
  return connection;
}

/** Sends messages one after another; each is accepted. */
async function send(connection, address, ...messages) {
  const sender = connection.open_sender({ target: { address } });
  await once(sender, "sendable", ["sender_error"]);
  for (const message of messages) {
    const accepted = once(sender, "accepted", ["rejected", "released", "modified", "sender_error"]);
    sender.send(message);
    await accepted;
  }
  sender.close();
}

/** A receiver that is given credit by hand. */
function receiver(connection, source, options = {}) {
  const terms = { source, credit_window: 0, autoaccept: false, ...options };
  return connection.open_receiver(terms);
}

async function receive(link) {
  const message = once(link, "message", ["receiver_error", "receiver_close"]);
  link.add_credit(1);
  return message;
}

async function works(connection, address) {
  await send(connection, address, { body: "works" });
  const got = await receive(receiver(connection, address));
  assert.equal(got.message.body, "works");
  got.delivery.accept();
}

/** Receives and accepts so many messages. */
async function take(link, count) {
  const bodies = [];
  for (let i = 0; i < count; i++) {
    const { message, delivery } = await receive(link);
    bodies.push(message.body);
    delivery.accept();
  }
  return bodies;
}

/** Nothing is there: the broker answers a drain without a message. */
async function nothingComes(link) {
  const came = [];
  link.on("message", ({ message }) => came.push(message.body));
  const drained = once(link, "receiver_drained");
  link.drain = true;
  link.add_credit(1);
  await drained;
  assert.deepEqual(came, []);
}

const cases = {
  async bodiesArriveAsSent(name) {
    const connection = await connect();
    const bodies = ["text", 7, true, null, ["a", 1], { a: 1, b: "c" }, "ß".repeat(5000)];
    await send(connection, name, ...bodies.map((body) => ({ body, durable: true })));
    const link = receiver(connection, name);
    for (const body of bodies) {
      const { message, delivery } = await receive(link);
      assert.deepEqual(message.body, body);
      delivery.accept();
    }
  },

  async everyOutcomeDoesWhatItSays(name) {
    const connection = await connect();
    await send(connection, name, { body: "1" }, { body: "2" }, { body: "3" }, { body: "4" });
    const link = receiver(connection, name);
    (await receive(link)).delivery.accept();
    (await receive(link)).delivery.reject({ condition: "test:no", description: "no" });
    let got = await receive(link);
    assert.equal(got.message.body, "3");
    got.delivery.release({ delivery_failed: false });
    got = await receive(link);
    assert.deepEqual([got.message.body, got.message.delivery_count || 0], ["3", 0]);
    got.delivery.modified({ delivery_failed: true, undeliverable_here: false });
    got = await receive(link);
    assert.deepEqual([got.message.body, got.message.delivery_count], ["3", 1]);
    got.delivery.accept();
    got = await receive(link);
    assert.equal(got.message.body, "4");
    got.delivery.accept();
  },

  async aDrainIsAnsweredAfterWhatThereIs(name) {
    const connection = await connect();
    await send(connection, name, { body: "1" }, { body: "2" }, { body: "3" });
    const link = receiver(connection, name);
    const bodies = [];
    link.on("message", ({ message }) => bodies.push(message.body));
    await once(link, "receiver_open");
    const drained = once(link, "receiver_drained");
    link.drain = true;
    link.add_credit(10);
    await drained;
    assert.deepEqual(bodies, ["1", "2", "3"]);
    assert.equal(link.credit, 0);
  },

  async messagesOfEverySizeKeepTheirOrder(name) {
    const connection = await connect();
    const count = 500;
    const body = (n) => `${n} ` + "x".repeat((n * 7919) % 100_000);
    const link = receiver(connection, name, { credit_window: 100, autoaccept: true });
    const all = new Promise((resolve, reject) => {
      let next = 0;
      link.on("message", ({ message }) => {
        if (message.body !== body(next)) reject(new Error(`message ${next} is damaged or out of order`));
        next += 1;
        if (next === count) resolve();
      });
    });
    const sender = connection.open_sender({ target: name });
    let sent = 0;
    let accepted = 0;
    sender.on("accepted", () => (accepted += 1));
    sender.on("sendable", () => {
      while (sent < count && sender.sendable()) sender.send({ body: body(sent++) });
    });
    await all;
    assert.equal(sent, count);
    while (accepted < count) await once(sender, "accepted");
  },

  async aMessageOf16MebibytesArrives(name) {
    const connection = await connect({ max_frame_size: 32_768 });
    const body = rhea.message.data_section(Buffer.alloc(16 << 20, "0123456789abcdef"));
    await send(connection, name, { body });
    const got = await receive(receiver(connection, name));
    assert.ok(Buffer.compare(got.message.body.content, body.content) === 0);
    got.delivery.accept();
  },

  async fiftySessionsShareOneConnection(name) {
    const connection = await connect();
    const links = [];
    for (let i = 0; i < 50; i++) {
      const session = connection.create_session();
      session.begin();
      links.push(session.open_receiver({ source: `${name}.${i}`, credit_window: 0, autoaccept: false }));
    }
    for (let i = 0; i < 50; i++) await send(connection, `${name}.${i}`, { body: i });
    for (let i = 0; i < 50; i++) assert.equal((await receive(links[i])).message.body, i);
  },

  async saslPlainEnters(name) {
    await works(await connect({ username: "user", password: "password" }), name);
  },

  async saslAnonymousEnters(name) {
    await works(await connect({ username: "user" }), name);
  },

  async aClientWithoutSaslEnters(name) {
    await works(await connect(), name);
  },

  async anIdleConnectionIsKeptAlive(name) {
    // One wants to hear from the broker, and of the other one the broker wants to hear.
    const connection = await connect({ idle_time_out: 4_000 });
    const heard = await connect({}, strict);
    let lost = false;
    for (const each of [connection, heard]) each.on("disconnected", () => (lost = true));
    await new Promise((resolve) => setTimeout(resolve, 7_000));
    assert.ok(!lost, "the connection was lost");
    await works(connection, name);
    await once(heard.open_sender("examples"), "sendable", ["sender_error"]);
  },

  async anUnknownQueueIsRefusedAndTheConnectionLives() {
    const connection = await connect({}, strict);
    const link = receiver(connection, "unknown");
    const { receiver: refused } = await once(link, "receiver_error");
    assert.equal(refused.error.condition, "amqp:not-found");
    const sender = connection.open_sender("unknown");
    const { sender: turned } = await once(sender, "sender_error");
    assert.equal(turned.error.condition, "amqp:not-found");
    await works(connection, "examples");
  },

  async aSelectorTakesWhatItChoosesAndLeavesTheRest(name) {
    const connection = await connect();
    const of = (body, colour) => ({ body, application_properties: { colour } });
    await send(connection, name, of(0, "red"), of(1, "blue"), of(2, "red"));
    const chosen = receiver(connection, { address: name, filter: rhea.filter.selector("colour = 'red'") });
    assert.deepEqual(await take(chosen, 2), [0, 2]);
    await nothingComes(chosen);
    assert.deepEqual(await take(receiver(connection, name), 1), [1]);
  },

  async aSelectorThatMakesNoSenseIsRefused(name) {
    const connection = await connect();
    const link = receiver(connection, { address: name, filter: rhea.filter.selector("colour = = 'red'") });
    const { receiver: refused } = await once(link, "receiver_error");
    assert.equal(refused.error.condition, "amqp:invalid-field");
    await works(connection, name);
  },

  async aBrowserSeesEverythingAndTakesNothing(name) {
    const connection = await connect();
    await send(connection, name, { body: 1 }, { body: 2 });
    for (let i = 0; i < 2; i++) {
      const browser = receiver(connection, { address: name, distribution_mode: "copy" });
      assert.deepEqual(await take(browser, 2), [1, 2]);
      browser.close();
    }
    assert.deepEqual(await take(receiver(connection, name), 2), [1, 2]);
  },

  async aRequestIsAnsweredOverATemporaryQueue(name) {
    const asking = await connect();
    const replies = receiver(asking, { dynamic: true });
    await once(replies, "receiver_open", ["receiver_error"]);
    const reply_to = replies.source.address;
    await send(asking, name, { body: "question", reply_to, correlation_id: "5" });
    const answering = await connect();
    const { message: request } = await receive(receiver(answering, name));
    assert.equal(request.reply_to, reply_to);
    await send(answering, reply_to, { body: "answer", correlation_id: request.correlation_id });
    const { message: answer } = await receive(replies);
    assert.deepEqual([answer.body, answer.correlation_id], ["answer", "5"]);
  },

  async everySubscriberOfATopicGetsItsCopy(address) {
    const connection = await connect();
    const topic = { address, capabilities: ["topic"] };
    const subscribers = [1, 2, 3].map(() => receiver(connection, topic));
    await Promise.all(subscribers.map((link) => once(link, "receiver_open", ["receiver_error"])));
    const sender = connection.open_sender({ target: topic });
    await once(sender, "sendable", ["sender_error"]);
    for (const body of ["a", "b"]) sender.send({ body });
    for (const link of subscribers) assert.deepEqual(await take(link, 2), ["a", "b"]);
  },

  async presettledMessagesArrive(name) {
    const connection = await connect();
    const sender = connection.open_sender({ target: name, snd_settle_mode: 1 });
    await once(sender, "sendable", ["sender_error"]);
    sender.send({ body: "once" });
    const link = receiver(connection, name, { snd_settle_mode: 1 });
    const { message, delivery } = await receive(link);
    assert.deepEqual([message.body, delivery.remote_settled], ["once", true]);
    await nothingComes(receiver(connection, name));
  },

  async aSharedSubscriptionGivesEachMessageToOne(address) {
    const source = { address, capabilities: ["topic", "shared", "global"] };
    const links = await Promise.all(
      [1, 2].map(async (number) => {
        const link = receiver(await connect(), source, { name: `${address}|global${number}` });
        await once(link, "receiver_open", ["receiver_error"]);
        return link;
      }),
    );
    const connection = await connect();
    const sender = connection.open_sender({ target: { address, capabilities: ["topic"] } });
    await once(sender, "sendable", ["sender_error"]);
    for (let body = 0; body < 10; body++) sender.send({ body });
    const bodies = [...(await take(links[0], 5)), ...(await take(links[1], 5))];
    assert.deepEqual(bodies.sort(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  },

  async aDurableSubscriptionKeepsWhatCameMeanwhileAndEndsWithItsLink(address) {
    const source = { address, durable: 2, expiry_policy: "never", capabilities: ["topic"] };
    const subscribe = async () => {
      const connection = await connect({ container_id: "rhea-durable" });
      const link = receiver(connection, source, { name: "kept" });
      await once(link, "receiver_open", ["receiver_error"]);
      return [connection, link];
    };
    const leave = async ([connection, link], how) => {
      link[how]();
      await once(link, "receiver_close");
      connection.close();
      await once(connection, "connection_close");
    };
    await leave(await subscribe(), "detach");
    const other = await connect();
    const sender = other.open_sender({ target: { address, capabilities: ["topic"] } });
    await once(sender, "sendable", ["sender_error"]);
    const publish = async (body) => {
      const accepted = once(sender, "accepted", ["rejected", "sender_error"]);
      sender.send({ body, durable: true });
      await accepted;
    };
    for (const body of [1, 2]) await publish(body);
    const again = await subscribe();
    assert.deepEqual(await take(again[1], 2), [1, 2]);
    await leave(again, "close");
    await publish(3);
    const fresh = await subscribe();
    await nothingComes(fresh[1]);
    await leave(fresh, "close");
  },
};

async function main() {
  let failed = false;
  for (const name of names) {
    const began = Date.now();
    try {
      await cases[name](name);
      console.log(`ok ${name} (${Date.now() - began} ms)`);
    } catch (error) {
      failed = true;
      console.error(error);
      console.log(`FAILED ${name}: ${error.message}`);
    }
  }
  process.exit(failed ? 1 : 0);
}

main();
