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

a = argparse.ArgumentParser()
a.add_argument("role", choices=["seed", "get", "stay"])
a.add_argument("what")
a.add_argument("dir")
a.add_argument("--connect", action="append", default=[])
a.add_argument("--timeout", type=float, default=120)
a.add_argument("--set", action="append", default=[])
a = a.parse_args()

settings = {
    "listen_interfaces": "127.0.0.1:0",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    # Or two peers on one address are taken for one.
    "allow_multiple_connections_per_ip": True,
    "min_reconnect_time": 1,
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

if a.what.startswith("magnet:"):
    params = lt.parse_magnet_uri(a.what)
else:
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(a.what)
params.save_path = a.dir
params.flags &= ~lt.torrent_flags.auto_managed
params.flags &= ~lt.torrent_flags.paused
torrent = session.add_torrent(params)


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
