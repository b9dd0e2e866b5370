"""What Proton for Python sees of a queue. Called as: cases.py HOST:PORT CASE. Fails by an assertion."""

import sys

from proton import Delivery, Message
from proton.handlers import MessagingHandler
from proton.reactor import Container
from proton.utils import BlockingConnection, LinkDetached, SendException


def connect(address):
    return BlockingConnection(address, timeout=20, allowed_mechs="ANONYMOUS")


def send_and_receive(address):
    """Default link names: sender and receiver of one address have the same name."""
    connection = connect(address)
    sender = connection.create_sender("q")
    receiver = connection.create_receiver("q")
    bodies = ["text", 42, {"k": [1, 2.5, None, True]}, b"\x00\xff" * 50, ["a", "b"]]
    for number, body in enumerate(bodies):
        message = Message(body=body, durable=number % 2 == 0, id=f"id-{number}", subject="s")
        message.properties = {"number": number}
        delivery = sender.send(message)
        assert delivery.remote_state == Delivery.ACCEPTED, delivery.remote_state
    for number, body in enumerate(bodies):
        message = receiver.receive()
        assert message.body == body, (message.body, body)
        assert message.id == f"id-{number}" and message.properties["number"] == number
        assert message.durable == (number % 2 == 0)
        receiver.accept()
    connection.close()


def outcomes(address):
    connection = connect(address)
    sender = connection.create_sender("q", name="s")
    receiver = connection.create_receiver("q", name="r", credit=1)
    sender.send(Message(body="released", durable=True))
    message = receiver.receive()
    assert message.delivery_count == 0
    receiver.release(delivered=False)
    message = receiver.receive()
    assert message.body == "released" and message.delivery_count == 0, message.delivery_count
    delivery = receiver.fetcher.unsettled.popleft()
    delivery.local.failed = True
    delivery.update(Delivery.MODIFIED)
    delivery.settle()
    message = receiver.receive()
    assert message.body == "released" and message.delivery_count == 1, message.delivery_count
    receiver.reject()
    sender.send(Message(body="next", durable=True))
    assert receiver.receive().body == "next"
    receiver.accept()
    connection.close()


def refusals(address):
    connection = connect(address)
    for create in (connection.create_sender, connection.create_receiver):
        try:
            create("nowhere")
        except LinkDetached as error:
            assert error.condition == "amqp:not-found", error
        else:
            raise AssertionError("an unknown queue was not refused")
    relay = connection.create_sender(None)
    relay.send(Message(address="q", body="relayed"))
    try:
        relay.send(Message(address="nowhere", body="lost"))
    except SendException as error:
        assert error.state == Delivery.REJECTED, error.state
    else:
        raise AssertionError("a message to nowhere was accepted")
    receiver = connection.create_receiver("q")
    assert receiver.receive().body == "relayed"
    receiver.accept()
    connection.close()


def leave_one(address):
    """Takes two messages, accepts the first and goes without a word."""
    connection = connect(address)
    sender = connection.create_sender("q")
    for body in ("done", "left"):
        sender.send(Message(body=body, durable=True))
    receiver = connection.create_receiver("q", credit=2)
    assert receiver.receive().body == "done"
    receiver.accept()
    assert receiver.receive().body == "left"
    # Confirms that the accept arrived; then the process ends and its socket with it.
    sender.send(Message(body="last", durable=True))


def find_left(address):
    connection = connect(address)
    receiver = connection.create_receiver("q")
    message = receiver.receive()
    assert message.body == "left" and message.delivery_count == 1, message
    receiver.accept()
    assert receiver.receive().body == "last"
    receiver.accept()
    connection.close()


def large(address):
    connection = connect(address)
    body = bytes(range(256)) * 65_536
    sender = connection.create_sender("q")
    sender.send(Message(body=body, durable=True))
    receiver = connection.create_receiver("q")
    message = receiver.receive()
    assert message.body == body
    receiver.accept()
    connection.close()


class Stream(MessagingHandler):
    """Many messages in flight, both ways on one connection."""

    def __init__(self, address, count):
        super().__init__(prefetch=500, auto_accept=True)
        self.address, self.count = address, count
        self.sent = self.confirmed = self.received = 0

    def on_start(self, event):
        connection = event.container.connect(self.address, allowed_mechs="ANONYMOUS")
        event.container.create_sender(connection, "q")
        event.container.create_receiver(connection, "q")

    def on_sendable(self, event):
        while event.sender.credit and self.sent < self.count:
            event.sender.send(Message(body=self.sent, durable=self.sent % 2 == 0))
            self.sent += 1

    def on_accepted(self, event):
        self.confirmed += 1
        self.finish(event)

    def on_message(self, event):
        assert event.message.body == self.received, (event.message.body, self.received)
        self.received += 1
        self.finish(event)

    def finish(self, event):
        if self.confirmed == self.received == self.count:
            event.connection.close()


def stream(address):
    handler = Stream(address, 10_000)
    Container(handler).run()
    assert handler.confirmed == handler.received == handler.count


def plain(address):
    connection = BlockingConnection(
        address, timeout=20, allowed_mechs="PLAIN", user="anyone", password="anything", allow_insecure_mechs=True
    )
    connection.create_sender("q").send(Message(body="plain"))
    connection.close()


if __name__ == "__main__":
    globals()[sys.argv[2]](sys.argv[1])
