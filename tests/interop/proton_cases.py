"""Apache Qpid Proton against a broker: one line for each case, `ok NAME (MS ms)` or `FAILED NAME: why`.

proton_cases.py WILLING STRICT CASE...

WILLING and STRICT are HOST:PORT: the first makes queues on first use, the second knows only `examples`.
"""

import sys
import time
import traceback

from proton import Delivery, Message, symbol
from proton.handlers import TransactionHandler
from proton.reactor import AtMostOnce, Copy, DurableSubscription, ReceiverOption, Selector, SenderOption
from proton.utils import BlockingConnection, LinkDetached, SendException

TIMEOUT = 30


class Stage:
    def __init__(self, willing, strict, name):
        self.willing, self.strict, self.name = willing, strict, name
        self.connections = []

    def connect(self, address=None, **options):
        url = f"amqp://{address or self.willing}"
        connection = BlockingConnection(url, timeout=TIMEOUT, **options)
        self.connections.append(connection)
        return connection

    def close(self):
        for connection in self.connections:
            try:
                connection.close()
            except Exception:  # The broker may have closed it; the case has said what it thinks of that.
                pass


def same(expected, actual):
    assert expected == actual, f"expected {expected!r}, not {actual!r}"


def send(connection, queue, *bodies):
    sender = connection.create_sender(queue)
    for body in bodies:
        sender.send(Message(body=body, durable=True))
    sender.close()


def body_of(message):
    """Binary is a view into the message, valid as long as the message is held."""
    return bytes(message.body) if isinstance(message.body, memoryview) else message.body


def bodies_arrive_as_sent(stage):
    connection = stage.connect()
    bodies = ["text", 7, -1.5, True, None, b"bytes", [1, "two"], {"key": "value"}, symbol("symbol"), "ß" * 5000]
    send(connection, stage.name, *bodies)
    receiver = connection.create_receiver(stage.name, credit=len(bodies))
    for body in bodies:
        same(body, body_of(receiver.receive()))
        receiver.accept()


def properties_arrive_as_sent(stage):
    connection = stage.connect()
    sent = Message(
        body="x", id="id-1", subject="subject", reply_to="reply", correlation_id=7, content_type="text/plain",
        group_id="group", group_sequence=3, properties={"a": 1, "b": "c"}, priority=6, durable=True,
    )
    sent.annotations = {symbol("x-opt-note"): "n"}
    connection.create_sender(stage.name).send(sent)
    got = connection.create_receiver(stage.name).receive()
    for field in ["id", "subject", "reply_to", "correlation_id", "content_type", "group_id", "group_sequence",
                  "properties", "priority", "durable", "annotations"]:
        same(getattr(sent, field), getattr(got, field))
    same((0, True), (got.delivery_count, got.first_acquirer or True))


def an_accepted_message_is_gone(stage):
    same(None, after_outcome(stage, Delivery.ACCEPTED))


def a_rejected_message_is_gone(stage):
    same(None, after_outcome(stage, Delivery.REJECTED))


def a_released_message_comes_back_uncounted(stage):
    same(0, after_outcome(stage, Delivery.RELEASED).delivery_count)


def a_modified_message_comes_back_counted(stage):
    again = after_outcome(stage, Delivery.MODIFIED)
    same((1, False), (again.delivery_count, again.first_acquirer))


def after_outcome(stage, outcome):
    """The next message of the queue after the only one got this outcome; none if there is none."""
    connection = stage.connect()
    send(connection, stage.name, "1")
    receiver = connection.create_receiver(stage.name, credit=1)
    receiver.receive()
    if outcome == Delivery.MODIFIED:
        receiver.fetcher.unsettled[0].local.failed = True
    receiver.settle(outcome)
    # What is sent after it comes after it.
    send(connection, stage.name, "end")
    receiver.link.flow(2)
    message = receiver.receive()
    return None if message.body == "end" else message


def messages_keep_their_order(stage):
    connection = stage.connect()
    send(connection, stage.name, *range(300))
    receiver = connection.create_receiver(stage.name, credit=50)
    for number in range(300):
        same(number, receiver.receive().body)
        receiver.accept()


def presettled_messages_arrive(stage):
    connection = stage.connect()
    sender = connection.create_sender(stage.name, options=AtMostOnce())
    sender.send(Message(body="once"))
    receiver = connection.create_receiver(stage.name, options=AtMostOnce())
    same("once", receiver.receive().body)


def a_message_of_16_mebibytes_arrives_in_small_frames(stage):
    body = bytes(range(256)) * (1 << 16)
    connection = stage.connect(max_frame_size=16384)
    send(connection, stage.name, body)
    same(body, body_of(connection.create_receiver(stage.name).receive()))


def a_message_larger_than_the_broker_takes_is_refused_and_the_connection_lives(stage):
    connection = stage.connect()
    sender = connection.create_sender(stage.name)
    limit = sender.link.remote_max_message_size
    same(32 << 20, limit)
    refused(lambda: sender.send(Message(body=bytes(limit))), "amqp:link:message-size-exceeded")
    works(stage, connection)


def a_sender_without_address_sends_anywhere(stage):
    connection = stage.connect()
    sender = connection.create_sender(None)
    for suffix in "abc":
        sender.send(Message(body=suffix, address=f"{stage.name}.{suffix}"))
    for suffix in "cab":
        same(suffix, connection.create_receiver(f"{stage.name}.{suffix}").receive().body)


def sasl_anonymous_enters(stage):
    works(stage, stage.connect(allowed_mechs="ANONYMOUS"))


def sasl_plain_enters(stage):
    works(stage, stage.connect(user="user", password="password", allowed_mechs="PLAIN", allow_insecure_mechs=True))


def a_client_without_sasl_enters(stage):
    works(stage, stage.connect(sasl_enabled=False))


def an_idle_connection_is_kept_alive(stage):
    # One wants to hear from the broker, and of the other one the broker wants to hear.
    connections = [stage.connect(heartbeat=4), stage.connect(stage.strict)]
    ends = time.monotonic() + 7
    while time.monotonic() < ends:
        for connection in connections:
            connection.container.do_work(0.2)
            assert not connection.disconnected, "the connection was lost"
    works(stage, connections[0])
    connections[1].create_sender("examples").close()


def an_unknown_queue_is_refused_and_the_connection_lives(stage):
    connection = stage.connect(stage.strict)
    for attach in (connection.create_receiver, connection.create_sender):
        refused(lambda: attach("unknown"), "amqp:not-found")
    try:
        connection.create_sender(None).send(Message(body="x", address="unknown"))
    except SendException as error:
        same(Delivery.REJECTED, error.state)
    else:
        raise AssertionError("not refused")
    send(connection, "examples", "known")
    receiver = connection.create_receiver("examples")
    same("known", receiver.receive().body)
    receiver.accept()


def a_selector_takes_what_it_chooses_and_leaves_the_rest(stage):
    connection = stage.connect()
    sender = connection.create_sender(stage.name)
    for body, colour in enumerate(["red", "blue", "red"]):
        sender.send(Message(body=body, properties={"colour": colour}, durable=True))
    chosen = connection.create_receiver(stage.name, credit=3, options=Selector("colour = 'red' AND weight IS NULL"))
    same([0, 2], take(chosen, 2))
    nothing_comes(chosen)
    same([1], take(connection.create_receiver(stage.name, name="the rest"), 1))


def a_selector_that_makes_no_sense_is_refused(stage):
    connection = stage.connect()
    send(connection, stage.name, "x")
    broken = Selector("colour = = 'red'")
    refused(lambda: connection.create_receiver(stage.name, options=broken), "amqp:invalid-field")


def a_browser_sees_everything_and_takes_nothing(stage):
    connection = stage.connect()
    send(connection, stage.name, 1, 2, 3)
    for _ in range(2):
        browser = connection.create_receiver(stage.name, credit=3, options=Copy())
        same([1, 2, 3], take(browser, 3))
        browser.close()
    same([1, 2, 3], take(connection.create_receiver(stage.name, credit=3), 3))


def a_request_is_answered_over_a_temporary_queue(stage):
    connection = stage.connect()
    replies = connection.create_receiver(None, dynamic=True)
    address = replies.link.remote_source.address
    connection.create_sender(stage.name).send(Message(body="question", reply_to=address, correlation_id=5))
    other = stage.connect()
    request = other.create_receiver(stage.name).receive()
    same(address, request.reply_to)
    other.create_sender(None).send(Message(body="answer", address=address, correlation_id=request.correlation_id))
    answer = replies.receive()
    same(("answer", 5), (answer.body, answer.correlation_id))
    replies.close()
    refused(lambda: other.create_sender(address, options=OfKind("temporary-queue")), "amqp:not-found")


class OfKind(ReceiverOption, SenderOption):
    """Capabilities of the node that is meant, as JMS clients send them."""

    def __init__(self, *capabilities):
        self.capabilities = [symbol(capability) for capability in capabilities]

    def apply(self, link):
        node = link.source if link.is_receiver else link.target
        node.capabilities.put_array(False, node.capabilities.SYMBOL)
        node.capabilities.enter()
        for capability in self.capabilities:
            node.capabilities.put_symbol(capability)
        node.capabilities.exit()


TOPIC = OfKind("topic")


def every_subscriber_of_a_topic_gets_its_copy(stage):
    connection = stage.connect()
    names = ["one", "two", "three"]
    subscribers = [connection.create_receiver(stage.name, credit=2, name=name, options=TOPIC) for name in names]
    sender = connection.create_sender(stage.name, options=TOPIC)
    for body in ["a", "b"]:
        sender.send(Message(body=body))
    for subscriber in subscribers:
        same(["a", "b"], take(subscriber, 2))


def a_durable_subscription_keeps_what_came_meanwhile_and_ends_with_its_link(stage):
    def subscribe():
        connection = stage.connect(container_id="proton-durable")
        options = [TOPIC, DurableSubscription()]
        return connection, connection.create_receiver(stage.name, credit=5, name="kept", options=options)

    connection, subscriber = subscribe()
    subscriber.link.detach()
    connection.close()
    other = stage.connect()
    sender = other.create_sender(stage.name, options=TOPIC)
    for body in [1, 2]:
        sender.send(Message(body=body, durable=True))
    connection, subscriber = subscribe()
    same([1, 2], take(subscriber, 2))
    subscriber.close()
    connection.close()
    sender.send(Message(body=3, durable=True))
    connection, subscriber = subscribe()
    nothing_comes(subscriber)
    subscriber.close()


def a_shared_subscription_gives_each_message_to_one(stage):
    connections = [stage.connect() for _ in range(2)]
    shared = OfKind("topic", "shared", "global")
    receivers = [
        connection.create_receiver(stage.name, credit=5, name=f"{stage.name}|{number}", options=shared)
        for number, connection in enumerate(connections)
    ]
    sender = connections[0].create_sender(stage.name, options=TOPIC)
    for body in range(10):
        sender.send(Message(body=body))
    same(list(range(10)), sorted(take(receivers[0], 5) + take(receivers[1], 5)))


class Ends(TransactionHandler):
    """What became of a transaction."""

    def __init__(self):
        super().__init__()
        self.transaction = None
        self.end = None

    def on_transaction_declared(self, event):
        self.transaction = event.transaction

    def on_transaction_committed(self, event):
        self.end = "committed"

    def on_transaction_aborted(self, event):
        self.end = "aborted"

    def on_transaction_commit_failed(self, event):
        self.end = "refused"


class Transaction:
    def __init__(self, connection):
        self.connection, self.ends = connection, Ends()
        connection.container.declare_transaction(connection.conn, handler=self.ends)
        connection.wait(lambda: self.ends.transaction is not None, msg="declaring a transaction")

    def send(self, sender, body):
        delivery = self.ends.transaction.send(sender.link, Message(body=body, durable=True))
        self.connection.wait(lambda: delivery.remote_state, msg="sending in a transaction")

    def accept(self, receiver):
        self.ends.transaction.accept(receiver.fetcher.unsettled.popleft())

    def end(self, commit):
        (self.ends.transaction.commit if commit else self.ends.transaction.abort)()
        self.connection.wait(lambda: self.ends.end is not None, msg="ending a transaction")
        return self.ends.end


def what_is_sent_in_a_transaction_appears_with_its_commit(stage):
    connection = stage.connect()
    sender = connection.create_sender(stage.name)
    transaction = Transaction(connection)
    transaction.send(sender, "in the transaction")
    sender.send(Message(body="before", durable=True))
    receiver = connection.create_receiver(stage.name, credit=2)
    same(["before"], take(receiver, 1))
    same("committed", transaction.end(commit=True))
    same(["in the transaction"], take(receiver, 1))


def what_is_sent_in_a_transaction_vanishes_with_its_rollback(stage):
    connection = stage.connect()
    sender = connection.create_sender(stage.name)
    transaction = Transaction(connection)
    transaction.send(sender, "lost")
    same("aborted", transaction.end(commit=False))
    sender.send(Message(body="kept", durable=True))
    same(["kept"], take(connection.create_receiver(stage.name), 1))


def what_is_accepted_in_a_transaction_is_gone_with_its_commit_and_back_with_its_rollback(stage):
    for commit in (False, True):
        connection = stage.connect()
        if not commit:
            send(connection, stage.name, "x")
        receiver = connection.create_receiver(stage.name)
        same("x", receiver.receive().body)
        transaction = Transaction(connection)
        transaction.accept(receiver)
        same("committed" if commit else "aborted", transaction.end(commit))
        connection.close()
    nothing_comes(stage.connect().create_receiver(stage.name))


def a_duplicate_id_voids_a_transaction(stage):
    connection = stage.connect()
    sender = connection.create_sender(stage.name)

    def message():
        return Message(body="once", durable=True, properties={"_AMQ_DUPL_ID": stage.name})

    sender.send(message())
    transaction = Transaction(connection)
    transaction.send(sender, "beside it")
    delivery = transaction.ends.transaction.send(sender.link, message())
    connection.wait(lambda: delivery.remote_state, msg="sending in a transaction")
    same("refused", transaction.end(commit=True))
    receiver = connection.create_receiver(stage.name, credit=2)
    same(["once"], take(receiver, 1))
    nothing_comes(receiver)


def take(receiver, count):
    bodies = []
    for _ in range(count):
        bodies.append(body_of(receiver.receive()))
        receiver.accept()
    return bodies


def nothing_comes(receiver):
    """Nothing is there: the broker answers a drain without a message."""
    receiver.link.drain(1)
    receiver.connection.wait(lambda: receiver.link.credit == 0 or receiver.fetcher.has_message, msg="draining")
    assert not receiver.fetcher.has_message, f"{receiver.fetcher.pop()!r} came"


def refused(attach, condition):
    try:
        attach()
    except LinkDetached as error:
        same(condition, error.condition)
    else:
        raise AssertionError("not refused")


def works(stage, connection):
    send(connection, stage.name, "works")
    receiver = connection.create_receiver(stage.name)
    same("works", receiver.receive().body)
    receiver.accept()


def main(willing, strict, *names):
    failed = False
    for name in names:
        stage = Stage(willing, strict, name)
        began = time.monotonic()
        try:
            globals()[name](stage)
            print(f"ok {name} ({(time.monotonic() - began) * 1000:.0f} ms)", flush=True)
        except Exception as error:
            failed = True
            traceback.print_exc()
            print(f"FAILED {name}: {error!r}", flush=True)
        finally:
            stage.close()
    sys.exit(failed)


main(*sys.argv[1:])
