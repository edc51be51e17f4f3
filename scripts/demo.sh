#!/usr/bin/env bash
# The demo: from a bare machine to a routed lab that carries traffic, and back.
#
#   scripts/demo.sh up      install, start and build what is missing; deploy examples/ospf-triangle.clab.yml; try it
#   scripts/demo.sh start   only install, start and build what is missing: scripts/demo-vm.sh goes on from there
#   scripts/demo.sh down    remove the lab (and any other made there), the demo's netloomd and all its data
#
# Both may be run again at any point, also after one that failed half-way: what tells the demo's things from others',
# $made and $data/owner, is removed last. A netloomd that somebody else started is used as it is, and left running
# with all it has but the demo's lab.
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
owner=$data/owner       # the id that everything netloom makes for this installation carries

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

# The pid of the netloomd that the demo started, if it runs; one that is dead and not yet waited for has no command line.
demo_pid() {
    local pid
    pid=$(cat "$pidfile" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = netloomd ] && grep -qs . "/proc/$pid/cmdline" && echo "$pid"
}

# Is the socket listened on? By curl's "could not connect": what is said and how does not matter.
accepts() {
    local code=0
    root curl -s --max-time 5 -o /dev/null --unix-socket "$socket" http://netloom/ || code=$?
    [ "$code" != 7 ]
}

# Does a netloomd work in the demo's directories? One that does not answer (yet) holds locks there.
in_use() {
    local lock
    if accepts; then return; fi
    while read -r lock; do
        root flock --shared --nonblock "$lock" true || return 0
    done < <(root find "$data" "$run" -maxdepth 1 -name '*.lock' 2>/dev/null)
    return 1
}

free() { ! in_use; }

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

ended() { [ "$(demo_pid)" != "$1" ]; }

stop_netloomd() {
    local pid
    if pid=$(demo_pid); then
        root kill "$pid"
        if ! within 20 ended "$pid"; then
            say "netloomd does not end: killing it"
            root kill -KILL "$pid"
            within 10 ended "$pid" || die "netloomd (pid $pid) does not end, even when killed"
        fi
    fi
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
    say "try it yourself:"
    say "  curl -s -H \"Authorization: Bearer \$(${sudo}cat $data/admin.token)\" $endpoint/v1/labs/$lab"
}

start() {
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
}

up() {
    start
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

# --- removing ---

# Containers and networks of the demo's installation, as "container ID" and "network ID".
docker_things() {
    local mark
    mark=label=netloom.owner=$(root cat "$owner") || return
    docker_ ps --all --quiet --filter "$mark" | sed 's/^/container /' || return
    docker_ network ls --quiet --filter "$mark" | sed 's/^/network /'
}

# Bridges of the demo's installation.
bridges() {
    local id
    id=$(root cat "$owner") || return
    root ovs-vsctl --timeout=10 --bare --columns=name find bridge "external_ids:netloom-owner=$id" | sed '/^$/d'
}

# Virtual machines of the demo's installation, by name: none where no libvirt answers, which then runs none.
machines() {
    local id name
    id=$(root cat "$owner") || return
    has virsh && root virsh -q -c qemu:///system uri >/dev/null 2>&1 || return 0
    for name in $(root virsh -q -c qemu:///system list --all --name); do
        ! root virsh -q -c qemu:///system dumpxml "$name" 2>/dev/null | grep -q "$id" || echo "$name"
    done
}

# Removes what netloomd made outside its directories, also when no netloomd was there to do it.
remove_owned() {
    local path kind id bridge found
    while path=$(mounts_below "$run" | tail -n 1) && [ -n "$path" ]; do
        root umount --lazy "$path" || die "cannot unmount $path"
    done
    root test -e "$owner" || return 0 # netloomd makes it before anything else
    found=$(docker_things) || die "cannot ask Docker Engine what is left of the demo; run 'make services' and then this again"
    while read -r kind id; do
        [ -n "$kind" ] || continue
        case $kind in
            container) docker_ rm --force "$id" ;;
            network) docker_ network rm "$id" ;;
        esac >/dev/null </dev/null
        say "removed the $kind $id"
    done <<<"$found"
    found=$(machines) || die "cannot ask libvirt what is left of the demo; run 'make services' and then this again"
    for id in $found; do
        root virsh -q -c qemu:///system destroy "$id" >/dev/null 2>&1 </dev/null || true
        root virsh -q -c qemu:///system undefine "$id" --nvram --snapshots-metadata >/dev/null </dev/null
        say "removed the virtual machine $id"
    done
    found=$(bridges) || die "cannot ask Open vSwitch what is left of the demo; run 'make services' and then this again"
    for bridge in $found; do
        # Without --no-wait: returns when the bridge's interface is gone too.
        root ovs-vsctl --timeout=10 del-br "$bridge" </dev/null ||
            die "Open vSwitch does not remove the bridge $bridge; run 'make services' and then this again"
        say "removed the bridge $bridge"
    done
}

# What is there of the demo, but for the two files that tell what is its own.
remains() {
    local path
    mounts_below "$run" | sed 's/^/mount /' || return
    if root test -e "$owner"; then
        docker_things || return
        bridges | sed 's/^/bridge /' || return
        machines | sed 's/^/virtual machine /' || return
    fi
    for path in "$run" "$log" "$pidfile"; do
        ! root test -e "$path" || echo "$path"
    done
    root find "$data" -mindepth 1 -maxdepth 1 ! -path "$made" ! -path "$owner"
}

remove_all() {
    local left
    remove_owned
    root rm -rf "$run" "$log" || true # what stays is named below
    root find "$data" -mindepth 1 -maxdepth 1 ! -path "$made" ! -path "$owner" -exec rm -rf {} + || true
    left=$(remains) || die "cannot tell what is left of the demo"
    [ -z "$left" ] || die "this is left of the demo (running this again tries once more):"$'\n'"$left"
    # The marker after the owner: without it nobody would come here again.
    root rm -f "$owner"
    root rm -rf "$data"
    say "removed $data, $run and $log"
}

# With a netloomd that the demo did not start, only the demo's lab is the demo's to remove.
down_beside_other() {
    say "a netloomd that the demo did not start works in $run"
    within 10 healthy || die "it does not answer on $socket, so whether the lab $lab is left cannot be told; nothing was removed"
    remove_lab
    root rm -f "$pidfile"
    ! root test -e "$made" ||
        die "the netloomd that the demo did not start uses the demo's $data: both are left as they are; stop it and run this again to remove the data"
    step "done; the netloomd that the demo did not start, its data and its other labs are left as they are"
}

remove_lab() {
    if nl inspect "$lab" >/dev/null 2>&1; then
        nl destroy "$lab" --yes
    else
        say "no lab $lab"
    fi
}

down() {
    local marked=
    step "the lab"
    [ -w "$socket" ] || as_root "talk to netloomd, stop it and remove its data" true
    # Not at once: one that was just killed still has its files for a moment.
    if ! demo_pid >/dev/null && ! within 2 free; then
        down_beside_other
        return
    fi
    if root test -e "$made"; then marked=1; fi
    # netloomd removes its labs best, so one that has died is started once more; if it cannot be, remove_owned does.
    if ! healthy >/dev/null 2>&1 && [ -n "$marked" ] && root test -e "$owner" && [ -x "$bin/netloomd" ]; then
        (start_netloomd) || say "going on without netloomd"
    fi
    if ! healthy >/dev/null 2>&1; then
        say "no netloomd answers"
    elif [ -n "$marked" ]; then
        nl destroy --all --yes || say "going on without netloomd"
    else
        remove_lab
    fi
    step "netloomd"
    if demo_pid >/dev/null; then say "stopping it"; else say "none of the demo's runs"; fi
    stop_netloomd
    step "its data"
    if [ -n "$marked" ]; then
        within 5 free || die "a netloomd that the demo did not start came up in $run: its data is left as it is; stop it and run this again"
        remove_all
    else
        say "none that the demo made"
    fi
    step "done; the images stay until 'make clean-images'"
}

case ${1:-} in
    up) up ;;
    start) start ;;
    down) down ;;
    start-netloomd) start_netloomd_as_root "$2" ;; # asked for by start_netloomd, as root
    *) die "usage: $0 up|start|down" ;;
esac
