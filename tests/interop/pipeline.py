"""Sends requests for many chunks at once on one connection, and checks the answers in order.

    pipeline.py URL FILE COUNT

URL is that of the file, FILE what it must be. The requests alternate between chunks from the
front and small ranges of the file.
"""

import socket
import sys
from urllib.parse import urlsplit

CHUNK = 262144


def read_head(stream):
    status = stream.readline().split()
    headers = {}
    while (line := stream.readline().strip()):
        name, value = line.split(b":", 1)
        headers[name.lower()] = value.strip()
    return int(status[1]), headers


def main():
    url, file, count = urlsplit(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    data = open(file, "rb").read()
    requests, expected = [], []
    for number in range(count):
        host = f"Host: {url.netloc}\r\n"
        if number % 2:
            first = number * 1000
            requests.append(f"GET {url.path} HTTP/1.1\r\n{host}Range: bytes={first}-{first + 99}\r\n\r\n")
            expected.append((206, data[first : first + 100]))
        else:
            requests.append(f"GET {url.path}/chunk/{number} HTTP/1.1\r\n{host}\r\n")
            expected.append((200, data[number * CHUNK : (number + 1) * CHUNK]))
    with socket.create_connection((url.hostname, url.port), timeout=30) as connection:
        connection.sendall("".join(requests).encode())
        stream = connection.makefile("rb")
        for number, (status, body) in enumerate(expected):
            got, headers = read_head(stream)
            assert got == status, (number, got)
            assert stream.read(int(headers[b"content-length"])) == body, number


main()
