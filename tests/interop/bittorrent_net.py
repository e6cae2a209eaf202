"""Peers found among programs that others wrote: a mainline DHT of libtorrent nodes, opentracker
over HTTP and UDP, and a handshake over uTP with libtorrent. Run by bittorrent-net.

usage: bittorrent_net.py FIND_PEERS
"""

import hashlib
import socket
import subprocess
import sys
import tempfile
import time
import warnings

import libtorrent as lt

# Its own names are said to be old ones now.
warnings.simplefilter("ignore", DeprecationWarning)
binary = sys.argv[1]
HOST = "127.0.0.1"


def fail(what):
    raise SystemExit(f"interop: bittorrent-net: FAILED: {what}")


def wait(what, look, seconds=60):
    """Until look() gives something that is true."""
    end = time.time() + seconds
    while time.time() < end:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    fail(f"{what}: not within {seconds} s")


def free_port():
    """Free for TCP and UDP."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind((HOST, 0))
        udp.bind(tcp.getsockname())
        return tcp.getsockname()[1]


def info_hash(text):
    return hashlib.sha1(text.encode()).hexdigest()


def session(**more):
    """A libtorrent session that never leaves this machine."""
    settings = {
        "listen_interfaces": f"{HOST}:{free_port()}",
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "allow_multiple_connections_per_ip": True,
        "dht_bootstrap_nodes": "",
        "dht_restrict_routing_ips": False,
        "dht_restrict_search_ips": False,
        "dht_ignore_dark_internet": False,
        "dht_prefer_verified_node_ids": False,
        "dht_enforce_node_id": False,
        "dht_privacy_lookups": False,
        # All are on one address, which is not to be blocked for that.
        "dht_block_ratelimit": 1000,
        "dht_upload_rate_limit": 1_000_000,
        "alert_mask": lt.alert.category_t.all_categories,
        "alert_queue_size": 100_000,
    }
    return lt.session({**settings, **more})


def add_magnet(ses, ih, trackers=()):
    params = lt.parse_magnet_uri(f"magnet:?xt=urn:btih:{ih}")
    params.save_path = directory
    params.trackers = list(trackers)
    params.flags &= ~lt.torrent_flags.auto_managed
    params.flags &= ~lt.torrent_flags.paused
    return ses.add_torrent(params)


def find_peers(ih, *options):
    """Runs ours to its end; the lines it prints."""
    command = [binary, ih, "--near", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        fail(f"{command}: {done.stderr}")
    return done.stdout.splitlines()


class Running:
    """Ours, while it stays; the lines it prints."""

    def __init__(self, ih, *options):
        self.out = open(f"{directory}/{ih}.out", "w+")
        command = [binary, ih, "--near", *options]
        self.process = subprocess.Popen(command, stdout=self.out, stderr=self.out)
        running.append(self.process)

    def lines(self, begin):
        with open(self.out.name) as text:
            return [line for line in text.read().splitlines() if line.startswith(begin)]


def dht():
    nodes = [session(enable_dht=True) for _ in range(8)]
    first = f"{HOST}:{nodes[0].listen_port()}"
    for node in nodes[1:]:
        node.add_dht_node((HOST, nodes[0].listen_port()))
    for node in nodes[1:]:
        wait("libtorrent's nodes find each other", lambda: node.status().dht_nodes >= 2)

    theirs = info_hash("announced by libtorrent")
    # A torrent announces itself; the function of its own for that wants flags that Python
    # does not have.
    handle = add_magnet(nodes[3], theirs)
    expected = f"dht {HOST}:{nodes[3].listen_port()}"

    def found():
        handle.force_dht_announce()
        return expected in find_peers(theirs, "--bootstrap", first)

    wait("what libtorrent announced", found)
    print("interop: bittorrent-net: we find in the DHT what libtorrent announced")

    ours = info_hash("announced by us")
    running = Running(ours, "--bootstrap", first, "--announce", "7002", "--seconds", "60")
    taken = wait("our announcement", lambda: running.lines("announced"))[0]
    if int(taken.split()[1]) < 3:
        fail(f"too few nodes took it: {taken}")

    def told():
        nodes[6].dht_get_peers(lt.sha1_hash(bytes.fromhex(ours)))
        time.sleep(0.5)
        for alert in nodes[6].pop_alerts():
            if isinstance(alert, lt.dht_get_peers_reply_alert):
                if any(peer == (HOST, 7002) for peer in alert.peers()):
                    return True
        return False

    wait("what we announced", told)
    print("interop: bittorrent-net: libtorrent finds in the DHT what we announced")
    # It also knows us as a node: somebody who knows nobody else gets to the others through us.
    us = running.lines("listening")[0].split()[1]
    lines = find_peers(theirs, "--bootstrap", us)
    if expected not in lines:
        fail(f"through our node: {lines}")
    print("interop: bittorrent-net: our node leads others to libtorrent's")


def trackers():
    http, udp = info_hash("over http"), info_hash("over udp")
    with open(f"{directory}/wl", "w") as whitelist:
        whitelist.write(f"{http}\n{udp}\n")
    port = free_port()
    # It goes there, as its root if it may, before it opens the list.
    command = ["opentracker", "-i", HOST, "-p", str(port), "-P", str(port), "-d", directory]
    tracker = subprocess.Popen(
        [*command, "-w", "wl"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    running.append(tracker)

    def is_up():
        with socket.socket() as probe:
            return probe.connect_ex((HOST, port)) == 0

    wait("opentracker", is_up)
    for ih, url in [
        (http, f"http://{HOST}:{port}/announce"),
        (udp, f"udp://{HOST}:{port}/announce"),
    ]:
        peer = session(enable_outgoing_utp=False)
        with socket.create_server((HOST, 0)) as listener:
            ours = listener.getsockname()[1]
            handle = add_magnet(peer, ih, [url])
            expected = f"tracker {url} {HOST}:{peer.listen_port()}"
            lines = []

            def told():
                lines[:] = find_peers(ih, "--tracker", url, "--announce", str(ours))
                return expected in lines

            wait(f"libtorrent from {url}", told)
            counts = [line for line in lines if line.startswith(f"scrape {url} ")]
            if not counts or int(counts[0].split()[4]) < 2:
                fail(f"scrape of {url}: {lines}")
            # It dials whom it was told of, and says which torrent it means.
            handle.force_reannounce(0, -1, lt.reannounce_flags_t.ignore_min_interval)
            listener.settimeout(60)
            try:
                dialled, _ = listener.accept()
            except TimeoutError:
                fail(f"libtorrent was not told of us by {url}")
            with dialled:
                dialled.settimeout(20)
                hello = dialled.recv(68, socket.MSG_WAITALL)
            # By default it may begin with an encrypted one.
            if hello[:1] == b"\x13" and hello[28:48].hex() != ih:
                fail("libtorrent means another torrent")
        peer.pause()
        print(f"interop: bittorrent-net: opentracker over {url.split(':')[0]}: both are told")


def utp():
    ih = info_hash("over utp")
    peer = session(enable_outgoing_tcp=False, out_enc_policy=2, in_enc_policy=2)
    handle = add_magnet(peer, ih)
    at = f"{HOST}:{peer.listen_port()}"
    lines = find_peers(ih, "--hello", at)
    if not any(line.startswith(f"hello {at} {ih} -LT") for line in lines):
        fail(f"libtorrent says nothing over uTP: {lines}")
    print("interop: bittorrent-net: we shake hands with libtorrent over uTP")
    running = Running(ih, "--seconds", "60")
    us = wait("ours", lambda: running.lines("listening"))[0].split()[1]

    def incoming():
        handle.connect_peer((HOST, int(us.split(":")[1])))
        return running.lines(f"incoming {at} {ih} -LT")

    wait("libtorrent over uTP", incoming)
    print("interop: bittorrent-net: libtorrent shakes hands with us over uTP")


running = []
with tempfile.TemporaryDirectory() as directory:
    # opentracker may run as nobody.
    subprocess.run(["chmod", "755", directory], check=True)
    try:
        dht()
        trackers()
        utp()
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
