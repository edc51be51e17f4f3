#!/usr/bin/env bash
# Many hosts, shown on one machine: two controllers on PostgreSQL and Redis, and two hosts, each a network namespace with an
# Open vSwitch and a Docker of its own, on one switch. They join over TLS; examples/ospf-triangle.clab.yml is spread over
# both; the controller that leads is killed; a host is cut off and comes back, live in `netloom inspect --watch`.
#
#   scripts/cluster-demo.sh up      show it, and remove all of it again, also when it fails or is interrupted
#   KEEP=1 scripts/cluster-demo.sh up   leave it running at the end, to go on with
#   scripts/cluster-demo.sh down    remove what such a demo, or one that was killed, left
#
# All it makes is below $dir, in namespaces called $ns…, and in processes whose pids stand in $dir/pids. Of the machine's own
# it uses the images, which its Docker builds; its Docker, Open vSwitch and netloomd are not touched.
source "$(dirname "$0")/lib.sh"
cd "$repo"

lab=ospf-triangle
topology=examples/$lab.clab.yml
routers=(r1 r2 r3)
images=(netloom/frr:local netloom/host:local)
hosts=(rack1 rack2)

bin=${CARGO_TARGET_DIR:-$repo/target}/debug
dir=/var/lib/netloom-cluster-demo
ns=nlcd-
net=10.254.77 # the controllers are .1 and .2, the hosts are .11 and .12

nl() { "$bin/netloom" --endpoint "unix:$socket" "$@"; }
json() { nl "$@" --format json; }

# in_ns NAME COMMAND…: there, as if that were a machine of its own. Mounts stay the machine's, which `ip netns exec` would change.
in_ns() {
    local name=$1
    shift
    nsenter --net="/run/netns/$ns$name" -- "$@"
}

# serve NAME LOG COMMAND…: a program of the demo's, in a namespace.
serve() {
    local name=$1 log=$2
    shift 2
    detached "$log" nsenter --net="/run/netns/$ns$name" -- "$@"
    echo $! >>"$dir/pids"
}

host_docker() { docker -H "unix://$dir/$1/docker/docker.sock" "${@:2}"; }
host_vsctl() { ovs-vsctl --db="unix:$dir/$1/ovs/db.sock" --timeout=10 "${@:2}"; }
address_of() { echo "$net.1${1#rack}"; }

# --- what it is made of ---

# A machine: a namespace with a cable to the switch, which is in that of the controllers.
make_machine() { # NAME
    ip netns add "$ns$1"
    ip -n "$ns$1" link set lo up
}

make_network() {
    local host
    make_machine controllers
    ip -n "${ns}controllers" link add switch type bridge
    ip -n "${ns}controllers" address add "$net.1/24" dev switch
    ip -n "${ns}controllers" address add "$net.2/24" dev switch
    ip -n "${ns}controllers" link set switch up
    for host in "${hosts[@]}"; do
        make_machine "$host"
        ip link add "$host" netns "${ns}controllers" type veth peer name up0 netns "$ns$host"
        ip -n "${ns}controllers" link set "$host" master switch up
        ip -n "$ns$host" address add "$(address_of "$host")/24" dev up0
        ip -n "$ns$host" link set up0 up
    done
}

postgres_program() { find /usr/lib/postgresql -path "*/bin/$1" | sort -V | tail -n 1; }

start_postgres() {
    local data=$dir/postgres name
    install -d -o postgres -g postgres "$data"
    as_postgres "$(postgres_program initdb)" --no-sync --no-locale --encoding=UTF8 --auth=trust --username=netloom \
        -D "$data/db" >"$dir/initdb.log" || die "initdb: see $dir/initdb.log"
    serve controllers "$dir/postgres.log" setpriv --reuid=postgres --regid=postgres --clear-groups \
        "$(postgres_program postgres)" -D "$data/db" -k "$data" -c listen_addresses= -c fsync=off
    within 30 "$(postgres_program pg_isready)" -q -h "$data" || die "PostgreSQL does not answer; see $dir/postgres.log"
    for name in scheduler images; do
        as_postgres "$(postgres_program createdb)" -h "$data" -U netloom "$name" || die "PostgreSQL makes no database"
    done
}

start_redis() {
    serve controllers "$dir/redis.log" redis-server --port 0 --unixsocket "$dir/redis.sock" --save '' --appendonly no --dir "$dir"
    within 10 redis-cli -s "$dir/redis.sock" ping || die "Redis does not answer; see $dir/redis.log"
}

# It refuses to run as root.
as_postgres() { (cd / && setpriv --reuid=postgres --regid=postgres --clear-groups "$@"); }

# A host as a machine has it before netloom comes: Open vSwitch and Docker.
start_host() { # NAME
    local at=$dir/$1
    mkdir -p "$at"/{ovs,docker}
    export OVS_RUNDIR=$at/ovs OVS_DBDIR=$at/ovs OVS_LOGDIR=$at/ovs
    ovsdb-tool create "$at/ovs/conf.db" /usr/share/openvswitch/vswitch.ovsschema
    serve "$1" "$at/ovsdb-server.log" ovsdb-server "$at/ovs/conf.db" "--remote=punix:$at/ovs/db.sock" "--unixctl=$at/ovs/ovsdb-server.ctl"
    within 10 host_vsctl "$1" --no-wait init || die "ovsdb-server of $1 does not answer; see $at/ovsdb-server.log"
    serve "$1" "$at/ovs-vswitchd.log" ovs-vswitchd "unix:$at/ovs/db.sock" "--unixctl=$at/ovs/ovs-vswitchd.ctl"
    serve "$1" "$at/dockerd.log" dockerd --data-root "$at/docker/data" --exec-root "$at/docker/run" --pidfile "$at/docker/docker.pid" \
        -H "unix://$at/docker/docker.sock" --bridge=none --iptables=false --ip6tables=false --ip-masq=false
    within 60 host_docker "$1" version || die "Docker of $1 does not answer; see $at/dockerd.log"
    docker save "${images[@]}" | host_docker "$1" load --quiet >/dev/null || die "$1 does not take the images"
    host_vsctl "$1" get Open_vSwitch . ovs_version >/dev/null || die "Open vSwitch of $1 does not answer; see $at/ovs-vswitchd.log"
    cat >"$at/netloom.toml" <<END
data_dir = "$at/data"
run_dir = "$at/run"
[compute]
drivers = ["docker"]
docker_socket = "$at/docker/docker.sock"
[network]
ovsdb_socket = "$at/ovs/db.sock"
ovs_run_dir = "$at/ovs"
tunnel_address = "$(address_of "$1")"
END
}

start_controller() { # NUMBER
    local program at=$dir/controller$1 database=postgres://netloom@${dir//\//%2F}%2Fpostgres
    mkdir -p "$at"
    # So little CPU may be reserved on a host that the lab needs both.
    cat >"$at/netloom.toml" <<END
data_dir = "$at/data"
run_dir = "$at/run"
hosts = [] # this machine runs no nodes
redis = "unix://$dir/redis.sock"
[endpoints]
scheduler = ["https://$net.1:7611", "https://$net.2:7611"]
image_registry = ["https://$net.1:7612", "https://$net.2:7612"]
[gateway]
listen = "$net.$1:7600"
[scheduler]
listen = "https://$net.$1:7611"
database = "$database/scheduler"
join_listen = "$net.$1:7601"
cpu_overcommit = $(awk -v n="$(nproc)" 'BEGIN { print 0.32 / n }')
[image_registry]
listen = "https://$net.$1:7612"
database = "$database/images"
blobs = "$dir/images"
END
    programs=()
    for program in scheduler image-registry gateway; do
        serve controllers "$at/$program.log" "$bin/netloom-$program" --config "$at/netloom.toml"
        programs+=($!)
    done
    within 30 answers "$1" || die "controller $1 does not answer; see $at/*.log"
}

answers() { "$bin/netloom" --endpoint "unix:$dir/controller$1/run/api.sock" host list; }
stands_by() { grep -q 'this one stands by' "$dir/controller$1/scheduler.log"; }

join_host() { # NAME
    local token
    token=$(json host token | jq -r .token)
    in_ns "$1" "$bin/netloom-host" join "https://$net.1:7601,https://$net.2:7601" - --id "$1" --label "rack=${1#rack}" --config "$dir/$1/netloom.toml" <<<"$token" | sed 's/^/    /'
    serve "$1" "$dir/$1/netloom-host.log" "$bin/netloom-host" --config "$dir/$1/netloom.toml"
}

# --- what is looked at ---

hosts_are() { # STATE COUNT
    [ "$(json host list | jq "[.hosts[] | select(.state == \"HOST_STATE_$1\")] | length")" = "$2" ]
}

in_node() { nl exec "$lab" "$1" -- "${@:2}"; }
node_states() { json inspect "$lab" | jq -r '.nodes[] | "\(.name | split("/")[3]) \(.host | split("/")[-1]) \(.state)"'; }
nodes_on() { node_states | awk -v host="$1" '$2 == host { print $1 }'; }
states_on() { node_states | awk -v host="$1" '$2 == host { print $3 }' | sort -u; }
all_is_well() {
    json inspect "$lab" | jq -e 'all(.nodes[]; .state == "NODE_STATE_READY") and all(.links[]; .state == "LINK_STATE_UP")'
}

# Links that go from one host to another, as "near-node near-interface far-node": near is on this host.
cut_links() { # HOST
    json inspect "$lab" | jq -r --arg host "$1" '
        (.nodes | map({key: (.name | split("/")[3]), value: (.host | split("/")[-1])}) | from_entries) as $on
        | .links[] | [.a, .b] | (., reverse) | select($on[.[0].node] == $host and $on[.[1].node] != $host)
        | "\(.[0].node) \(.[0].interface) \(.[1].node)"'
}

carrier() { in_node "$1" cat "/sys/class/net/$2/carrier"; }

# Does every end on this host of a link to another one have carrier (1), or none (0)?
carriers_are() { # HOST VALUE
    local node interface
    while read -r node interface _; do
        [ "$(carrier "$node" "$interface" </dev/null)" = "$2" ] || return 1
    done < <(cut_links "$1")
}

full() { # NEIGHBOURS ROUTER…: does each of these routers have so many that are Full?
    local router n=$1
    shift
    for router; do
        [ "$(in_node "$router" vtysh -c 'show ip ospf neighbor json' |
            jq '[.neighbors[]?[]? | select(.nbrState | startswith("Full"))] | length')" = "$n" ] || return 1
    done
}

ping_between() { # NODE NODE ADDRESS
    local said
    within 30 in_node "$1" ping -c 1 -W 1 "$3" || die "$1 does not reach $2 ($3)"
    said=$(in_node "$1" ping -c 3 -i 0.2 -W 2 "$3") || die "$1 loses pings to $2 ($3)"
    say "$1 -> $2 ($3): $(sed -n 's/.* \([0-9]*\) received.*/\1 of 3 replies/p' <<<"$said"), $(sed -n 's#.*= [^/]*/\([^/]*\)/.*#\1 ms#p' <<<"$said")"
}

ping_all() {
    ping_between h1 h2 10.2.0.10
    ping_between h1 h3 10.3.0.10
    ping_between h2 h3 10.3.0.10
}

# What must not change while a host is away: each container and its start.
containers() {
    local host
    for host in "${hosts[@]}"; do
        host_docker "$host" ps --all --quiet --no-trunc | sort | while read -r id; do
            host_docker "$host" inspect --format '{{.Name}} {{.Id}} {{.State.StartedAt}}' "$id" </dev/null
        done
    done
}

milliseconds() { date +%s%3N; }

# timed BOUND WHAT COMMAND…: waits, and says how long that took.
timed() {
    local bound=$1 what=$2 begun
    shift 2
    begun=$(milliseconds)
    within "$bound" "$@" || die "not within $bound s: $what"
    say "$what: after $(awk -v ms="$(($(milliseconds) - begun))" 'BEGIN { printf "%.1f", ms / 1000 }') s"
}

is_unknown() { [ "$(states_on "$1")" = NODE_STATE_UNKNOWN ]; }

# What `netloom inspect --watch` tells from now on, between the other lines.
watch() {
    "$bin/netloom" --endpoint "unix:$socket" inspect "$lab" --watch > >(tee "$dir/watch.log" | sed -u 's/^/      | /') 2>&1 &
    watching=$!
    echo "$watching" >>"$dir/pids"
    within 10 told_of READY || die "inspect --watch tells nothing"
}
told_of() { grep -q "$1" "$dir/watch.log"; }

starting=() # pids of what starts hosts beside this
programs=() # pids of the controller that was started last
watching=

up() {
    local host pid far=rack2 before leading
    step "two hosts with Open vSwitch and Docker, a switch between them, PostgreSQL and Redis"
    make_network
    for host in "${hosts[@]}"; do start_host "$host" & starting+=($!); done
    start_postgres
    start_redis
    step "two controllers, each a gateway, a scheduler and an image registry: the first leads, the second is asked"
    start_controller 1
    leading=("${programs[@]}")
    start_controller 2
    timed 10 "controller 2 stands by" stands_by 2
    for pid in "${starting[@]}"; do wait "$pid"; done
    step "the hosts join, each with a token, over TLS"
    for host in "${hosts[@]}"; do join_host "$host"; done
    within 30 hosts_are ONLINE 2 || die "not both hosts are heard of; see $dir/rack*/netloom-host.log"
    nl host list
    step "the plan of $topology: what goes where, and which links go across"
    nl plan -t "$topology"
    step "deploying it"
    nl deploy -t "$topology"
    say "tunnels of rack1, one a link, with the number (VNI) that both hosts know it by:"
    in_ns rack1 ip -d -o link show type vxlan | sed -nE 's/^[0-9]+: ([^:@]+).* vxlan id ([0-9]+) remote ([0-9.]+).*/      \1  VNI \2  to \3/p'
    step "OSPF and pings across both hosts"
    timed 60 "every router has two Full neighbours" full 2 "${routers[@]}"
    ping_all
    before=$(containers)

    step "controller 1, which leads, is killed"
    kill -s KILL "${leading[@]}"
    timed 20 "controller 2 leads, and knows the lab" all_is_well
    start_controller 1
    timed 10 "controller 1 is back, and stands by" stands_by 1

    step "$far is cut off: its cable to the switch is pulled; what inspect --watch tells stands behind |"
    watch
    ip -n "${ns}controllers" link set "$far" down
    timed 10 "its nodes are UNKNOWN" is_unknown "$far"
    timed 10 "ends of its links on rack1 have no carrier" carriers_are rack1 0
    nl host list
    nl inspect "$lab"
    [ "$(states_on rack1)" = NODE_STATE_READY ] || die "nodes of rack1 are not READY"
    [ "$(containers)" = "$before" ] || die "a container was made, removed or started anew"

    step "the cable is plugged again"
    ip -n "${ns}controllers" link set "$far" up
    timed 60 "every node is READY and every link UP" all_is_well
    timed 10 "ends of its links on rack1 have carrier" carriers_are rack1 1
    timed 60 "every router has two Full neighbours" full 2 "${routers[@]}"
    ping_all
    told_of UNKNOWN || die "inspect --watch did not tell that nodes are UNKNOWN"
    stop_pids TERM "$watching"
    [ "$(containers)" = "$before" ] || die "a container was made, removed or started anew"
    say "the same containers as before, none of them started anew"
    nl inspect "$lab"
    if [ -n "$keep" ]; then
        trap - EXIT
        step "done; it runs on"
        cat <<END

    Go on (as root):
      export NETLOOM_ENDPOINT=unix:$socket
      $bin/netloom inspect $lab --watch
      ip -n ${ns}controllers link set $far down     # and up again
      $bin/netloom shell $lab r1                    # vtysh
      nsenter --net=/run/netns/${ns}rack1 bash      # on a host
    Stop, and leave nothing behind:
      make cluster-demo-down
END
        return
    fi
    step "destroying it"
    nl destroy "$lab" --yes
    [ -z "$(containers)" ] || die "containers are left"
    [ -z "$(in_ns rack1 ip -o link show type vxlan; in_ns rack2 ip -o link show type vxlan)" ] || die "tunnels are left"
    say "no container and no tunnel is left on either host"
}

# --- removing ---

# Is this a process of the demo's? Each has a path below $dir among its arguments.
is_ours() { tr '\0' '\n' 2>/dev/null <"/proc/$1/cmdline" | grep -q -F "$dir/"; }
our_pids() { local pid; while read -r pid; do ! is_ours "$pid" || echo "$pid"; done < <(cat "$dir/pids" 2>/dev/null); }
none_of_ours() { [ -z "$(our_pids)" ]; }

# What Docker started and a dockerd that was killed left: containerd, shims, and what runs in their containers.
docker_pids() {
    local process pid name
    for process in /proc/[0-9]*; do
        pid=${process#/proc/}
        name=$(tr '\0' '\n' 2>/dev/null <"$process/cmdline" | head -n 1) || continue
        case ${name##*/} in
            containerd | containerd-shim*) ! is_ours "$pid" || echo "$pid $(cat "$process/task/$pid/children" 2>/dev/null)" ;;
        esac
    done
}
no_docker() { [ -z "$(docker_pids)" ]; }

stop_pids() { # SIGNAL PID…
    local signal=$1 pid
    shift
    for pid; do kill -s "$signal" "$pid" 2>/dev/null || true; done
}

remove_all() {
    local host ids path
    # First those that would bring back what is removed, and after the containers the rest.
    for path in $(our_pids); do
        case $(cat "/proc/$path/comm" 2>/dev/null) in netloom-*) stop_pids TERM "$path" ;; esac
    done
    for host in "${hosts[@]}"; do
        ids=$(host_docker "$host" ps --all --quiet 2>/dev/null) || continue
        # shellcheck disable=SC2086
        [ -z "$ids" ] || host_docker "$host" rm --force $ids >/dev/null || true
    done
    # shellcheck disable=SC2046
    stop_pids TERM $(our_pids)
    if ! within 15 none_of_ours; then
        # shellcheck disable=SC2046
        stop_pids KILL $(our_pids)
        within 5 none_of_ours || die "processes of the demo do not end: $(our_pids)"
    fi
    # shellcheck disable=SC2046
    within 5 no_docker || stop_pids KILL $(docker_pids)
    within 5 no_docker || die "processes of the demo's Docker do not end: $(docker_pids)"
    while path=$(mounts_below "$dir" | tail -n 1) && [ -n "$path" ]; do
        umount --lazy "$path" || die "cannot unmount $path"
    done
    for host in controllers "${hosts[@]}"; do
        [ ! -e "/run/netns/$ns$host" ] || ip netns delete "$ns$host"
    done
    rm -rf "$dir" || die "cannot remove $dir"
    step "nothing is left of the demo: no process, no namespace, and not $dir"
}

finish() {
    local code=$?
    trap - EXIT INT TERM
    if [ "$code" != 0 ] && [ -d "$dir" ]; then
        step "it failed; the last lines of the logs"
        tail -n 5 "$dir"/controller*/*.log "$dir"/rack*/netloom-host.log 2>/dev/null || true
    fi
    step "removing it"
    kill "${starting[@]}" 2>/dev/null || true
    wait "${starting[@]}" 2>/dev/null || true
    remove_all
    exit "$code"
}

# claim SECONDS: whoever has this directory open with a lock has the demo; of one that was killed, its last command for a moment.
claim() {
    mkdir -p "$dir"
    chmod 711 "$dir" # PostgreSQL's user has to come to its own
    exec {lock}<"$dir"
    flock --timeout "$1" "$lock" || die "a demo runs already: end it with Ctrl-C, or wait until it is over"
}

keep=${KEEP:-}
case ${1:-} in
    up)
        step "packages, images and programs (the first time takes some minutes)"
        scripts/deps.sh
        scripts/services.sh
        scripts/images.sh host frr
        cargo build --workspace --bins --locked
        as_root "make network namespaces and run hosts in them" "$repo/scripts/cluster-demo.sh" up-as-root "$bin" "$keep"
        ;;
    up-as-root) # asked for by up, and by a test, in a directory and namespaces of its own
        bin=$2 keep=$3 dir=${4:-$dir} ns=${5:-$ns}
        socket=$dir/controller2/run/api.sock
        claim 0
        [ -z "$(ls -A "$dir")" ] || { step "removing what an earlier one left"; remove_all; claim 0; }
        trap finish EXIT
        trap 'exit 130' INT TERM
        up
        ;;
    down) as_root "remove hosts and their namespaces" "$repo/scripts/cluster-demo.sh" down-as-root ;;
    down-as-root)
        claim 30
        remove_all
        ;;
    *) die "usage: $0 up|down" ;;
esac
