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

action=install
hook_only=
dry_run=
root=

hook=         # where the hook goes
conf_is_kept= # somebody changed it
said=()       # for the summary

# shellcheck source=install.d/packages.sh
. "$here/install.d/packages.sh"
# shellcheck source=install.d/transaction.sh
. "$here/install.d/transaction.sh"
# shellcheck source=install.d/gateway.sh
. "$here/install.d/gateway.sh"
# shellcheck source=install.d/daemons.sh
. "$here/install.d/daemons.sh"

usage() {
    cat <<END
usage: $self [--hook-only] [--dry-run] [--root DIR]  install papr-hook, or a newer version over an older one
       $self --uninstall [--dry-run] [--root DIR]    take it away again
       $self --try                                   see what it does, without installing anything

  --hook-only  leave the gateway out: guests that do not comply are refused once, no
               socket of libvirt's is moved, and polkit can ask clients for a password
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

# sample: print the configuration that this version comes with.
sample() {
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$here "$PYTHON" -c \
        'import sys; from papr_hook.config import sample_config; sys.stdout.write(sample_config())'
}

# Whether somebody changed the configuration: it is not what the version that is there came with, nor what this does.
judge_conf() {
    conf_is_kept=
    exists "$root$CONF" || return 0
    ! cmp -s "$root$CONF" "$root$SHARE/papr-hook.conf" || return 0
    ! sample 2>/dev/null | cmp -s "$root$CONF" - || return 0
    conf_is_kept=yes
}

# --- installing ----------------------------------------------------------------------------------

stage_share() {
    make_directory "$root${SHARE%/*}"
    attempt copy_share "$(new "$SHARE")"
    targets+=("$SHARE")
}

copy_share() {
    rm -rf "$1" && mkdir "$1" && cp -R "$here/papr_hook" "$1" &&
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
    [ "$action" != try ] || exec "$here/demo/run"
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
