"""Opens connections, uses each once, and keeps them; until its standard input ends.

    idle_connections.py URL COUNT

They come from several addresses of the loopback network, 250 from each. Prints "idle" once
all have had an answer, and at the end how many of them the server has ended.
"""

import select
import socket
import sys
from urllib.parse import urlsplit

url, count = urlsplit(sys.argv[1]), int(sys.argv[2])
head = f"HEAD {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode()
connections = []
for number in range(count):
    connection = socket.socket()
    connection.settimeout(30)
    connection.bind((f"127.0.0.{2 + number // 250}", 0))
    connection.connect((url.hostname, url.port))
    connections.append(connection)
for connection in connections:
    connection.sendall(head)
for connection in connections:
    answer = b""
    while b"\r\n\r\n" not in answer:
        received = connection.recv(4096)
        assert received, "an answer breaks off"
        answer += received
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:60]
print("idle", flush=True)
sys.stdin.read()
ended = 0
for connection in connections:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    ended += bool(poll.poll(0))
print(f"{ended} ended", flush=True)
