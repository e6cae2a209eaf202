# Peers for the tests of the BitTorrent wire: ours, libtorrent, aria2 and transmission, all on
# loopback. To be sourced after harness.bash.

/usr/bin/python3 -c 'import libtorrent' || fail "libtorrent for Python is missing"
need aria2c transmission-cli
cargo build --quiet --release --examples
swarm=${CARGO_TARGET_DIR:-$PWD/target}/release/examples/swarm
peer_py=(/usr/bin/python3 "$PWD/tests/interop/libtorrent_peer.py")

# torrent <name> <piece KiB> <v1|v2|hybrid> [tracker]...: writes $dir/<name>.torrent of $file.
torrent() {
    /usr/bin/python3 - "$file" "$dir/$1.torrent" "$2" "$3" "${@:4}" <<'PY'
import sys, libtorrent as lt
path, out, kib, version, *trackers = sys.argv[1:]
flags = {
    "v1": lt.create_torrent.v1_only,
    "v2": lt.create_torrent.v2_only,
    "hybrid": 0,
}
files = lt.file_storage()
lt.add_files(files, path)
made = lt.create_torrent(files, piece_size=int(kib) * 1024, flags=flags[version])
for tracker in trackers:
    made.add_tracker(tracker)
lt.set_piece_hashes(made, path.rsplit("/", 1)[0])
open(out, "wb").write(lt.bencode(made.generate()))
PY
}

# info_hash <name> <v1|v2>: of a torrent.
info_hash() {
    /usr/bin/python3 -c "import libtorrent as lt; print(lt.torrent_info('$dir/$1.torrent').info_hashes().$2)"
}

# free_port: one that nobody has, over TCP and UDP.
free_port() {
    /usr/bin/python3 - <<'PY'
import socket
with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
    tcp.bind(("127.0.0.1", 0))
    udp.bind(tcp.getsockname())
    print(tcp.getsockname()[1])
PY
}

# listens <port>
listens() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# ready <name>: until a peer says its port; sets port.
ready() {
    await "$1" grep -q '^READY' "$dir/$1.out"
    port=$(grep -m1 '^READY' "$dir/$1.out" | cut -d' ' -f2)
}

# ours <name> [argument]...: a peer of ours in the background; sets pid and port.
ours() {
    local name=$1
    shift
    # What an earlier one said is not this one's.
    rm -f "$dir/$name.out"
    "$swarm" "$@" >"$dir/$name.out" 2>"$dir/$name.err" &
    pid=$!
    pids+=("$pid")
    ready "$name"
}

# theirs <name> [argument]...: the same of libtorrent.
theirs() {
    local name=$1
    shift
    # What an earlier one said is not this one's.
    rm -f "$dir/$name.out"
    "${peer_py[@]}" "$@" >"$dir/$name.out" 2>"$dir/$name.err" &
    pid=$!
    pids+=("$pid")
    ready "$name"
}

# aria2 <name> <torrent> <directory> [option]...: aria2 in the background; sets pid and port. It
# ends when it has everything, unless options say otherwise.
aria2() {
    local name=$1 torrent=$2 directory=$3
    shift 3
    port=$(free_port)
    aria2c --no-conf --enable-dht=false --enable-dht6=false --bt-enable-lpd=false \
        --disable-ipv6=true --file-allocation=none --summary-interval=0 \
        --console-log-level=warn --log="$dir/$name.log" --log-level=info --listen-port="$port" \
        --dir="$directory" --seed-time=0 "$@" "$torrent" >"$dir/$name.out" 2>&1 &
    pid=$!
    pids+=("$pid")
    await "aria2" listens "$port"
}

# transmission <name> <torrent> <directory> <required|preferred|tolerated>: in the background;
# sets pid and port. It ends when it is stopped.
transmission() {
    local name=$1 torrent=$2 directory=$3 encryption=$4
    port=$(free_port)
    mkdir -p "$dir/$name.config"
    cat >"$dir/$name.config/settings.json" <<'JSON'
{"dht-enabled": false, "lpd-enabled": false, "utp-enabled": false, "pex-enabled": true,
 "bind-address-ipv4": "127.0.0.1", "rename-partial-files": false, "port-forwarding-enabled": false,
 "speed-limit-up-enabled": false, "speed-limit-down-enabled": false}
JSON
    transmission-cli --config-dir "$dir/$name.config" --download-dir "$directory" --port "$port" \
        --no-portmap --no-blocklist --no-uplimit --no-downlimit \
        "--encryption-$encryption" "$torrent" >"$dir/$name.out" 2>&1 &
    pid=$!
    pids+=("$pid")
    await "transmission" listens "$port"
}

# tracker: opentracker for the info-hashes given; sets tracker_port.
tracker() {
    need opentracker
    tracker_port=$(free_port)
    mkdir -p "$dir/tracker"
    printf '%s\n' "$@" >"$dir/tracker/wl"
    # It may go on as nobody.
    chmod 755 "$dir" "$dir/tracker"
    opentracker -i 127.0.0.1 -p "$tracker_port" -P "$tracker_port" -d "$dir/tracker" -w wl \
        >/dev/null 2>&1 &
    pids+=("$!")
    await "opentracker" listens "$tracker_port"
}

# within <seconds> <what> <command>...: until it succeeds.
within() {
    local seconds=$1 what=$2 deadline=$((SECONDS + $1))
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$what: not within $seconds seconds"
        sleep 0.2
    done
}

stop() {
    kill "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

# in_enc_policy, out_enc_policy: 0 forced, 1 enabled, 2 disabled. allowed_enc_level: 1 plain,
# 2 RC4, 3 both.
# shellcheck disable=SC2034
declare -A libtorrent_says=(
    [off]="--set in_enc_policy=2 --set out_enc_policy=2"
    [prefer]="--set in_enc_policy=0 --set out_enc_policy=0 --set allowed_enc_level=3"
    [require]="--set in_enc_policy=0 --set out_enc_policy=0 --set allowed_enc_level=2"
)
# shellcheck disable=SC2034
declare -A aria2_says=(
    [off]=""
    [prefer]=""
    [require]="--bt-require-crypto=true --bt-min-crypto-level=arc4"
)
# shellcheck disable=SC2034
declare -A transmission_says=([off]=tolerated [prefer]=preferred [require]=required)
