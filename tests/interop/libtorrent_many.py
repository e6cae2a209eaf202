#!/usr/bin/python3
"""Many libtorrent torrents, or many libtorrent peers, in one process that never leaves this machine.

    libtorrent_many.py share DIR OUT            seeds each file of DIR as a torrent of its own
    libtorrent_many.py get DIR MAGNETS PORT     gets all of a file of magnets from one peer
    libtorrent_many.py crowd TORRENT DIR PORT N gets a torrent N times, each in a session of its own

`share` writes a magnet for each file into OUT, prints READY <port>, and seeds until it is stopped. `get`
ends with DONE <seconds> when all are complete; so does `crowd`, whose sessions know the peer at PORT and
four others each."""
import os
import pathlib
import sys
import time

import libtorrent as lt

from libtorrent_alone import SETTINGS, add

SETTINGS |= {
    "alert_mask": 0,
    "active_limit": 1000,
    "connections_limit": 1000,
    "unchoke_slots_limit": 16,
}
PATIENCE = 600


def until(torrents, done):
    begun = time.monotonic()
    left = list(torrents)
    while left:
        left = [one for one in left if not done(one.status())]
        if time.monotonic() - begun > PATIENCE:
            sys.exit(f"{len(left)} of {len(torrents)} are not complete")
        time.sleep(0.02)
    return time.monotonic() - begun


role = sys.argv[1]
if role == "share":
    directory, out = map(pathlib.Path, sys.argv[2:4])
    session, torrents, magnets = lt.session(SETTINGS), [], []
    for file in sorted(directory.iterdir()):
        files = lt.file_storage()
        lt.add_files(files, str(file))
        made = lt.create_torrent(files, piece_size=256 * 1024, flags=lt.create_torrent.v1_only)
        lt.set_piece_hashes(made, str(directory))
        info = lt.torrent_info(lt.bdecode(lt.bencode(made.generate())))
        torrents.append(add(session, info, directory))
        magnets.append(lt.make_magnet_uri(info))
    until(torrents, lambda status: status.is_seeding)
    out.write_text("\n".join(magnets))
    print("READY", session.listen_port(), flush=True)
    time.sleep(10 * PATIENCE)
elif role == "get":
    directory, magnets, port = sys.argv[2], pathlib.Path(sys.argv[3]).read_text().split("\n"), int(sys.argv[4])
    session = lt.session(SETTINGS)
    begun = time.monotonic()
    torrents = [add(session, magnet, directory) for magnet in magnets]
    for torrent in torrents:
        torrent.connect_peer(("127.0.0.1", port))
    until(torrents, lambda status: status.has_metadata and status.is_seeding)
    print("DONE", round(time.monotonic() - begun, 3), flush=True)
elif role == "crowd":
    info, directory, port, count = lt.torrent_info(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    small = {**SETTINGS, "aio_threads": 1, "hashing_threads": 1, "connections_limit": 50}
    sessions = [lt.session(small) for _ in range(count)]
    begun = time.monotonic()
    torrents = []
    for number, session in enumerate(sessions):
        place = os.path.join(directory, str(number))
        os.makedirs(place)
        torrents.append(add(session, info, place))
    for number, torrent in enumerate(torrents):
        torrent.connect_peer(("127.0.0.1", port))
        for step in range(1, 5):
            other = sessions[(number + 7 * step) % count]
            torrent.connect_peer(("127.0.0.1", other.listen_port()))
    until(torrents, lambda status: status.is_seeding)
    print("DONE", round(time.monotonic() - begun, 3), flush=True)
    # Its threads are not waited for: there are a thousand.
    os._exit(0)
else:
    sys.exit(__doc__)
