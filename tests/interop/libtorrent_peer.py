#!/usr/bin/python3
"""A libtorrent peer that never leaves this machine.

    libtorrent_peer.py seed TORRENT DIR [--connect HOST:PORT] [--set key=value]...
    libtorrent_peer.py get  TORRENT|magnet:... DIR [--connect HOST:PORT]... [--set key=value]...
    libtorrent_peer.py stay TORRENT DIR [--connect HOST:PORT]... [--set key=value]...

`seed` prints READY <port>, then its own peer log, until it is stopped; `get` the same log, and
DONE <seconds> when every piece has passed its hash; `stay` gets what it does not have, and then
seeds until it is stopped."""
import argparse
import sys
import time

import libtorrent as lt

from libtorrent_alone import SETTINGS, add

a = argparse.ArgumentParser()
a.add_argument("role", choices=["seed", "get", "stay"])
a.add_argument("what")
a.add_argument("dir")
a.add_argument("--connect", action="append", default=[])
a.add_argument("--timeout", type=float, default=120)
a.add_argument("--set", action="append", default=[])
a = a.parse_args()

settings = SETTINGS | {
    "max_failcount": 10000,
    "alert_mask": lt.alert.category_t.peer_log_notification
    | lt.alert.category_t.peer_notification
    | lt.alert.category_t.error_notification,
}
for pair in a.set:
    key, value = pair.split("=", 1)
    old = lt.default_settings().get(key)
    if isinstance(old, bool):
        settings[key] = value.lower() in ("1", "true")
    else:
        settings[key] = int(value) if isinstance(old, int) else value
session = lt.session(settings)

what = a.what if a.what.startswith("magnet:") else lt.torrent_info(a.what)
torrent = add(session, what, a.dir)


def log():
    for alert in session.pop_alerts():
        print(type(alert).__name__, alert.message(), flush=True)


def dial():
    for place in a.connect:
        host, port = place.rsplit(":", 1)
        torrent.connect_peer((host, int(port)))


begun = time.monotonic()
if a.role == "seed":
    while not torrent.status().is_seeding:
        if time.monotonic() - begun > a.timeout:
            sys.exit("does not have all of it")
        time.sleep(0.05)
print("READY", session.listen_port(), flush=True)
dial()
dialled = begun
while True:
    log()
    status = torrent.status()
    now = time.monotonic()
    if a.role == "get":
        if status.is_seeding or (status.is_finished and status.has_metadata):
            break
        if now - begun > a.timeout:
            print("TIMEOUT", status.state, status.progress, status.num_peers, flush=True)
            sys.exit(3)
    if status.num_peers == 0 and now - dialled > 0.3:
        dial()
        dialled = now
    # Not wait_for_alert: it answers a pointer into a queue that the session moves as it grows, and
    # the binding looks at what it points to.
    time.sleep(0.005)
print("DONE", round(time.monotonic() - begun, 3), flush=True)
log()
