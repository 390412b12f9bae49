#!/bin/sh
# Unpacks the releases of containerd that the tests run beside Debian 12's own, into a folder:
#     unpack-containerds.sh FOLDER
# FOLDER/1.7 and FOLDER/2.1 have the programs then. apt fetches their packages from this machine's own Debian mirror and
# verifies them by the suite's signature. Its lists and cache for that lie in FOLDER too, so that the machine's packages
# and sources stay as they are. What is there already is not fetched again: remove it to get a newer one.
set -eu

# containerd of the later suites is linked so that it runs on Debian 12. runc is not; Debian 12's serves all of them.
PACKAGE=containerd
PROGRAMS="containerd ctr containerd-shim-runc-v2"
# The keys of Debian's suites come with the package debian-archive-keyring, which every Debian has.
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

fail() {
    echo "unpack-containerds.sh: $1" >&2
    exit 1
}

# Where this machine gets Debian 12 itself from.
mirror() {
    apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 ~ /^(bookworm|oldstable|stable)$/ && $2 == "main" { print $3; exit }'
}

# apt with nothing of its own below / but the mirror's credentials and proxy, and the verification that it always does.
apt() {
    home=$1
    shift
    command=$1
    shift
    "$command" --quiet -o "Dir::Etc::SourceList=$home/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o "Dir::State::Lists=$home/lists" -o "Dir::Cache=$home/cache" -o APT::Sandbox::User=root \
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "$@"
}

reported() {
    "$folder/$1/containerd" --version 2>&1 || true
}

# unpack NAME SUITE PATTERN: programs of the suite's package into $folder/NAME, if their version is one of PATTERN.
unpack() {
    name=$1 suite=$2 wanted=$3
    [ ! -d "$folder/$name" ] || return 0
    echo "unpack-containerds.sh: fetching containerd $name from Debian $suite"
    uri=$(mirror)
    [ -n "$uri" ] || fail "apt has no source for Debian 12 (bookworm main) on this machine"
    new=$folder/new
    rm -rf "$new"
    mkdir -p "$new/apt/lists/partial" "$new/apt/cache/archives/partial" "$new/package" "$new/$name"
    echo "deb [signed-by=$KEYRING] $uri $suite main" >"$new/apt/sources.list"
    apt "$new/apt" apt-get update ||
        fail "apt-get update of $suite failed; if it is for a signature, run \`apt-get install debian-archive-keyring\` and try again"
    (cd "$new/package" && apt "$new/apt" apt-get download "$PACKAGE") || fail "$PACKAGE of Debian $suite could not be fetched"
    dpkg-deb --extract "$new/package/"*.deb "$new/package"
    for program in $PROGRAMS; do
        mv "$new/package/usr/bin/$program" "$new/$name/" || fail "the package $PACKAGE of Debian $suite has no $program"
    done
    found=$("$new/$name/containerd" --version 2>&1 || true)
    case $found in
    *" "$wanted) mv "$new/$name" "$folder/$name" ;;
    *) fail "the tests were made for containerd $wanted; that of Debian $suite says: $found" ;;
    esac
    rm -rf "$new"
}

[ "$#" = 1 ] || fail "usage: unpack-containerds.sh FOLDER"
mkdir -p "$1"
folder=$(cd "$1" && pwd)
[ -r "$KEYRING" ] || fail "$KEYRING is missing; run \`apt-get install debian-archive-keyring\`"

unpack 1.7 trixie '1.7.*'
# The suite that becomes Debian 14 moves on until then: any 2.x from 2.1 on will do.
unpack 2.1 forky '2.[1-9]*'
echo "unpack-containerds.sh: $(reported 1.7)"
echo "unpack-containerds.sh: $(reported 2.1)"
