"""A torrent of one file whose pieces come from web seeds (BEP 19), and libtorrent getting it.

    webseed.py make FILE TORRENT URL...
    webseed.py get TORRENT DIRECTORY

`make` writes a version 1 torrent (BEP 3) that names these URLs. `get` ends when every piece has
passed; it fails after a minute.
"""

import hashlib
import os
import sys
import time

PIECE = 256 * 1024
PATIENCE = 60


def bencode(value):
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(map(bencode, value)) + b"e"
    items = sorted(value.items())
    return b"d" + b"".join(bencode(key) + bencode(item) for key, item in items) + b"e"


def make(path, torrent, *urls):
    pieces = b""
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            pieces += hashlib.sha1(piece).digest()
    info = {
        "length": os.path.getsize(path),
        "name": os.path.basename(path),
        "piece length": PIECE,
        "pieces": pieces,
    }
    with open(torrent, "wb") as file:
        file.write(bencode({"info": info, "url-list": list(urls)}))


def get(torrent, directory):
    import libtorrent

    # Nothing leaves this machine, and nobody is looked for.
    session = libtorrent.session(
        {
            "listen_interfaces": "127.0.0.1:0",
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "alert_mask": libtorrent.alert.category_t.all_categories,
        }
    )
    wanted = libtorrent.add_torrent_params()
    wanted.ti = libtorrent.torrent_info(torrent)
    wanted.save_path = directory
    wanted.flags &= ~(libtorrent.torrent_flags.auto_managed | libtorrent.torrent_flags.paused)
    handle = session.add_torrent(wanted)
    deadline = time.monotonic() + PATIENCE
    said = []
    while not handle.status().is_seeding:
        if time.monotonic() > deadline:
            print("\n".join(said[-40:]))
            status = handle.status()
            sys.exit(f"{status.state} at {status.progress:.3f}: {status.errc.message()}")
        # Not wait_for_alert: see libtorrent_peer.py.
        time.sleep(0.05)
        said += [alert.message() for alert in session.pop_alerts()]
    done = handle.status()
    print(f"{done.total_done} bytes, {done.total_failed_bytes} of those fetched were wrong")


{"make": make, "get": get}[sys.argv[1]](*sys.argv[2:])
