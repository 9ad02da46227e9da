# shellcheck shell=bash
# What a host must have for papr-hook, and the packages that bring it. Part of install.sh.

libvirt=         # its version
libvirt_package= # what brings it
manager=()       # the command that installs packages
download_only=   # its option
refresh=()       # the command that has it look for new packages
packages=()      # to be brought
extras=()        # to be brought where they can be had

check_distribution() {
    local words
    # shellcheck source=/dev/null # it is the host's
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
    for daemon in "${DAEMONS[@]}"; do
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
    stayed="${stayed:-, but packages were brought, which stay:} $*"
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
