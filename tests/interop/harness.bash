# What the scripts here have in common. To be sourced, with `set -euo pipefail` before it:
# it goes to the root of the workspace, builds the command line, and makes a temporary
# directory, $dir, that goes at the end together with the processes in $pids.

name=$(basename "$0")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() {
    echo "interop: FAILED: $*" >&2
    exit 1
}

# need <program>...: a missing one is a failure.
need() {
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null || fail "$program is missing"
    done
}

cargo build --quiet --release --example chiral
chiral=${CARGO_TARGET_DIR:-$PWD/target}/release/examples/chiral
dir=$(mktemp -d)
pids=()
cleanup() {
    local pid
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$dir"
}
trap cleanup EXIT

# await <what> <command>...: until it succeeds, for at most 30 seconds.
await() {
    local what=$1 deadline=$((SECONDS + 30))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$what does not come up"
        sleep 0.05
    done
}

# share <name> <file> [option]...: sets peer, the URL at which it is served, and pid.
share() {
    local name=$1 file=$2
    shift 2
    # What an earlier one said is not this one's.
    rm -f "$dir/$name.out"
    "$chiral" share "$file" --http 127.0.0.1:0 --data-dir "$dir/$name.data" "$@" >"$dir/$name.out" &
    pid=$!
    pids+=("$pid")
    await "seeder $name" grep -q '^serving' "$dir/$name.out"
    peer=$(grep -o 'http://[^ ]*' "$dir/$name.out" | head -1)
}

# Sets web, the URL of an nginx that serves $dir/www, where a file named "file" is.
start_nginx() {
    local user= port deadline
    # Its workers must be able to read the directory.
    [ "$(id -u)" -ne 0 ] || user="user root;"
    mkdir "$dir/nginx"
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        port=$((20000 + RANDOM))
        cat >"$dir/nginx/conf" <<CONF
$user
daemon off;
pid $dir/nginx/pid;
error_log $dir/nginx/error.log;
events {}
http {
    access_log off;
    client_body_temp_path $dir/nginx/body;
    proxy_temp_path $dir/nginx/proxy;
    fastcgi_temp_path $dir/nginx/fastcgi;
    uwsgi_temp_path $dir/nginx/uwsgi;
    scgi_temp_path $dir/nginx/scgi;
    sendfile on;
    server {
        listen 127.0.0.1:$port;
        root $dir/www;
    }
}
CONF
        nginx -p "$dir/nginx" -e "$dir/nginx/error.log" -c "$dir/nginx/conf" 2>/dev/null &
        pid=$!
        web=http://127.0.0.1:$port
        deadline=$((SECONDS + 10))
        while kill -0 "$pid" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ]; do
            # Another server may have the port: only ours has this file.
            if curl -sf --max-time 5 "$web/file" -o /dev/null -r 0-0 && [ -s "$dir/nginx/pid" ]; then
                pids+=("$pid")
                return
            fi
            sleep 0.05
        done
        kill "$pid" 2>/dev/null || true
    done
    fail "nginx does not come up: $(cat "$dir/nginx/error.log")"
}

# delivered <json output> <url>: verified bytes that came from there.
delivered() {
    tail -1 "$1" | tr '{' '\n' | grep -F "\"$2\"" | grep -o '"bytes":[0-9]*' | cut -d: -f2
}
