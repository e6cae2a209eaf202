"""What the libtorrent peers here have in common: they never leave this machine."""
import libtorrent as lt

SETTINGS = {
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
}


def add(session, what, directory):
    """Adds a torrent, by its magnet link or as it is, and starts it."""
    if isinstance(what, str):
        params = lt.parse_magnet_uri(what)
    else:
        params = lt.add_torrent_params()
        params.ti = what
    params.save_path = str(directory)
    params.flags &= ~lt.torrent_flags.auto_managed
    params.flags &= ~lt.torrent_flags.paused
    return session.add_torrent(params)
