#!/bin/bash
# Install papr-hook onto a host that has libvirt, or take it away again. install.sh --help says more.
#
# Everything is staged beside its place first, and only renamed into place when all of it is there.
# So whatever fails, or interrupts it, leaves the host as it was.
set -euo pipefail
shopt -s extglob nullglob
umask 022

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
self=${0##*/}

OLDEST_LIBVIRT=3.6.0   # the first with more than one PHB
HOOK_DIR_LIBVIRT=6.5.0 # the first that runs hooks/qemu.d
OLDEST_PYTHON=3.9
PYTHON=/usr/bin/python3 # no other: AppArmor lets a hook of libvirt run what is in /usr/bin

SHARE=/usr/share/papr-hook
COMMAND=/usr/bin/papr-hook
MAN=/usr/share/man
CONF=/etc/papr-hook.conf
HOOK=/etc/libvirt/hooks/qemu
# Last among the scripts there: what it says of a refused start is what libvirt then tells the client.
HOOK_IN_DIR=/etc/libvirt/hooks/qemu.d/90-papr-hook
NOTES=/run/libvirt/papr-hook
UNITS=/usr/lib/systemd/system
SCRIPT=/etc/init.d/papr-hook-gateway
MARK='# papr-hook: its gateway is in front'
DAEMONS=(virtqemud libvirtd) # those that serve QEMU guests: the modular one and the monolithic one

action=install
hook_only=
dry_run=
root=

hook=          # where the hook goes
gateway=       # whether it is set up
no_gateway=    # why it is not
conf_is_kept=  # somebody changed it
libvirt=       # its version
manager=()     # the command that installs packages
download_only= # its option
refresh=()     # the command that has it look for new packages
libvirt_package=
packages=()    # to be brought
extras=()      # to be brought where they can be had
targets=()     # what is put in place, or taken away, in this order
made=()        # directories that were not there before
moved=()       # targets whose old content is beside them
stayed=        # what a roll-back does not take away
declare -A active=() # the units of each daemon that are active
alone=         # the daemon that makes its sockets by itself
settled=       # what runs is no longer what ran before
done_with=     # nothing is left to roll back
said=()        # for the summary

usage() {
    cat <<END
usage: $self [--hook-only] [--dry-run] [--root DIR]  install papr-hook, or a newer version over an older one
       $self --uninstall [--dry-run] [--root DIR]    take it away again
       $self --try                                   see what it does, without installing anything

  --hook-only  leave the gateway out: guests that do not comply are refused once, and
               no socket of libvirt's is moved
  --dry-run    say what would be done, and do nothing
  --root DIR   put the files below DIR, for a package: nothing is checked, brought or told there
  --try        on Debian: boot a sample guest on a throwaway libvirt host, which is removed again
  --help       print this

Where somebody else's $HOOK is, it stays, and papr-hook's goes into
${HOOK_IN_DIR%/*}. A changed $CONF is kept.
END
}

fail() {
    echo "$self: $*" >&2
    exit "${status:-1}"
}

# attempt COMMAND...: run it; where it fails, the last line that it printed is the message.
attempt() {
    local text
    text=$("$@" 2>&1) || {
        text=${text##*$'\n'}
        text=${text:-"$* failed"}
        fail "${text#*: line +([0-9]): }; nothing has changed$stayed"
    }
}

# older A B: whether version A comes before B.
older() {
    [ "$1" != "$2" ] && [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

exists() {
    [ -e "$1" ] || [ -L "$1" ]
}

# --- what is asked for ---------------------------------------------------------------------------

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
        --uninstall) action=uninstall ;;
        --hook-only) hook_only=yes ;;
        --try) action=try ;;
        --dry-run) dry_run=yes ;;
        --root)
            [ $# -gt 1 ] || status=2 fail "--root needs a directory"
            [ -n "$2" ] || status=2 fail "--root needs a directory"
            root=$(realpath -m -- "$2")
            [ "$root" != / ] || root=
            shift
            ;;
        --help | -h)
            usage
            exit 0
            ;;
        *) status=2 fail "unknown argument '$1'; see $self --help" ;;
        esac
        shift
    done
    [ "$action" != try ] || [ -z "$dry_run$root$hook_only" ] || status=2 fail "--try goes with no other option"
    [ "$action" != uninstall ] || [ -z "$hook_only" ] || status=2 fail "--uninstall takes all of it away"
}

# --- what there is -------------------------------------------------------------------------------

# A tree of one's own needs no root; a host's /etc/libvirt may not even be read without.
check_user() {
    [ -n "$root" ] || [ "$(id -u)" -eq 0 ] || fail "needs root, to read and write what is libvirt's"
}

check_distribution() {
    local words
    # shellcheck disable=SC1091 # which file that is depends on the host
    words=$(. /etc/os-release 2>/dev/null && echo " ${ID-} ${ID_LIKE-} ") || words=
    case $words in
    *' debian '* | *' ubuntu '*)
        libvirt_package='libvirt-daemon-system'
        export DEBIAN_FRONTEND=noninteractive
        manager=(apt-get -qq -y -o Dpkg::Use-Pty=0 --no-install-recommends)
        download_only=--download-only
        refresh=(apt-get -qq update)
        ;;
    *' fedora '* | *' rhel '* | *' centos '*)
        libvirt_package='libvirt-daemon-kvm'
        manager=(dnf -q -y)
        download_only=--downloadonly
        refresh=(dnf -q makecache)
        ;;
    *)
        words=$(echo "$words" | xargs)
        fail "unknown distribution (${words:-no /etc/os-release}): it knows Debian, Ubuntu, Fedora, RHEL and" \
            "their kin; elsewhere --root DIR makes a tree to package"
        ;;
    esac
}

check_libvirt() {
    local daemon text=
    for daemon in virtqemud libvirtd; do
        text=$(PATH=$PATH:/usr/sbin:/sbin command "$daemon" --version 2>/dev/null) && break
    done
    libvirt=$(grep -oE '[0-9]+(\.[0-9]+)+' <<<"$text" | head -n 1) ||
        fail "no libvirt here, neither virtqemud nor libvirtd: install it first (package $libvirt_package)"
    ! older "$libvirt" "$OLDEST_LIBVIRT" ||
        fail "libvirt $libvirt is too old: $OLDEST_LIBVIRT is the first that gives a guest more than one PHB"
}

# A python3 that is not there yet comes with the packages; one that is no good will not get better.
check_python() {
    local version
    exists "$PYTHON" || return 0
    case $(readlink -f "$PYTHON") in
    /usr/bin/*) ;;
    *) fail "$PYTHON leads out of /usr/bin, to $(readlink -f "$PYTHON"), which libvirt's hooks may not run" ;;
    esac
    version=$("$PYTHON" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
        fail "$PYTHON does not work"
    ! older "$version" "$OLDEST_PYTHON" || fail "$PYTHON is Python $version: it needs $OLDEST_PYTHON or later"
}

# Which packages hold what cannot be imported. The hook does without the extras, and RHEL without rich.
find_packages() {
    local module
    exists "$PYTHON" || packages+=(python3)
    for module in lxml libvirt; do
        imports "$module" || packages+=("python3-$module")
    done
    imports rich || extras+=(python3-rich)
}

imports() {
    "$PYTHON" -I -c "import $1" 2>/dev/null
}

# is_ours FILE: whether a hook is papr-hook's, of any version.
is_ours() {
    [ -f "$1" ] && sed -n '2{/^# papr-hook/p;q}' "$1" | grep -q .
}

choose_hook() {
    hook=$HOOK
    if exists "$root$HOOK" && ! is_ours "$root$HOOK"; then
        hook=$HOOK_IN_DIR
        [ -z "$libvirt" ] || ! older "$libvirt" "$HOOK_DIR_LIBVIRT" ||
            fail "$HOOK is somebody else's, and libvirt $libvirt runs no other: take it away first, or bring libvirt" \
                "$HOOK_DIR_LIBVIRT or later, which runs those in ${HOOK_IN_DIR%/*} too"
    fi
}

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

# sample: print the configuration that this version comes with.
sample() {
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$here "$PYTHON" -c \
        'import sys; from papr_hook import policy; sys.stdout.write(policy.sample())'
}

# Whether somebody changed the configuration: it is not what the version that is there came with, nor what this does.
judge_conf() {
    conf_is_kept=
    exists "$root$CONF" || return 0
    ! cmp -s "$root$CONF" "$root$SHARE/papr-hook.conf" || return 0
    ! sample 2>/dev/null | cmp -s "$root$CONF" - || return 0
    conf_is_kept=yes
}

# --- the transaction -----------------------------------------------------------------------------

# new TARGET, old TARGET: where its new content is staged, and its old one kept, on the same file system.
# Not in qemu.d, where libvirt would run them.
new() { beside "$1" new; }
old() { beside "$1" old; }
beside() {
    case $1 in
    "$HOOK_IN_DIR") echo "$root${HOOK%/*}/.${1##*/}.$2" ;;
    *) echo "$root${1%/*}/.${1##*/}.papr-$2" ;;
    esac
}

# make_directory PATH: with its parents; those that are new go again with a roll-back.
make_directory() {
    [ -d "$1" ] || {
        make_directory "$(dirname "$1")"
        attempt mkdir "$1"
        made+=("$1")
    }
}

# stage TARGET MODE COMMAND...: make the new content of a target, a file, of what a command prints.
stage() {
    local target=$1 mode=$2
    shift 2
    targets+=("$target")
    make_directory "$root${target%/*}"
    attempt write "$(new "$target")" "$mode" "$@"
}

write() {
    local file=$1 mode=$2
    shift 2
    rm -f "$file" && "$@" >"$file" && chmod "$mode" "$file"
}

stage_share() {
    make_directory "$root${SHARE%/*}"
    attempt copy_share "$(new "$SHARE")"
    targets+=("$SHARE")
}

copy_share() {
    rm -rf "$1" && mkdir "$1" && cp -R "$here/papr_hook" "$1" && rm -rf "$1/papr_hook/trial" &&
        find "$1" -name __pycache__ -prune -exec rm -rf {} + && chmod -R u=rwX,go=rX "$1"
}

command_text() {
    cat <<END
#!$PYTHON
"""The papr-hook command; its modules are in $SHARE."""
import sys

sys.path[0] = "$SHARE"

from papr_hook.cli import run

run()
END
}

stage_man() {
    local page target
    for page in "$here"/man/papr-hook*.[158]; do
        stage "$MAN/man${page##*.}/${page##*/}" 644 cat "$page"
    done
    # Pages that only an older version has.
    for page in "$root$MAN"/man[158]/papr-hook*; do
        target=${page#"$root"}
        exists "$(new "$target")" || targets+=("$target")
    done
}

stage_gateway() {
    local unit
    if [ -z "$root" ] && ! systemd_runs; then
        stage "$SCRIPT" 755 cat "$here/init.d/papr-hook-gateway"
    else
        for unit in "$here"/systemd/* "$here"/systemd/*.d/*; do
            case $unit in
            *.d | */papr-hook-"${alone:-none}".socket | */"${alone:-none}".socket.d/*) ;;
            *) stage "$UNITS/${unit#"$here"/systemd/}" 644 unit_text "$unit" ;;
            esac
        done
        if [ -n "$alone" ]; then
            stage "$UNITS/$alone.service.d/papr-hook.conf" 644 daemon_text "$alone"
            stage "$UNITS/papr-hook-gateway.service.d/papr-hook.conf" 644 listen_text "$alone"
        fi
    fi
    [ -z "$alone" ] || stage_conf_of "$alone" "$(dirname "$(upstream_of "$alone")")"
}

# daemon_text DAEMON: what a daemon without socket activation needs, before it starts and beside it.
daemon_text() {
    local socket name
    socket=$(socket_of "$1")
    cat <<END
# papr-hook's gateway listens where this daemon's socket was, and unix_sock_dir has moved all of them: the others are
# to be found where they were. See papr-hook(8).
[Unit]
Wants=papr-hook-gateway.service

[Service]
# Who comes after it finds its clients' socket there.
ExecStartPost=-/usr/bin/timeout 10 /bin/sh -c 'until [ -S $socket ]; do sleep 0.05; done'
ExecStartPre=/usr/bin/mkdir -p $(dirname "$(upstream_of "$1")")
END
    for name in "${socket##*/}-ro" "$(admin_socket_of "$1")"; do
        echo "ExecStartPre=/usr/bin/ln -sfn upstream/$name ${socket%/*}/$name"
    done
}

admin_socket_of() {
    case $1 in
    libvirtd) echo libvirt-admin-sock ;;
    *) echo "$1-admin-sock" ;;
    esac
}

# listen_text DAEMON: the gateway makes its socket by itself, with the rights of the daemon's.
listen_text() {
    local socket
    socket=$(socket_of "$1")
    cat <<END
# $1 makes its sockets by itself, and so does the gateway. See papr-hook(8).
[Unit]
PartOf=$1.service
OnFailure=papr-hook-bypass@${socket##*/}.service

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

# our_units: print what of the gateway is there.
our_units() {
    local unit
    for unit in "$root$UNITS"/papr-hook-*.@(service|socket) "$root$UNITS"/*.d/papr-hook.conf "$root$SCRIPT"; do
        ! exists "$unit" || echo "${unit#"$root"}"
    done
}

# commit: rename everything into place. Nothing interrupts that; where it fails, all of it is taken back.
commit() {
    local target
    trap '' INT TERM HUP
    for target in "${targets[@]}"; do
        rm -rf "$(old "$target")" || fail "nothing has changed"
        if exists "$root$target"; then
            attempt mv -T "$root$target" "$(old "$target")"
        fi
        moved+=("$target")
        if exists "$(new "$target")"; then
            attempt mv -T "$(new "$target")" "$root$target"
        fi
    done
    settle
    done_with=yes
    remove_staged
    remove_empty
}

# remove_empty: directories that papr-hook alone had something in.
remove_empty() {
    rmdir "$root$UNITS"/{{virtqemud,libvirtd}.{socket,service},papr-hook-gateway.service}.d "$root${HOOK_IN_DIR%/*}" 2>/dev/null || true
}

# roll_back: whatever was done, undo it; whatever was staged, remove it. What runs when the script ends.
roll_back() {
    local target i
    [ -z "$done_with" ] || return 0
    trap '' INT TERM HUP
    for target in "${moved[@]}"; do
        rm -rf "$root${target:?}"
        ! exists "$(old "$target")" || mv -T "$(old "$target")" "$root$target"
    done
    remove_staged
    [ -z "$settled" ] || (settle) >/dev/null 2>&1 || true
    for ((i = ${#made[@]} - 1; i >= 0; i--)); do
        rmdir "${made[i]}" 2>/dev/null || true
    done
}

# remove_staged: what this run staged, or an earlier one that was killed.
remove_staged() {
    local target
    for target in "$SHARE" "$COMMAND" "$CONF" "$HOOK" "$HOOK_IN_DIR" "${targets[@]}"; do
        rm -rf "$(new "$target")" "$(old "$target")"
    done
    rm -rf "$root$UNITS"/{,*.d/}.papr-hook*.papr-@(new|old)
}

# --- what runs -----------------------------------------------------------------------------------

# find_active: which units of libvirt's daemons there are to start again.
find_active() {
    local daemon
    [ -z "$root" ] && systemd_runs || return 0
    for daemon in "${DAEMONS[@]}"; do
        active[$daemon]=$(systemctl list-units --state=active --plain --no-legend --full \
            "$daemon.service" "$daemon.socket" "$daemon-*.socket" | cut -d ' ' -f 1 | xargs)
    done
}

# settle: have run what the files in place say: daemons with a gateway in front of them, or without. A daemon whose
# socket moves is restarted, once.
settle() {
    [ -z "$root" ] || return 0
    [ -n "$settled$gateway$(our_units)" ] || [[ " ${targets[*]}" == *@(" $UNITS/"|" $SCRIPT")* ]] || return 0
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
    systemctl reset-failed papr-hook-gateway.service 2>/dev/null || true
    [ -e "$UNITS/papr-hook-gateway.service" ] || systemctl stop papr-hook-gateway.service 2>/dev/null || true
    for daemon in "${DAEMONS[@]}"; do
        if [ ! -e "$UNITS/papr-hook-$daemon.socket" ]; then
            systemctl stop "papr-hook-$daemon.socket" 2>/dev/null || true
        fi
        if [[ " ${active[$daemon]-} " == *" $daemon."@(socket|service)" "* ]]; then
            settle_daemon "$daemon"
        fi
    done
}

# settle_script: without systemd, it is scripts that start and stop the two.
settle_script() {
    local place gateway=$SCRIPT
    if [ -e "$SCRIPT" ]; then
        place=$(upstream_of libvirtd)
        at_boot defaults
    else
        place=$(socket_of libvirtd)
        gateway=$(old "$SCRIPT")
        at_boot remove
    fi
    running libvirtd >/dev/null || return 0
    if listens_at "$place"; then
        attempt "$SCRIPT" restart
    else
        attempt "$gateway" stop
        attempt /etc/init.d/libvirtd stop
        [ ! -e "$SCRIPT" ] || attempt "$SCRIPT" start
        attempt /etc/init.d/libvirtd start
        said+=("libvirtd|was restarted; the guests ran on")
    fi
    attempt answers libvirtd
}

at_boot() {
    ! command -v update-rc.d >/dev/null || attempt update-rc.d papr-hook-gateway "$1"
}

# remove_upstream: where libvirt's own sockets were behind the gateway.
remove_upstream() {
    rm -rf "$(dirname "$(upstream_of libvirtd)")"
}

# settle_daemon DAEMON: where its socket is in its place already, it goes on, and so do its clients.
settle_daemon() {
    local units=() place
    read -ra units <<<"${active[$1]}"
    place=$(socket_of "$1")
    ! is_gated "$1" || place=$(upstream_of "$1")
    if listens_at "$place" && ! has_changed "$UNITS/papr-hook-$1.socket" &&
        ! has_changed "$UNITS/$1.service.d/papr-hook.conf"; then
        ! is_gated "$1" || attempt systemctl try-restart papr-hook-gateway.service
    else
        attempt restart "$1" "${units[@]}"
        said+=("$1|was restarted; the guests ran on")
    fi
    attempt answers "$1"
}

# is_gated DAEMON: whether units in place put a gateway in front of it.
is_gated() {
    [ -e "$UNITS/papr-hook-$1.socket" ] || [ -e "$UNITS/$1.service.d/papr-hook.conf" ]
}

# restart DAEMON UNIT...: in two steps, since a socket does not start while its service runs. Who installs and
# uninstalls often is not to meet a limit on starts.
restart() {
    local daemon=$1
    shift
    { systemctl stop "$@" && systemctl reset-failed "$@" && systemctl start "$@"; } 2>/dev/null || {
        echo "$daemon does not come back (see journalctl -u $daemon)"
        return 1
    }
}

# listens_at PATH: whether a socket there takes clients (proc(5): the flag is that of listen(2)).
listens_at() {
    grep -qE "^[^ ]+ [^ ]+ [^ ]+ 00010000 .* $1\$" /proc/net/unix
}

# has_changed TARGET: whether this run put something else in its place.
has_changed() {
    { exists "$1" || exists "$(old "$1")"; } && ! cmp -s "$1" "$(old "$1")"
}

# answers DAEMON: whether it answers a client's first call, where clients come; as far as a Python can tell.
# shellcheck disable=SC2016 # Python's
answers() {
    local socket
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
        echo "$1 does not answer at $socket (see journalctl -t papr-hook -u $1)"
        return 1
    }
}

interrupted() {
    status=130 fail "interrupted; nothing has changed$stayed"
}

# --- installing ----------------------------------------------------------------------------------

bring_packages() {
    local extra
    [ ${#packages[@]} -eq 0 ] && [ ${#extras[@]} -eq 0 ] ||
        echo "$self: bringing ${packages[*]} ${extras[*]} with ${manager[0]}"
    if [ ${#packages[@]} -gt 0 ]; then
        attempt bring "${packages[@]}"
        brought "${packages[@]}"
        check_python
    fi
    for extra in "${extras[@]}"; do
        if bring "$extra" >/dev/null 2>&1; then
            brought "$extra"
        else
            said+=("$extra|is not to be had here: 'papr-hook show' needs it, nothing else does")
        fi
    done
}

brought() {
    said+=("$*|brought with ${manager[0]}")
    stayed=", but packages were brought, which stay: $*"
}

# bring PACKAGE...: install packages. The download can be interrupted, what follows not.
bring() {
    fetch "$@" || { "${refresh[@]}" && fetch "$@"; } || return
    (
        trap '' INT TERM HUP
        "${manager[@]}" install "$@"
    )
}

fetch() {
    "${manager[@]}" install "$download_only" "$@"
}

stage_all() {
    stage_share
    stage "$COMMAND" 755 command_text
    stage_man
    stage "$hook" 755 cat "$here/hooks/qemu"
    [ -z "$gateway" ] || stage_gateway
    stage_old_conf
}

# finish_staging: what needs Python, which may have come with the packages.
finish_staging() {
    attempt write "$(new "$SHARE")/papr-hook.conf" 644 sample
    if [ -z "$conf_is_kept" ]; then
        targets=("$CONF" "${targets[@]}")
        make_directory "$root/etc"
        attempt cp "$(new "$SHARE")/papr-hook.conf" "$(new "$CONF")"
    fi
    # A package's own tools compile it for the Python that it will meet.
    [ -n "$root" ] || attempt "$PYTHON" -I -m compileall -q -d "$SHARE/papr_hook" "$(new "$SHARE")/papr_hook"
}

# retire: what is to be where it belongs, and where an earlier version had it no longer.
retire() {
    local other
    for other in "$HOOK" "$HOOK_IN_DIR"; do
        [ "$other" = "$hook" ] || ! is_ours "$root$other" || targets+=("$other")
    done
    for other in $(our_units); do
        exists "$(new "$other")" || targets+=("$other")
    done
}

relabel() {
    [ -n "$root" ] || ! command -v restorecon >/dev/null || restorecon -R "${targets[@]}" 2>/dev/null || true
}

install_all() {
    check_user
    if [ -z "$root" ]; then
        check_distribution
        check_libvirt
        check_python
        find_packages
    fi
    choose_hook
    choose_gateway
    judge_conf
    find_active
    [ -z "$dry_run" ] || return 0
    remove_staged
    stage_all
    bring_packages
    finish_staging
    retire
    commit
    relabel
    tell_daemons
}

# --- uninstalling --------------------------------------------------------------------------------

find_installed() {
    local target page
    judge_conf
    for target in "$HOOK" "$HOOK_IN_DIR"; do
        ! is_ours "$root$target" || targets+=("$target")
    done
    for target in "$COMMAND" "$SHARE"; do
        ! exists "$root$target" || targets+=("$target")
    done
    for page in "$root$MAN"/man[158]/papr-hook*; do
        targets+=("${page#"$root"}")
    done
    for target in $(our_units); do
        targets+=("$target")
    done
    [ -n "$conf_is_kept" ] || ! exists "$root$CONF" || targets+=("$CONF")
}

uninstall_all() {
    check_user
    find_installed
    find_active
    [ -z "$dry_run" ] || return 0
    remove_staged
    stage_old_conf
    [ ${#targets[@]} -gt 0 ] || return 0
    commit
    [ -n "$root" ] || rm -rf "$NOTES"
    tell_daemons
}

# --- libvirt -------------------------------------------------------------------------------------

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

# --- what it says --------------------------------------------------------------------------------

version() {
    sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$here/papr_hook/__init__.py"
}

line() {
    printf '  %-30s %s\n' "$1" "$2"
}

pages() {
    local page names=()
    for page in "$here"/man/papr-hook*.[158]; do
        names+=("${page##*/}")
    done
    echo "${names[*]}"
}

say_installed() {
    local entry would=is
    [ -z "$dry_run" ] || would="would be"
    echo "papr-hook $(version) $would installed${root:+ below $root}:"
    line "$SHARE" "its modules"
    line "$COMMAND" "the command"
    line "$hook" "libvirt's hook$([ "$hook" = "$HOOK" ] || echo ", after the $HOOK that is there")"
    say_gateway
    line "$MAN" "manual pages: $(pages)"
    line "$CONF" "the settings$([ -z "$conf_is_kept" ] || echo ": kept as they are")"
    for entry in "${packages[@]}" "${extras[@]}"; do
        [ -z "$dry_run" ] || line "$entry" "would be brought with ${manager[0]}"
    done
    for entry in "${said[@]}"; do
        line "${entry%%|*}" "${entry#*|}"
    done
    [ -z "$root$dry_run" ] || return 0
    echo "Guests that run are left alone. A pseries guest whose layout is not PAPR's is"
    if [ -n "$gateway" ]; then
        echo "laid out when it is defined, created or started. 'papr-hook adopt' lays out all now."
    else
        echo "refused at its next cold start, with the reason, and laid out: it starts when"
        echo "started again. 'papr-hook adopt' lays out all guests now."
    fi
}

say_gateway() {
    local daemon
    if [ -z "$gateway" ]; then
        [ -z "$no_gateway" ] || line "no gateway" "$no_gateway"
        return
    fi
    if [ -z "$root" ] && ! systemd_runs; then
        line "$SCRIPT" "starts the gateway"
    else
        line "$UNITS" "papr-hook-gateway.service and its sockets"
    fi
    [ -z "$alone" ] || line "/etc/libvirt/$alone.conf" "unix_sock_dir, for $alone's own sockets"
    for daemon in "${DAEMONS[@]}"; do
        if [ -n "$root" ] || [ "$daemon" = "$alone" ] || [ -n "${active[$daemon]-}" ]; then
            line "$(socket_of "$daemon")" "the gateway's; $daemon's own is in upstream/ there"
            [ -z "$dry_run" ] || listens_at "$(upstream_of "$daemon")" ||
                line "$daemon" "would be restarted; guests run on"
        fi
    done
}

say_uninstalled() {
    local entry would=is
    [ -z "$dry_run" ] || would="would be"
    if [ ${#targets[@]} -eq 0 ]; then
        echo "papr-hook is not installed${root:+ below $root}: nothing to do"
    else
        echo "papr-hook $would uninstalled${root:+ below $root}; gone:"
        for entry in "${targets[@]}"; do
            [[ $entry == /etc/libvirt/*.conf ]] || echo "  $entry"
        done
        for entry in "${said[@]}"; do
            line "${entry%%|*}" "${entry#*|}"
        done
    fi
    [ -z "$conf_is_kept" ] || echo "$CONF was changed by somebody, and is kept."
}

main() {
    parse "$@"
    [ "$action" != try ] || exec "$here/papr_hook/trial/run"
    trap roll_back EXIT
    trap interrupted INT TERM HUP
    if [ "$action" = install ]; then
        install_all
        say_installed
    else
        uninstall_all
        say_uninstalled
    fi
    done_with=yes
}

main "$@"
