"""Sends a message to a queue and receives it, both found by name.

    pip install python-qpid-proton
    python send_receive.py [NAMING_HOST:PORT]

The directory is asked over HTTP; the broker speaks AMQP 1.0, so any client will do. This one is Apache Qpid
Proton.
"""

import json
import sys
import urllib.request

from proton import Message
from proton.utils import BlockingConnection


def lookup(naming, name):
    with urllib.request.urlopen(f"http://{naming}/v1/names/{name}", timeout=10) as answer:
        return json.load(answer)["object"]


def main(naming="127.0.0.1:9736"):
    brokers = lookup(naming, "QueueConnectionFactory")["brokers"]  # The active one first.
    queue = lookup(naming, "ExamplesQueue")["address"]
    urls = [f"amqp://{broker['host']}:{broker['port']}" for broker in brokers]
    connection = BlockingConnection(urls=urls, timeout=30)
    sender = connection.create_sender(queue)
    sender.send(Message(body="hello from Python", durable=True))  # Returns when the message is stored.
    receiver = connection.create_receiver(queue)
    print("received:", receiver.receive(timeout=30).body)
    receiver.accept()
    connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
