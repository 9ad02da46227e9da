#!/bin/bash
# Install papr-hook on a host with libvirt, or uninstall it. install.sh --help says more.
# This script brings what the installer needs, Python above all. The installer, in installer/, changes everything or
# nothing.
set -euo pipefail
umask 022

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
self=${0##*/}

OLDEST_LIBVIRT=3.6.0 # the first with more than one PHB
OLDEST_PYTHON=3.9
PYTHON=/usr/bin/python3 # no other: AppArmor lets a hook of libvirt run what is in /usr/bin
DISK_KIB=8192           # an installation takes a quarter of that

action=install dry_run='' root='' libvirt=''
untested=''                                  # whether the host may be one on which papr-hook is untested
options=()                                   # for the installer
manager=() refresh=() download=''            # the package manager: commands, and the option that only downloads
packages=() extras=() stayed=''              # needed, useful, and what a failure does not undo

usage() {
    cat <<END
usage: $self [--hook-only | --enforcing] [--dry-run] [--root DIR]  install papr-hook, or upgrade it
       $self --uninstall [--dry-run] [--root DIR]  uninstall papr-hook
       $self --try                                 show what papr-hook does, without installing it

  --hook-only  do not enable the gateway: non-compliant guests are refused once, no socket
               of libvirt is moved, and polkit can prompt clients for a password
  --enforcing  enable the gateway although the host enforces SELinux, where it is untested
  --dry-run    print what would be done
  --root DIR   install below DIR for packaging: no checks, no dependencies, no daemon reload
  --try        on Debian: boot a sample guest on a throwaway libvirt host
  --help       print this help

An existing /etc/libvirt/hooks/qemu is kept; papr-hook's hook then goes into qemu.d.
A changed /etc/papr-hook.conf is kept.
END
}

fail() {
    echo "$self: $*" >&2
    exit "${status:-1}"
}

# attempt COMMAND...: run it; if it fails, the last line that it printed is the message.
attempt() {
    local text
    text=$("$@" 2>&1) || fail "${text##*$'\n'}; nothing has changed$stayed"
}

older() {
    [ "$1" != "$2" ] && [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
        --uninstall) action=uninstall ;;
        --try) action=try ;;
        --hook-only) options+=(--hook-only) untested=yes ;;
        --enforcing) untested=yes ;;
        --dry-run) dry_run=yes options+=(--dry-run) ;;
        --root)
            [ -n "${2-}" ] || status=2 fail "--root needs a directory"
            root=$(realpath -m -- "$2")
            shift
            ;;
        --help | -h) usage && exit 0 ;;
        *) status=2 fail "unknown argument '$1'; see $self --help" ;;
        esac
        shift
    done
    if [ "$root" = / ]; then root=; fi
    if [ -n "$root" ]; then options+=(--root "$root"); fi
    case "$action ${options[*]}" in
    "try "?*) status=2 fail "--try takes no other option" ;;
    uninstall*--hook-only*) status=2 fail "--uninstall removes everything: it does not take --hook-only" ;;
    esac
}

# check_selinux: no host that enforces SELinux has run papr-hook yet, and libvirt's clients would depend on it.
check_selinux() {
    if [ -z "$untested" ] && [ "$(cat /sys/fs/selinux/enforce 2>/dev/null)" = 1 ]; then
        fail "this host enforces SELinux, where papr-hook is untested: --hook-only leaves libvirt's socket alone," \
            "--enforcing enables the gateway all the same; nothing has changed"
    fi
}

check_distribution() {
    local words
    # shellcheck source=/dev/null # it is the host's
    words=$(. /etc/os-release 2>/dev/null && echo " ${ID-} ${ID_LIKE-} ") || words=
    case $words in
    *' debian '* | *' ubuntu '*)
        export DEBIAN_FRONTEND=noninteractive
        manager=(apt-get -qq -y -o Dpkg::Use-Pty=0 --no-install-recommends)
        refresh=(apt-get -qq update)
        download=--download-only
        ;;
    *' fedora '* | *' rhel '* | *' centos '*)
        manager=(dnf -q -y)
        refresh=(dnf -q makecache)
        download=--downloadonly
        ;;
    *)
        words=$(echo "$words" | xargs)
        fail "unknown distribution (${words:-no /etc/os-release}): supported are Debian, Ubuntu, Fedora, RHEL and" \
            "derivatives; elsewhere, --root DIR installs into a directory to package"
        ;;
    esac
}

check_libvirt() {
    local daemon text=
    for daemon in virtqemud libvirtd; do
        text=$(PATH=$PATH:/usr/sbin:/sbin command "$daemon" --version 2>/dev/null) && break
    done
    libvirt=$(grep -oE '[0-9]+(\.[0-9]+)+' <<<"$text" | head -n 1) ||
        fail "no libvirt found, neither virtqemud nor libvirtd: install it first"
    if older "$libvirt" "$OLDEST_LIBVIRT"; then
        fail "libvirt $libvirt is too old: $OLDEST_LIBVIRT is the first that gives a guest more than one PHB"
    fi
    options+=(--libvirt "$libvirt")
}

check_python() {
    local version
    [ -e "$PYTHON" ] || [ -L "$PYTHON" ] || return 0
    case $(readlink -f "$PYTHON") in
    /usr/bin/*) ;;
    *) fail "$PYTHON leads out of /usr/bin, to $(readlink -f "$PYTHON"), which libvirt's hooks may not run" ;;
    esac
    version=$("$PYTHON" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
        fail "$PYTHON does not work"
    if older "$version" "$OLDEST_PYTHON"; then
        fail "$PYTHON is Python $version: papr-hook needs $OLDEST_PYTHON or later"
    fi
}

# check_disk: packages are only installed on a host that papr-hook itself can be installed on.
check_disk() {
    local directory free
    for directory in /etc /usr/bin /usr/share /usr/lib; do
        [ -w "$directory" ] || fail "$directory: Read-only file system; nothing has changed"
        free=$(df -k --output=avail "$directory" | tail -n 1)
        [ "$free" -ge "$DISK_KIB" ] || fail "$directory: No space left on device; nothing has changed"
    done
}

find_packages() {
    local module
    [ -x "$PYTHON" ] || packages+=(python3)
    for module in lxml libvirt; do
        imports "$module" || packages+=("python3-$module")
    done
    imports rich || extras+=(python3-rich)
}

imports() {
    "$PYTHON" -I -c "import $1" 2>/dev/null
}

add_packages() {
    local package
    if [ -n "$dry_run" ]; then
        for package in "${packages[@]}" "${extras[@]}"; do
            printf '  %-30s %s\n' "$package" "would be installed with ${manager[0]}"
        done
        return
    fi
    check_disk
    if [ ${#packages[@]} -gt 0 ]; then
        echo "$self: installing ${packages[*]} with ${manager[0]}"
        attempt add "${packages[@]}"
        stayed="; these packages remain installed: ${packages[*]}"
        check_python
    fi
    for package in "${extras[@]}"; do
        add "$package" >/dev/null 2>&1 || echo "$self: $package is not available; only 'papr-hook show' needs it"
    done
}

# add PACKAGE...: install packages. The download can be interrupted, but not what follows.
add() {
    "${manager[@]}" install "$download" "$@" || { "${refresh[@]}" && "${manager[@]}" install "$download" "$@"; } || return
    (trap '' INT TERM HUP && "${manager[@]}" install "$@")
}

main() {
    parse "$@"
    if [ "$action" = try ]; then exec "$here/demo/run"; fi
    [ -n "$root" ] || [ "$(id -u)" -eq 0 ] || fail "must be run as root"
    trap 'status=130 fail "interrupted; nothing has changed$stayed"' INT TERM HUP
    if [ -z "$root" ] && { dpkg-query -S /usr/bin/papr-hook || rpm -qf /usr/bin/papr-hook; } >/dev/null 2>&1; then
        fail "papr-hook is installed as a package: use apt or dnf"
    fi
    check_python
    if [ "$action$root" = install ]; then
        check_selinux
        check_distribution
        check_libvirt
        find_packages
        add_packages
    fi
    if [ ! -x "$PYTHON" ]; then
        [ -n "$dry_run" ] || fail "$PYTHON is missing: install python3 first"
        echo "$self: the rest is only known once these packages are installed"
        exit
    fi
    cd "$here"
    exec "$PYTHON" -EsB -m installer "$action" "${options[@]}" --stayed "$stayed"
}

main "$@"
