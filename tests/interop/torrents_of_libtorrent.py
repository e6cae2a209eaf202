"""Meets our torrents with libtorrent's: torrents_of_libtorrent.py <program>, which is the
example `torrent`. Everything is in one temporary directory, without a network."""
import os
import subprocess
import sys
import tempfile
import time

import libtorrent as lt

program = os.path.abspath(sys.argv[1])
MIB = 1 << 20

# Directories, and a file by itself: names and sizes.
TREES = {
    "odd": {"a.bin": 3 * MIB + 17, "sub/b.bin": 1, "sub/deep/c.bin": 262144, "z.txt": 70001},
    "empty files": {"0": 0, "a/1": 262145, "a/2": 0, "b": 16384, "c": 16385},
    "small": {"one": 5, "two": 16383, "drei äöü.txt": 40000},
    "single.bin": 2 * MIB + 262144 + 5,
    "tiny.txt": 3,
    "exact.bin": MIB,
}
# None: what libtorrent chooses itself.
PIECES = [16384, 65536, 262144, None]
VERSIONS = {
    "v1": lt.create_torrent.v1_only,
    "v2": lt.create_torrent.v2_only,
    "hybrid": 0,
}


def fail(message):
    sys.exit(f"interop: FAILED: {message}")


def content(size, salt):
    block = bytes((i * 2654435761 + salt >> 13) & 0xFF for i in range(65521))
    return (block * (size // len(block) + 1))[:size]


def write(root, name, tree):
    path = os.path.join(root, name)
    files = {"": tree} if isinstance(tree, int) else tree
    for salt, (inner, size) in enumerate(files.items()):
        file = os.path.join(path, inner) if inner else path
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "wb") as out:
            out.write(content(size, salt))
    return path


def run(*words):
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        fail(f"{words}: {done.stderr.strip()}")
    return done.stdout


def hashes(info):
    """As we print them: of version 1, and of version 2."""
    both = info.info_hashes()
    lines = set()
    if both.has_v1():
        lines.add(f"btih:{both.v1}")
    if both.has_v2():
        lines.add(f"btmh:{both.v2}")
    return lines


def shown(words):
    lines = run("show", words).splitlines()
    return {line for line in lines if line.startswith(("btih:", "btmh:"))}, lines


def of_libtorrent(root, path, version, piece):
    storage = lt.file_storage()
    lt.add_files(storage, path)
    made = lt.create_torrent(storage, piece or 0, VERSIONS[version])
    made.add_tracker("http://127.0.0.1:1/announce")
    made.add_url_seed("http://127.0.0.1:1/seed/")
    lt.set_piece_hashes(made, root)
    return lt.bencode(made.generate())


def recheck(session, info, root):
    """Whether libtorrent finds everything at its place."""
    parameters = lt.add_torrent_params()
    parameters.ti = info
    parameters.save_path = root
    parameters.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    handle = session.add_torrent(parameters)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        status = handle.status()
        if status.errc.value() != 0:
            fail(f"libtorrent: {status.errc.message()}")
        if status.is_seeding or status.num_pieces == info.num_pieces():
            session.remove_torrent(handle)
            return
        time.sleep(0.02)
    fail(f"libtorrent has {handle.status().num_pieces} of {info.num_pieces()} pieces right")


def main():
    session = lt.session({
        "listen_interfaces": "127.0.0.1:0",
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
    })
    read = written = 0
    with tempfile.TemporaryDirectory() as root:
        for name, tree in TREES.items():
            path = write(root, name, tree)
            for version in VERSIONS:
                for piece in PIECES:
                    what = f"{name}, {version}, {piece}"
                    # Theirs, read by us.
                    data = of_libtorrent(root, path, version, piece)
                    file = os.path.join(root, "theirs.torrent")
                    with open(file, "wb") as out:
                        out.write(data)
                    info = lt.torrent_info(file)
                    ours, lines = shown(file)
                    if ours != hashes(info):
                        fail(f"{what}: info-hashes {ours} and {hashes(info)}")
                    if "tracker http://127.0.0.1:1/announce" not in lines:
                        fail(f"{what}: no tracker in {lines}")
                    if "web seed http://127.0.0.1:1/seed/" not in lines:
                        fail(f"{what}: no web seed in {lines}")
                    run("verify", file, path)
                    magnet = lt.make_magnet_uri(info)
                    if shown(magnet)[0] != hashes(info):
                        fail(f"{what}: magnet {magnet}")
                    read += 1
                    # Ours, read by them.
                    file = os.path.join(root, "ours.torrent")
                    size = ["--piece-length", str(piece)] if piece else []
                    magnet = run("make", path, "--out", file, "--version", version, *size,
                                 "--tracker", "http://127.0.0.1:1/a").strip()
                    theirs = hashes(info)
                    info = lt.torrent_info(file)
                    # Of one file there is only one torrent, whoever makes it.
                    if isinstance(tree, int) and piece and hashes(info) != theirs:
                        fail(f"{what}: {hashes(info)} here, {theirs} there")
                    if shown(file)[0] != hashes(info):
                        fail(f"{what}: ours, info-hashes {shown(file)[0]} and {hashes(info)}")
                    theirs = lt.parse_magnet_uri(magnet).info_hashes
                    if theirs != info.info_hashes():
                        fail(f"{what}: libtorrent reads {magnet} as {theirs}")
                    recheck(session, info, root)
                    written += 1
        # A byte that is not right is found.
        path = os.path.join(root, "exact.bin")
        for version in VERSIONS:
            with open(os.path.join(root, "t"), "wb") as out:
                out.write(of_libtorrent(root, path, version, 65536))
            with open(path, "r+b") as file:
                file.seek(500_000)
                byte = file.read(1)
                file.seek(500_000)
                file.write(bytes([byte[0] ^ 1]))
            words = [program, "verify", os.path.join(root, "t"), path]
            done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode == 0 or "15 of 16 pieces are right" not in done.stdout:
                fail(f"a wrong byte in {version}: {done.stdout}{done.stderr}")
            with open(path, "r+b") as file:
                file.seek(500_000)
                file.write(byte)
    print(f"interop: {read} torrents of libtorrent {lt.__version__} read and verified, "
          f"{written} of ours verified by it")


main()
