# A cable between two interfaces that loses packets: whatever arrives on one is sent out on the other, except for a
# share of it. The TCP at both ends is the kernel's, so loss shows as it does on a network: as retransmissions, stalls
# and missing datagrams. ARP is never lost: a machine that does not know the other one is another failure.
#
# usage: lossy_cable.py INTERFACE INTERFACE SEED FILE
# FILE holds the share in percent; it is read again and again. The number of packets lost so far is written to standard
# output after every ten of them.
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


def share_in(path):
    with open(path) as file:
        return float(file.read() or 0) / 100


def main():
    ends = [end_of(sys.argv[1]), end_of(sys.argv[2])]
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    chance, path = random.Random(int(sys.argv[3])), sys.argv[4]
    share, lost, told, look = 0.0, 0, 0, 0.0
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select(ends, [], [], 1)
        if time.monotonic() >= look:
            share, look = share_in(path), time.monotonic() + 0.05
        if os.getppid() == 1:
            return
        for end in readable:
            try:
                packet, address = end.recvfrom(65535)
            except OSError:
                return  # The machine at this end is gone.
            if address[2] == socket.PACKET_OUTGOING:
                continue
            if packet[12:14] != ARP and chance.random() < share:
                lost += 1
                continue
            try:
                other[end].send(packet)
            except OSError:
                lost += 1  # The other end is full or down: so is a real cable.
        if lost - told >= 10:
            told = lost
            print("lost", lost, flush=True)


main()
