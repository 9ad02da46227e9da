# shellcheck shell=bash
# Files that come into their places all together, or not at all. Part of install.sh.

targets=() # what is put in place, or taken away, in this order
made=()    # directories that were not there before
moved=()   # targets whose old content is beside them
stayed=    # what a roll-back does not take away
done_with= # nothing is left to roll back

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

# commit: rename everything into place. Nothing interrupts that; where it fails, all of it is taken back.
commit() {
    local target
    trap '' INT TERM HUP
    for target in "${targets[@]}"; do
        rm -rf "$(old "$target")" || fail "nothing has changed"
        attempt set_aside "$target"
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

# set_aside TARGET: keep its old content. A file that gets a new one stays in its place until then, whatever happens.
set_aside() {
    if [ -f "$root$1" ] && [ ! -L "$root$1" ] && exists "$(new "$1")"; then
        ln -T "$root$1" "$(old "$1")"
    elif exists "$root$1"; then
        mv -T "$root$1" "$(old "$1")"
    fi
}

# remove_empty: directories that papr-hook alone had something in.
remove_empty() {
    rmdir "$root$UNITS"/{,papr-hook-gateway@}{virtqemud,libvirtd}.@(socket|service).d "$root${HOOK_IN_DIR%/*}" 2>/dev/null || true
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

interrupted() {
    status=130 fail "interrupted; nothing has changed$stayed"
}
