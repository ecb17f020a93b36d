#!/bin/sh
# A command under a lock:
#
#   raftckpt lock nightly --wait 5 -- ./backup.sh DIRECTORY
#
# Whoever runs it on whichever host: one at a time. When the lock is lost, or `raftckpt lock` dies, this
# gets SIGTERM before another one can have the lock. RAFTCKPT_LOCK_TOKEN only grows: give it to
# what you write to, or use it in names, so that a late copy never replaces a newer one.
set -eu
target="$1/backup-$RAFTCKPT_LOCK_TOKEN"
trap 'rm -rf "$target.part"; exit 143' TERM
mkdir -p "$target.part"
echo "begun with token $RAFTCKPT_LOCK_TOKEN"
for part in 1 2 3 4 5; do
    date >"$target.part/$part"
    sleep "${PAUSE:-0.2}" &
    wait $! # a shell that waits hears a signal at once
done
mv "$target.part" "$target"
echo "done with token $RAFTCKPT_LOCK_TOKEN"
