#!/usr/bin/env bash
# The demo: from a bare machine to a routed lab that carries traffic, and back.
#
#   scripts/demo.sh up      install, start and build what is missing; deploy examples/ospf-triangle.clab.yml; try it
#   scripts/demo.sh down    remove the lab (and any other made there), the demo's netloomd and all its data
#
# Both may be run again at any point. A netloomd that somebody else started is used as it is, and left running.
source "$(dirname "$0")/lib.sh"
cd "$repo"

lab=ospf-triangle
topology=examples/$lab.clab.yml
routers=(r1 r2 r3)
converge_s=60

bin=${CARGO_TARGET_DIR:-$repo/target}/debug
data=/var/lib/netloom
run=/run/netloom
socket=$run/api.sock
endpoint=http://127.0.0.1:7600
pidfile=/run/netloom-demo.pid
log=/var/log/netloomd-demo.log
made=$data/made-by-demo # marks the data directory as the demo's own, to be removed with it

# root COMMAND…: for the many small commands after the first as_root.
root() { if is_root; then "$@"; else sudo "$@"; fi; }

# nl ARGUMENT…: netloom, by sudo for a user outside the group of its socket.
nl() {
    if [ -w "$socket" ]; then
        "$bin/netloom" --endpoint "unix:$socket" "$@"
    else
        root "$bin/netloom" --endpoint "unix:$socket" "$@"
    fi
}

# in_node NODE COMMAND…
in_node() {
    local node=$1
    shift
    nl exec "$lab" "$node" -- "$@"
}

# --- netloomd ---

healthy() { root curl -sf --max-time 5 --unix-socket "$socket" http://netloom/v1/hosts | jq -e 'any(.hosts[]; .state == "HOST_STATE_ONLINE")'; }

# The pid of the netloomd that the demo started, if it runs.
demo_pid() {
    local pid
    pid=$(cat "$pidfile" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = netloomd ] && echo "$pid"
}

answers_or_ended() { healthy || ! demo_pid; }

start_netloomd() {
    local pid
    if pid=$(demo_pid); then
        if root test "/proc/$pid/exe" -ef "$bin/netloomd" && within 10 healthy; then
            say "netloomd runs already (pid $pid)"
            return
        fi
        say "netloomd (pid $pid) is an older build or does not answer: restarting it; labs keep running"
        stop_netloomd
    elif healthy >/dev/null 2>&1; then
        say "a netloomd that the demo did not start answers on $socket: using it"
        return
    fi
    say "starting netloomd (data: $data, log: $log)"
    as_root "start netloomd" "$repo/scripts/demo.sh" start-netloomd "$bin/netloomd"
    if ! { within 30 answers_or_ended && healthy >/dev/null; }; then
        root tail -n 20 "$log" >&2
        die "netloomd ended or does not answer on $socket after 30 s; its log is $log"
    fi
    say "netloomd is healthy (pid $(demo_pid))"
}

start_netloomd_as_root() { # PROGRAM
    if [ ! -d "$data" ]; then
        mkdir -p "$data"
        touch "$made"
    fi
    [ -e "$log" ] || install -m 644 /dev/null "$log"
    detached "$log" "$1" --data-dir "$data"
    echo $! >"$pidfile"
}

stop_netloomd() {
    local pid
    pid=$(demo_pid) || return 0
    root kill "$pid"
    within 20 test ! -d "/proc/$pid" || { say "netloomd does not end: killing it"; root kill -KILL "$pid"; }
    root rm -f "$pidfile"
}

# --- what the demo shows ---

# The Full neighbours of a router, asked of the router itself.
full_neighbours() {
    in_node "$1" vtysh -c 'show ip ospf neighbor json' 2>/dev/null |
        jq '[.neighbors[]?[]? | select(.nbrState | startswith("Full"))] | length' 2>/dev/null || echo 0
}

wait_for_ospf() {
    local deadline=$((SECONDS + converge_s)) shown='' now router n full
    while :; do
        now='' full=0
        for router in "${routers[@]}"; do
            n=$(full_neighbours "$router")
            now+="  $router ${n:-0}/2"
            [ "${n:-0}" != 2 ] || full=$((full + 1))
        done
        [ "$now" = "$shown" ] || say "Full neighbours:$now"
        shown=$now
        [ "$full" -lt ${#routers[@]} ] || return 0
        [ "$SECONDS" -lt "$deadline" ] || die "OSPF is not Full on every router after $converge_s s"
        sleep 0.3
    done
}

ping_between() { # NODE NODE ADDRESS
    local said
    # Routes are computed right after the last adjacency: the first ping may come before them.
    within 10 in_node "$1" ping -c 1 -W 1 "$3" || die "$1 does not reach $2 ($3)"
    said=$(in_node "$1" ping -c 3 -i 0.2 -W 2 "$3") || die "$1 loses pings to $2 ($3)"
    say "$1 -> $2 ($3): $(sed -n 's/.* \([0-9]*\) received.*/\1 of 3 replies/p' <<<"$said"), $(sed -n 's#.*= [^/]*/\([^/]*\)/.*#\1 ms#p' <<<"$said")"
}

tcp_between() { # NODE NODE ADDRESS
    local said
    in_node "$2" iperf3 --server --one-off --daemon
    # The server leaves for the background before it listens.
    within 5 in_node "$2" sh -c 'netstat -tln | grep -q :5201' || die "iperf3 does not listen in $2"
    said=$(in_node "$1" iperf3 --client "$3" --time 3 --connect-timeout 5000 --json) ||
        die "no TCP from $1 to $2: $(jq -r .error <<<"$said")"
    jq -r '.end.sum_received | "\(.bytes / 1e6 | round) MB in \(.seconds * 10 | round / 10) s: \(.bits_per_second / 1e6 | round) Mbit/s"' <<<"$said" |
        while read -r figure; do say "$1 -> $2 ($3): $figure"; done
}

try_http() {
    local sudo='' token
    [ -r "$data/admin.token" ] || sudo='sudo '
    token=$(root cat "$data/admin.token")
    curl -sfS -H "Authorization: Bearer $token" "$endpoint/v1/labs/$lab" |
        jq -r '"    it answers: \(.name), \(.state), \(.runningCount) of \(.nodeCount) nodes running, \(.upLinkCount) of \(.linkCount) links up"'
    http_line="curl -s -H \"Authorization: Bearer \$(${sudo}cat $data/admin.token)\" $endpoint/v1/labs/$lab"
    say "$http_line"
}

up() {
    step "packages"
    scripts/deps.sh
    step "services"
    scripts/services.sh
    step "images"
    scripts/images.sh host frr
    step "building netloom (the first time takes some minutes)"
    cargo build --workspace --bins --locked
    step "netloomd"
    [ -w "$socket" ] || as_root "start netloomd and talk to it" true
    start_netloomd
    step "deploying $topology"
    nl deploy -t "$topology"
    step "waiting until OSPF is Full on every router"
    wait_for_ospf
    step "pinging host to host across the routers"
    ping_between h1 h2 10.2.0.10
    ping_between h1 h3 10.3.0.10
    ping_between h2 h3 10.3.0.10
    step "moving data over TCP"
    tcp_between h1 h3 10.3.0.10
    step "the lab"
    nl inspect "$lab"
    step "the same over HTTP"
    try_http
    step "done"
    local cli=$bin/netloom
    [ -w "$socket" ] || cli="sudo $cli"
    cat <<END

    Go on:
      $cli shell $lab r1          into a router (vtysh)
      $cli exec $lab r1 -- vtysh -c 'show ip route'
      $cli exec $lab h1 -- ping -c 3 10.3.0.10
      edit $topology, then: $cli deploy -t $topology
    Stop, and leave nothing behind:
      make demo-down
END
}

# Bridges of the demo's installation: once its data is gone, nobody could tell whose they are.
remove_bridges() {
    local owner bridge
    owner=$(root cat "$data/owner" 2>/dev/null) || return 0
    root ovs-vsctl --format=json --columns=name,external_ids list bridge |
        jq -r --arg owner "$owner" '.data[] | select(any(.[1][1][]; .[1] == $owner)) | .[0]' |
        while read -r bridge; do
            root ovs-vsctl --no-wait del-br "$bridge"
            say "removed the bridge $bridge"
        done
}

down() {
    step "the lab"
    [ -w "$socket" ] || as_root "talk to netloomd, stop it and remove its data" true
    # Only netloomd knows what belongs to the lab, so one that has died is started once more.
    if ! healthy >/dev/null 2>&1 && root test -e "$made" && [ -x "$bin/netloomd" ]; then start_netloomd; fi
    if ! healthy >/dev/null 2>&1; then
        say "no netloomd answers: nothing to destroy"
    elif root test -e "$made"; then
        nl destroy --all --yes
    elif nl inspect "$lab" >/dev/null 2>&1; then
        nl destroy "$lab" --yes
    else
        say "no lab $lab"
    fi
    step "netloomd"
    if demo_pid >/dev/null; then
        stop_netloomd
        say "stopped"
    else
        say "none of the demo's runs"
    fi
    if root test -e "$made"; then
        remove_bridges
        root rm -rf "$data" "$run" "$log"
        say "removed $data, $run and $log"
    fi
    step "done; the images stay until 'make clean-images'"
}

case ${1:-} in
    up) up ;;
    down) down ;;
    start-netloomd) start_netloomd_as_root "$2" ;; # asked for by start_netloomd, as root
    *) die "usage: $0 up|down" ;;
esac
