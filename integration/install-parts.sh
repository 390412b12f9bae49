#!/bin/sh
# Installs the servers and tools that the integration tests and the demo run on: Debian 12's own packages, and
# only those that are missing. Nothing is started, and nothing starts at the next boot because of it.
set -eu

# containerd, runc, containernetworking-plugins: what runs containers; busybox-static: what runs in them.
# docker-registry, notary (server, signer and client): where images and signatures are.
# etcd-server, etcd-client: the store that nodes share, and who looks into it.
# openssl: computes key IDs independently of us. mount, util-linux: umount and setpriv, for the teardown.
# systemd: says what the unit leaves open (systemd-analyze); nothing of it is started.
# gcc, libc6-dev, protobuf-compiler: needed to build, by dependencies with C code or protobuf files.
PARTS="containerd runc containernetworking-plugins busybox-static docker-registry notary openssl mount util-linux
    etcd-server etcd-client systemd gcc libc6-dev protobuf-compiler"
POLICY=/usr/sbin/policy-rc.d
WANTED_UNITS=/etc/systemd/system

fail() {
    echo "install-parts.sh: $1" >&2
    exit 1
}

is_installed() {
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

enabled_units() {
    find "$WANTED_UNITS" -type l -path '*.wants/*' 2>/dev/null | sed 's|.*/||' | sort -u
}

# A package that brings a service enables and starts it. The tests start servers of their own, so the
# machine's services stay as they were: not started (policy-rc.d, which holds with and without systemd) ...
forbid_starting() {
    [ ! -e "$POLICY" ] || return 0
    trap 'rm -f "$POLICY"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '%s\n' '#!/bin/sh' '# Made by install-parts.sh for the time of one apt-get; delete it if that is over.' 'exit 101' >"$POLICY"
    chmod 755 "$POLICY"
}

# ... and not enabled.
disable_all_but() {
    command -v systemctl >/dev/null || return 0
    enabled_units | while read -r unit; do
        printf '%s\n' "$1" | grep -qxF "$unit" || systemctl --no-reload disable "$unit" >/dev/null 2>&1 || true
    done
}

[ -r /etc/os-release ] || fail "this is no Debian 12: there is no /etc/os-release"
# shellcheck source=/dev/null
. /etc/os-release
[ "${ID:-}" = debian ] && [ "${VERSION_ID:-}" = 12 ] ||
    fail "this is ${PRETTY_NAME:-an unknown system}; the tests are made for the versions that Debian 12 packages"

missing=
for part in $PARTS; do
    is_installed "$part" || missing="$missing $part"
done
if [ -z "$missing" ]; then
    echo "install-parts.sh: everything is installed"
    exit 0
fi
[ "$(id -u)" = 0 ] || fail "only root can install what is missing:$missing"

echo "install-parts.sh: installing$missing"
before=$(enabled_units)
forbid_starting
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet || fail "apt-get update failed; the tests need:$missing"
# --no-remove: where Docker's containerd.io is installed, apt would take it away for Debian's containerd.
# shellcheck disable=SC2086
apt-get install --quiet --yes --no-install-recommends --no-remove $missing || failed=yes
disable_all_but "$before"
[ -z "${failed:-}" ] || fail "apt-get install failed; the tests need:$missing"
