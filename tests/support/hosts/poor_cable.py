# A cable between two interfaces that loses packets, and delays them: whatever arrives on one is sent out on the other
# after a time of its own, except for a share of it. The TCP at both ends is the kernel's, so loss shows as it does on a
# network: as retransmissions, stalls and missing datagrams; and so do packets that overtake each other. ARP is neither
# lost nor late: a machine that does not know the other one is another failure.
#
# usage: poor_cable.py INTERFACE INTERFACE SEED FILE
# FILE holds the share that is lost in percent and the longest delay in milliseconds; it is read again and again. The
# number of packets lost so far is written to standard output after every ten of them.
import heapq
import os
import random
import select
import socket
import sys
import time

ARP = b"\x08\x06"


def end_of(interface):
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    end.bind((interface, 0))
    end.setblocking(False)
    return end


def quality_in(path):
    with open(path) as file:
        percent, delay_ms = file.read().split()
    return float(percent) / 100, float(delay_ms) / 1000


class Cable:
    def __init__(self, ends, chance):
        self.other = {ends[0]: ends[1], ends[1]: ends[0]}
        self.chance = chance
        self.share, self.delay = 0.0, 0.0
        self.lost = 0
        self.under_way = []  # (when it is due, its number, where it goes, the packet)
        self.number = 0

    def take(self, end, packet):
        is_arp = packet[12:14] == ARP
        if not is_arp and self.chance.random() < self.share:
            self.lost += 1
            return
        delay = 0 if is_arp else self.chance.random() * self.delay
        self.number += 1
        heapq.heappush(self.under_way, (time.monotonic() + delay, self.number, self.other[end], packet))

    def pass_on(self):
        while self.under_way and self.under_way[0][0] <= time.monotonic():
            _, _, end, packet = heapq.heappop(self.under_way)
            try:
                end.send(packet)
            except OSError:
                self.lost += 1  # The other end is full or down: so is a real cable.

    def patience(self):
        """How long it may wait for the next packet."""
        return max(0, self.under_way[0][0] - time.monotonic()) if self.under_way else 1


def main():
    ends = [end_of(sys.argv[1]), end_of(sys.argv[2])]
    cable, path = Cable(ends, random.Random(int(sys.argv[3]))), sys.argv[4]
    told, look = 0, 0.0
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select(ends, [], [], cable.patience())
        if time.monotonic() >= look:
            (cable.share, cable.delay), look = quality_in(path), time.monotonic() + 0.05
        if os.getppid() == 1:
            return
        for end in readable:
            try:
                packet, address = end.recvfrom(65535)
            except OSError:
                return  # The machine at this end is gone.
            if address[2] != socket.PACKET_OUTGOING:
                cable.take(end, packet)
        cable.pass_on()
        if cable.lost - told >= 10:
            told = cable.lost
            print("lost", told, flush=True)


main()
