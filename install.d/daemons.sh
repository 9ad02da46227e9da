# shellcheck shell=bash
# libvirt's daemons: which run, how they come to run what the files in place say. Part of install.sh.

declare -A active=()     # what runs of each daemon: its units, with systemd
declare -A dependents=() # what else of systemd's runs that needs a daemon
settled=                 # what runs is no longer what ran before

# find_active: which units of libvirt's daemons there are to start again; or which daemon, without systemd.
find_active() {
    local daemon
    [ -z "$root" ] || return 0
    if ! systemd_runs; then
        ! running libvirtd >/dev/null || active[libvirtd]=libvirtd
        return
    fi
    for daemon in "${DAEMONS[@]}"; do
        active[$daemon]=$(active_units "$daemon.service" "$daemon.socket" "$daemon-*.socket")
        [ -z "${active[$daemon]}" ] || find_dependents "$daemon"
    done
}

active_units() {
    systemctl list-units --state=active --plain --no-legend --full "$@" | cut -d ' ' -f 1 | xargs
}

# find_dependents DAEMON: what systemd stops with it, and leaves stopped when it starts again; not the gateway, which
# the daemon's socket starts.
find_dependents() {
    local units=() found i
    read -ra units <<<"${active[$1]}"
    for ((i = 0; i < ${#units[@]}; i++)); do
        for found in $(systemctl show --value -p RequiredBy -p RequisiteOf -p BoundBy -p ConsistsOf "${units[i]}"); do
            [[ " ${units[*]} " == *" $found "* || $found == papr-hook-* ]] || units+=("$found")
        done
    done
    for found in $(active_units "${units[@]}"); do
        [[ " ${active[$1]} " == *" $found "* ]] || dependents[$1]+="${dependents[$1]:+ }$found"
    done
}

# settle: have run what the files in place say: daemons with a gateway in front of them, or without. A daemon whose
# socket moves is restarted, once.
settle() {
    [ -z "$root" ] || return 0
    [ -n "$settled$gateway$(our_units)" ] || [[ " ${targets[*]}" == *@(" $UNITS/"|" /etc/init.d/")* ]] || return 0
    settled=yes
    if systemd_runs; then
        settle_systemd
    else
        settle_script
    fi
    [ -n "$(our_units)" ] || remove_upstream
}

settle_systemd() {
    local daemon
    attempt systemctl daemon-reload
    systemctl reset-failed 'papr-hook-*' 2>/dev/null || true
    [ -e "$UNITS/papr-hook-gateway@.service" ] || systemctl stop 'papr-hook-gateway@*' 2>/dev/null || true
    for daemon in "${DAEMONS[@]}"; do
        if [ ! -e "$UNITS/papr-hook-$daemon.socket" ]; then
            systemctl stop "papr-hook-$daemon.socket" 2>/dev/null || true
        fi
        if [[ " ${active[$daemon]-} " == *" $daemon."@(socket|service)" "* ]]; then
            settle_daemon "$daemon"
        fi
    done
}

# settle_script: without systemd, it is scripts that start and stop the two. Those that are taken away are at hand here.
# A gateway that is started before its daemon waits for it.
settle_script() {
    local script scripts=/etc/init.d gated=
    [ ! -e "$scripts/papr-hook-gateway" ] || gated=yes
    at_boot "$([ -n "$gated" ] && echo defaults || echo remove)"
    if [ -n "$gated" ] && listens_at "$(upstream_of libvirtd)"; then
        attempt run_script "$scripts/papr-hook-gateway" restart
    else
        attempt run_script "$here/init.d/papr-hook-gateway" stop
        [ -z "${active[libvirtd]-}" ] || attempt run_script "$scripts/libvirtd" stop
        for script in ${gated:+papr-hook-upstream} ${active[libvirtd]-} ${gated:+papr-hook-gateway}; do
            attempt run_script "$scripts/$script" start
        done
        [ -z "${active[libvirtd]-}" ] || said+=("libvirtd|was restarted; the guests ran on")
    fi
    [ -z "${active[libvirtd]-}" ] || attempt answers libvirtd
}

# run_script SCRIPT ACTION: away from the terminal, whose interrupts are ignored here: what a script starts is not to
# ignore them for ever.
run_script() {
    setsid -w env --default-signal=HUP,INT,TERM "$@"
}

at_boot() {
    local script
    command -v update-rc.d >/dev/null || return 0
    for script in "${SCRIPTS[@]}"; do
        attempt update-rc.d "$script" "$1"
    done
}

# settle_daemon DAEMON: where its socket is in its place already, it goes on, and so do its clients.
settle_daemon() {
    local units=() place
    read -ra units <<<"${active[$1]} ${dependents[$1]-}"
    place=$(socket_of "$1")
    ! is_gated "$1" || place=$(upstream_of "$1")
    if listens_at "$place" && ! has_changed "$UNITS/papr-hook-$1.socket" &&
        ! has_changed "$UNITS/$1.service.d/papr-hook.conf"; then
        ! is_gated "$1" || attempt systemctl restart "papr-hook-gateway@$1.service"
    else
        attempt restart "$1" "${units[@]}"
        said+=("$1|was restarted${dependents[$1]:+, and ${dependents[$1]} with it}; the guests ran on")
    fi
    attempt answers "$1"
}

# restart DAEMON UNIT...: in two steps, since a socket does not start while its service runs. Who installs and
# uninstalls often is not to meet a limit on starts.
restart() {
    local daemon=$1
    shift
    systemctl stop "$@" 2>/dev/null
    systemctl reset-failed "$@" 2>/dev/null || true # systemd has forgotten a unit that nothing else needs
    systemctl start "$@" 2>/dev/null || {
        echo "$daemon does not come back (see journalctl -u $daemon)"
        return 1
    }
}

# has_changed TARGET: whether this run put something else in its place.
has_changed() {
    { exists "$1" || exists "$(old "$1")"; } && ! cmp -s "$1" "$(old "$1")"
}

# listens_at PATH: whether a socket there takes clients (proc(5): the flag is that of listen(2)). A container may have
# one of that path, and the host's network.
listens_at() {
    [ -S "$1" ] && grep -qE "^[^ ]+ [^ ]+ [^ ]+ 00010000 .* $1\$" /proc/net/unix
}

# answers DAEMON: whether it answers a client's first call, where clients come; as far as a Python can tell.
# shellcheck disable=SC2016 # Python's
answers() {
    local socket log
    "$PYTHON" -I -c '' 2>/dev/null || return 0
    socket=$(socket_of "$1")
    timeout 60 "$PYTHON" -I -c '
import socket, struct, sys, time
for _ in range(100):
    one = socket.socket(socket.AF_UNIX)
    if not one.connect_ex(sys.argv[1]):
        break
    time.sleep(0.1)
one.sendall(struct.pack(">7I", 28, 0x20008086, 1, 66, 0, 0, 0))  # REMOTE_PROC_AUTH_LIST
sys.exit(len(one.recv(28)) < 28)
' "$socket" 2>/dev/null || {
        systemd_runs && log="journalctl -t papr-hook -u $1" || log=/var/log/syslog
        echo "$1 does not answer at $socket (see $log)"
        return 1
    }
}

# tell_daemons: libvirt looks for hooks when it starts, and when it is told to. One that sleeps will start.
tell_daemons() {
    local daemon pid
    [ -z "$root" ] || return 0
    for daemon in "${DAEMONS[@]}"; do
        [[ " ${said[*]}" != *" $daemon|was restarted"* ]] || continue
        pid=$(running "$daemon") || continue
        if systemctl reload "$daemon.service" 2>/dev/null || kill -HUP "$pid" 2>/dev/null; then
            said+=("$daemon|was told to look for its hooks again")
        else
            said+=("$daemon|runs, and has yet to be told: systemctl reload $daemon")
        fi
    done
}

# running DAEMON: print the process id, unless it runs in a container.
running() {
    local exe
    for exe in /proc/[0-9]*/exe; do
        case $(readlink "$exe" 2>/dev/null) in
        */"$1" | */"$1 (deleted)")
            [ "$(readlink "${exe%exe}ns/pid")" = "$(readlink /proc/self/ns/pid)" ] || continue
            exe=${exe#/proc/}
            echo "${exe%/exe}"
            return 0
            ;;
        esac
    done
    return 1
}
