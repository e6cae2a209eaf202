"""Clients that keep a server waiting, five kinds of them; tells when each was cut off.

    slow_clients.py URL LIMIT

URL is that of a file too large for any socket's buffers. A line for each: its kind, and the
seconds after which the server ended the connection. Fails if one outlives LIMIT seconds.
"""

import socket
import sys
import threading
import time
from urllib.parse import urlsplit

url, limit = urlsplit(sys.argv[1]), float(sys.argv[2])
get = f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode()
begun = time.monotonic()
cut, lock = {}, threading.Lock()


def silent(connection):
    """Connects, and says nothing."""
    wait_for_end(connection)


def slow_head(connection):
    """Sends a header, one byte a second."""
    connection.sendall(get[:-2] + b"X-Slow: ")
    connection.settimeout(1)
    while True:
        try:
            if not connection.recv(1):
                return
        except TimeoutError:
            connection.sendall(b"a")


def kept(connection):
    """Has its answer, and keeps the connection without using it."""
    connection.sendall(get.replace(b"GET", b"HEAD", 1))
    while b"\r\n\r\n" not in connection.recv(4096):
        pass
    wait_for_end(connection)


def no_reader(connection):
    """Asks for the file, and reads nothing of it."""
    connection.sendall(get)
    # The end can be seen without reading: by writing into a connection that is no more.
    while True:
        time.sleep(1)
        connection.sendall(b"\r\n")


def slow_reader(connection):
    """Asks for the file, and reads a few hundred bytes of it a second."""
    connection.sendall(get)
    while connection.recv(256):
        time.sleep(1)


def wait_for_end(connection):
    while connection.recv(1):
        pass


def run(kind):
    connection = socket.socket()
    # Small, so that what it does not read soon waits in the server.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(limit)
    connection.connect((url.hostname, url.port))
    try:
        kind(connection)
    except (ConnectionError, BrokenPipeError):
        pass
    except TimeoutError:
        return
    with lock:
        cut[kind.__name__] = time.monotonic() - begun


kinds = [silent, slow_head, kept, no_reader, slow_reader]
threads = [threading.Thread(target=run, args=[kind], daemon=True) for kind in kinds]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(max(0, begun + limit - time.monotonic()))
for kind in kinds:
    after = cut.get(kind.__name__)
    print(f"{kind.__name__:12} {'never' if after is None else f'{after:.0f} s'}")
sys.exit(len(cut) < len(kinds))
