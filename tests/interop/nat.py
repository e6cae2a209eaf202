#!/usr/bin/python3
"""A router with nothing but UDP, for one machine behind it.

    nat.py ADDRESS

In a network namespace of its own a machine has 10.0.0.2. What it sends over UDP goes out from
ADDRESS, from the port that it has; and only from places that it sent something to does something
come back to that port. Everything else is dropped. Prints READY <pid>, of a process in the
namespace, and goes on until it is stopped. What it dropped it says."""
import ctypes
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys

NEW_NET = 0x40000000
TUNSETIFF, TUN, NO_PI = 0x400454CA, 1, 0x1000
libc = ctypes.CDLL(None, use_errno=True)


def call(what, *arguments):
    if getattr(libc, what)(*arguments) != 0:
        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(source, port, to, body):
    udp = struct.pack("!HHHH", port[0], port[1], 8 + len(body), 0) + body
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + source + to
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp


address = sys.argv[1]
outside = os.open("/proc/self/ns/net", os.O_RDONLY)
call("unshare", NEW_NET)
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", b"tun0", TUN | NO_PI) + bytes(22))
for line in (
    "addr add 10.0.0.2/24 dev tun0",
    "link set lo up",
    "link set tun0 up",
    "route add default dev tun0",
):
    subprocess.run(["ip", *line.split()], check=True)
inside = subprocess.Popen(["sleep", "infinity"])
call("setns", outside, NEW_NET)
print("READY", inside.pid, flush=True)

ports, told, dropped = {}, {}, set()
here = socket.inet_aton("10.0.0.2")
try:
    while True:
        for ready in select.select([tun, *ports.values()], [], [])[0]:
            if ready == tun:
                data = os.read(tun, 65536)
                length = (data[0] & 15) * 4
                if data[0] >> 4 != 4 or data[9] != 17:
                    continue
                port, to_port = struct.unpack("!HH", data[length : length + 4])
                to = (socket.inet_ntoa(data[16:20]), to_port)
                if port not in ports:
                    ports[port] = socket.socket(type=socket.SOCK_DGRAM)
                    ports[port].bind((address, port))
                    told[port] = set()
                told[port].add(to)
                try:
                    ports[port].sendto(data[length + 8 :], to)
                except OSError:
                    # Nobody there, as it was said of something earlier.
                    pass
            else:
                port = ready.getsockname()[1]
                try:
                    body, source = ready.recvfrom(65536)
                except OSError:
                    continue
                if source in told[port]:
                    from_ip = socket.inet_aton(source[0])
                    os.write(tun, packet(from_ip, (source[1], port), here, body))
                elif source not in dropped:
                    dropped.add(source)
                    print("DROPPED", *source, flush=True)
finally:
    inside.kill()
