# shellcheck shell=bash
# Where the gateway comes in front of libvirt's sockets, and what it needs there. Part of install.sh.

UNITS=/usr/lib/systemd/system
SCRIPTS=(papr-hook-upstream papr-hook-gateway) # in /etc/init.d, in the order of their start
MARK='# papr-hook: its gateway is in front'
DAEMONS=(virtqemud libvirtd) # those that serve QEMU guests: the modular one and the monolithic one

gateway=    # whether it is set up
no_gateway= # why it is not
alone=      # the daemon that makes its sockets by itself

# choose_gateway: a tree to package gets it for every host.
choose_gateway() {
    local daemon
    [ -z "$hook_only" ] || return 0
    if [ -n "$root" ]; then
        gateway=yes
    elif systemd_runs; then
        gateway=yes
        for daemon in "${DAEMONS[@]}"; do
            check_socket "$daemon"
        done
    elif [ -x /etc/init.d/libvirtd ]; then
        gateway=yes
        alone=libvirtd
    else
        no_gateway="neither systemd nor /etc/init.d/libvirtd is here to start it by: see papr-hook(8)"
    fi
    [ -z "$alone" ] || check_conf_of "$alone"
}

systemd_runs() {
    [ -d /run/systemd/system ]
}

# check_socket DAEMON: the gateway comes to where libvirt's clients expect a socket, and only there.
check_socket() {
    local found
    if [ "$(property "$1.socket" ActiveState)" != active ] && makes_its_sockets "$1"; then
        alone=$1
        return
    fi
    [ "$(property "$1.socket" LoadState)" = loaded ] || return 0
    found=$(property "$1.socket" Listen | xargs)
    case $found in
    "$(socket_of "$1") (Stream)" | "$(upstream_of "$1") (Stream)") ;;
    *) fail "$1.socket listens at ${found:-nothing}, and not at $(socket_of "$1"): --hook-only leaves the gateway out" ;;
    esac
}

# makes_its_sockets DAEMON: whether it does so now, or did when its gateway was set up.
makes_its_sockets() {
    [ "$(property "$1.service" ActiveState)" = active ] || grep -qs "$MARK" "/etc/libvirt/$1.conf"
}

# check_conf_of DAEMON: without activation it is its own settings that move its sockets.
check_conf_of() {
    ! grep -v "$MARK" "/etc/libvirt/$1.conf" 2>/dev/null | grep -q '^[[:space:]]*unix_sock_dir' ||
        fail "/etc/libvirt/$1.conf sets unix_sock_dir already: --hook-only leaves the gateway out"
}

# property UNIT NAME: what systemd knows of a unit.
property() {
    systemctl show -p "$2" --value "$1" 2>/dev/null
}

# socket_of DAEMON, upstream_of DAEMON: where its clients come, and where its own socket is behind the gateway.
socket_of() {
    case $1 in
    libvirtd) echo /run/libvirt/libvirt-sock ;;
    *) echo "/run/libvirt/$1-sock" ;;
    esac
}

upstream_of() {
    local socket
    socket=$(socket_of "$1")
    echo "${socket%/*}/upstream/${socket##*/}"
}

admin_socket_of() {
    case $1 in
    libvirtd) echo libvirt-admin-sock ;;
    *) echo "$1-admin-sock" ;;
    esac
}

stage_gateway() {
    local unit script
    if [ -z "$root" ] && ! systemd_runs; then
        for script in "${SCRIPTS[@]}"; do
            stage "/etc/init.d/$script" 755 cat "$here/init.d/$script"
        done
    else
        for unit in "$here"/systemd/* "$here"/systemd/*.d/*; do
            case $unit in
            *.d | */papr-hook-"${alone:-none}".socket | */"${alone:-none}".socket.d/*) ;;
            *) stage "$UNITS/${unit#"$here"/systemd/}" 644 unit_text "$unit" ;;
            esac
        done
        if [ -n "$alone" ]; then
            stage "$UNITS/$alone.service.d/papr-hook.conf" 644 daemon_text "$alone"
            stage "$UNITS/papr-hook-gateway@$alone.service.d/papr-hook.conf" 644 listen_text "$alone"
        fi
    fi
    [ -z "$alone" ] || stage_conf_of "$alone" "$(dirname "$(upstream_of "$alone")")"
}

# unit_text FILE: the gateway's sockets have the mode, the owner and the group that the daemon's own have.
unit_text() {
    local name value rules=() daemon=${1##*/papr-hook-}
    daemon=${daemon%.socket}
    if [ -z "$root" ] && [[ $1 == *.socket ]] && [ "$(property "$daemon.socket" LoadState)" = loaded ]; then
        for name in SocketMode SocketUser SocketGroup; do
            value=$(property "$daemon.socket" "$name")
            rules+=(-e "/^$name=/d")
            [ -z "$value" ] || rules+=(-e "/^\[Socket\]/a $name=$value")
        done
        sed "${rules[@]}" "$1"
    else
        cat "$1"
    fi
}

# daemon_text DAEMON: what a daemon without socket activation needs, before it starts and beside it.
daemon_text() {
    local socket name
    socket=$(socket_of "$1")
    cat <<END
# papr-hook's gateway listens where this daemon's socket was, and unix_sock_dir has moved all of them: the others are
# to be found where they were. See papr-hook(8).
[Unit]
Wants=papr-hook-gateway@$1.service

[Service]
# Who comes after it finds its clients' socket there.
ExecStartPost=-/usr/bin/timeout 10 /bin/sh -c 'until [ -S $socket ]; do sleep 0.05; done'
ExecStartPre=/usr/bin/mkdir -p $(dirname "$(upstream_of "$1")")
END
    for name in "${socket##*/}-ro" "$(admin_socket_of "$1")"; do
        echo "ExecStartPre=/usr/bin/ln -sfn upstream/$name ${socket%/*}/$name"
    done
}

# listen_text DAEMON: the gateway makes its socket by itself, with the rights of the daemon's.
listen_text() {
    local socket
    socket=$(socket_of "$1")
    cat <<END
# $1 makes its sockets by itself, and so does the gateway. See papr-hook(8).
[Unit]
PartOf=$1.service
OnFailure=papr-hook-bypass@$1.service

[Service]
# Newer versions of systemd would call each restart a failure.
RestartMode=direct
ExecStartPre=/bin/sh -c 'until [ -S $(upstream_of "$1") ]; do sleep 0.05; done'
ExecStart=
ExecStart=/usr/bin/papr-hook gateway --listen $socket
ExecStopPost=/usr/bin/rm -f $socket
CapabilityBoundingSet=CAP_CHOWN CAP_FOWNER
END
}

# stage_conf_of DAEMON [DIRECTORY]: its settings, with its sockets in a directory, or in their usual place.
stage_conf_of() {
    local file=/etc/libvirt/$1.conf mode=644
    [ ! -e "$root$file" ] || mode=$(stat -c %a "$root$file")
    stage "$file" "$mode" conf_text "$root$file" "${2-}"
}

conf_text() {
    [ ! -e "$1" ] || grep -v "$MARK" "$1" || true
    [ -z "$2" ] || echo "unix_sock_dir = \"$2\" $MARK"
}

# stage_old_conf: settings whose sockets an earlier run moved, and this one does not.
stage_old_conf() {
    local daemon
    for daemon in "${DAEMONS[@]}"; do
        [ "$daemon" != "$alone" ] || [ -z "$gateway" ] || continue
        ! grep -qs "$MARK" "$root/etc/libvirt/$daemon.conf" || stage_conf_of "$daemon"
    done
}

# our_units: print what of the gateway is there.
our_units() {
    local unit
    for unit in "$root$UNITS"/papr-hook-*.@(service|socket) "$root$UNITS"/*.d/papr-hook.conf \
        "${SCRIPTS[@]/#/$root/etc/init.d/}"; do
        ! exists "$unit" || echo "${unit#"$root"}"
    done
}

# is_gated DAEMON: whether units in place put a gateway in front of it.
is_gated() {
    [ -e "$UNITS/papr-hook-$1.socket" ] || [ -e "$UNITS/$1.service.d/papr-hook.conf" ]
}

# remove_upstream: where libvirt's own sockets were behind the gateway.
remove_upstream() {
    rm -rf "$(dirname "$(upstream_of libvirtd)")"
}

say_gateway() {
    local daemon
    if [ -z "$gateway" ]; then
        [ -z "$no_gateway" ] || line "no gateway" "$no_gateway"
        return
    fi
    if [ -z "$root" ] && ! systemd_runs; then
        line "/etc/init.d" "${SCRIPTS[*]}, which start the gateway"
    else
        line "$UNITS" "papr-hook-gateway@.service and its sockets"
    fi
    [ -z "$alone" ] || line "/etc/libvirt/$alone.conf" "unix_sock_dir, for $alone's own sockets"
    for daemon in "${DAEMONS[@]}"; do
        if [ -n "$root" ] || [ "$daemon" = "$alone" ] || [ -n "${active[$daemon]-}" ]; then
            line "$(socket_of "$daemon")" "the gateway's; $daemon's own is in upstream/ there"
            [ -z "$dry_run" ] || ! would_restart "$daemon" ||
                line "$daemon" "would be restarted${dependents[$daemon]:+, and ${dependents[$daemon]} with it}; guests run on"
        fi
    done
}

# would_restart DAEMON: whether it runs, and its socket has yet to move.
would_restart() {
    [ -n "${active[$1]-}" ] && ! listens_at "$(upstream_of "$1")"
}
