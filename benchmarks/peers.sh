#!/bin/sh
# Unpack Debian trixie's etcd, Redis and NATS beside what is installed: nothing of the system changes.
#
#     benchmarks/peers.sh DIR        then: PATH=DIR/bin:$PATH python benchmarks/compare.py
#
# The binaries also start on bookworm, whose own are years older. Go and the source of etcd's client, of
# which the load generator is built, are not fetched: apt-get install golang-go golang-etcd-server-dev.
set -eu
into=$(mkdir -p "$1" && cd "$1" && pwd)
apt=$into/apt
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$into/bin"
: > "$apt/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main" > "$apt/sources.list"
options="-qq -o Dir::State::Lists=$apt/lists -o Dir::State::Status=$apt/status -o Dir::Cache=$apt/cache
    -o Dir::Etc::SourceList=$apt/sources.list -o Dir::Etc::SourceParts=/dev/null -o APT::Sandbox::User=root"
# shellcheck disable=SC2086
apt-get $options update
cd "$apt"
# shellcheck disable=SC2086
apt-get $options download etcd-server nats-server redis-server redis-tools \
    libc6 libgcc-s1 libstdc++6 libssl3t64 libsystemd0 libcap2 libzstd1 zlib1g liblzf1 libjemalloc2 libatomic1
for package in *.deb; do
    dpkg-deb -x "$package" "$into/root"
done
libraries=$into/root/usr/lib/$(uname -m)-linux-gnu
ln -sf "$into/root/usr/bin/etcd" "$into/root/usr/sbin/nats-server" "$into/bin/"
# Redis is linked against the C library of its own release
printf '#!/bin/sh\nexec %s --argv0 redis-server --library-path %s %s "$@"\n' "$(echo "$libraries"/ld-linux-*)" "$libraries" \
    "$into/root/usr/bin/redis-check-rdb" > "$into/bin/redis-server"
chmod +x "$into/bin/redis-server"
for name in etcd nats-server redis-server; do
    "$into/bin/$name" --version | head -n 1
done
