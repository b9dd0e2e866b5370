"""A small broker on Apache Qpid Proton, as foreign to our client as servers get: it knows nothing of Daymark.

proton_server.py

Prints `listening PORT`. Its addresses do what those of `node/server.js` do. It reads frames of 4 KiB at most, and wants a
sign of life every two seconds. Unlike the other one it lets the receiver settle second where that is asked for.
"""

import os
import sys
import threading
from collections import defaultdict, deque

from proton import Condition, Delivery, Endpoint, Terminus
from proton.handlers import MessagingHandler
from proton.reactor import Container

IDLE_SECONDS = 2


class Queue:
    def __init__(self):
        self.messages = deque()
        self.senders = []


class Server(MessagingHandler):
    def __init__(self):
        super().__init__(prefetch=0, auto_accept=False)
        self.queues = defaultdict(Queue)
        self.held = {}
        self.dropped = False

    def on_start(self, event):
        acceptor = event.container.listen("127.0.0.1:0")
        print(f"listening {acceptor._selectable._delegate.getsockname()[1]}", flush=True)

    def on_connection_bound(self, event):
        event.transport.max_frame_size = 4096
        # Proton tells the peer half of it.
        event.transport.idle_timeout = 2 * IDLE_SECONDS

    def on_link_opening(self, event):
        link = event.link
        terminus = link.remote_source if link.is_sender else link.remote_target
        if terminus.type != Terminus.SOURCE and terminus.type != Terminus.TARGET or terminus.address in (None, "missing"):
            # What is not there is told by its absence, before the end of the link says why.
            link.source.type = link.target.type = Terminus.UNSPECIFIED
            link.condition = Condition("amqp:not-found", f"there is no {terminus.address}")
            return
        # Of what is asked for beside the address it has nothing, and does not say that it has.
        link.source.address = link.remote_source.address
        link.target.address = link.remote_target.address
        link.source.type, link.target.type = Terminus.SOURCE, Terminus.TARGET
        link.rcv_settle_mode = link.remote_rcv_settle_mode
        if link.is_sender:
            self.queues[terminus.address].senders.append(link)
        else:
            link.flow(100)

    def on_link_local_open(self, event):
        if event.link.condition:
            event.link.close()

    def on_message(self, event):
        link, delivery = event.link, event.delivery
        link.flow(1)
        address = link.target.address
        if address == "rejects":
            delivery.local.condition = Condition("amqp:precondition-failed", "not this one")
            return self.reject(delivery)
        if address == "releases":
            return self.release(delivery, delivered=False)
        if address == "modifies":
            return self.release(delivery, delivered=True)
        if address == "drops" and not self.dropped:
            self.dropped = True
            event.transport.close_head()
            event.transport.close_tail()
            return
        if address == "gone":
            link.condition = Condition("amqp:resource-deleted", "it is gone")
            self.accept(delivery)
            return link.close()
        if address == "closes":
            event.connection.condition = Condition("amqp:connection:forced", "going away")
            self.accept(delivery)
            return event.connection.close()
        self.queues[address].messages.append(event.message)
        self.accept(delivery)
        self.dispatch(address)

    def on_sendable(self, event):
        self.dispatch(event.link.source.address)

    def on_link_flow(self, event):
        if event.link.is_sender and event.link.drain_mode:
            event.link.drained()

    def dispatch(self, address):
        queue = self.queues[address]
        queue.senders = [sender for sender in queue.senders if is_open(sender) and is_open(sender.connection)]
        for sender in queue.senders:
            while queue.messages and sender.credit > 0:
                message = queue.messages.popleft()
                self.held[sender.send(message)] = message

    def on_delivery(self, event):
        delivery = event.delivery
        if delivery.link.is_sender and delivery.updated and delivery.remote_state:
            message = self.held.pop(delivery, None)
            if message is not None and delivery.remote_state in (Delivery.RELEASED, Delivery.MODIFIED):
                message.delivery_count += delivery.remote_state == Delivery.MODIFIED and delivery.remote.failed
                self.queues[delivery.link.source.address].messages.appendleft(message)
                self.dispatch(delivery.link.source.address)
            if not delivery.settled:
                # The receiver waits for our word.
                delivery.update(delivery.remote_state)
            delivery.settle()

    def on_disconnected(self, event):
        for queue in self.queues.values():
            queue.senders = [sender for sender in queue.senders if sender.connection != event.connection]


def is_open(endpoint):
    both = Endpoint.LOCAL_ACTIVE | Endpoint.REMOTE_ACTIVE
    return endpoint.state & both == both


def end_with_parent():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_parent, daemon=True).start()
Container(Server()).run()
