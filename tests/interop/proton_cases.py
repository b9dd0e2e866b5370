"""Apache Qpid Proton against a broker: one line for each case, `ok NAME (MS ms)` or `FAILED NAME: why`.

proton_cases.py WILLING STRICT CASE...

WILLING and STRICT are HOST:PORT: the first makes queues on first use, the second knows only `examples`.
"""

import sys
import time
import traceback

from proton import Delivery, Message, symbol
from proton.reactor import AtMostOnce
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
    connection = stage.connect(heartbeat=4)
    ends = time.monotonic() + 6
    while time.monotonic() < ends:
        connection.container.do_work(0.2)
        assert not connection.disconnected, "the connection was lost"
    works(stage, connection)


def an_unknown_queue_is_refused_and_the_connection_lives(stage):
    connection = stage.connect(stage.strict)
    for attach in (connection.create_receiver, connection.create_sender):
        try:
            attach("unknown")
        except LinkDetached as refused:
            same("amqp:not-found", refused.condition)
        else:
            raise AssertionError("not refused")
    try:
        connection.create_sender(None).send(Message(body="x", address="unknown"))
    except SendException as refused:
        same(Delivery.REJECTED, refused.state)
    else:
        raise AssertionError("not refused")
    send(connection, "examples", "known")
    receiver = connection.create_receiver("examples")
    same("known", receiver.receive().body)
    receiver.accept()


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
