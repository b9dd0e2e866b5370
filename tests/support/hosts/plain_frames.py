# Has an interface send whole packets with their checksums, so that a program can pass them on.
#
# usage: plain_frames.py INTERFACE
import ctypes
import fcntl
import socket
import struct
import sys

SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO = 0x17, 0x1F, 0x24

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    for command in (ETHTOOL_SGSO, ETHTOOL_STSO, ETHTOOL_STXCSUM):
        value = ctypes.create_string_buffer(struct.pack("=II", command, 0))
        request = struct.pack("16sP16x", sys.argv[1].encode(), ctypes.addressof(value))
        fcntl.ioctl(control, SIOCETHTOOL, request)
