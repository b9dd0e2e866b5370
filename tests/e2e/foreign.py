"""A program that knows AMQP 1.0 and nothing of Daymark.

foreign.py send HOST:PORT BODY...       returns when every message is accepted by the broker
foreign.py receive HOST:PORT COUNT      prints and accepts so many messages
"""

import sys

from proton import Message
from proton.utils import BlockingConnection

QUEUE = "examples"
TIMEOUT = 20


def send(connection, bodies):
    sender = connection.create_sender(QUEUE)
    for body in bodies:
        sender.send(Message(body=body, durable=True))


def receive(connection, count):
    receiver = connection.create_receiver(QUEUE)
    for _ in range(count):
        print(receiver.receive(timeout=TIMEOUT).body)
        receiver.accept()


def main(verb, address, *rest):
    connection = BlockingConnection(f"amqp://{address}", timeout=TIMEOUT)
    if verb == "send":
        send(connection, rest)
    else:
        receive(connection, int(rest[0]))
    connection.close()


main(*sys.argv[1:])
