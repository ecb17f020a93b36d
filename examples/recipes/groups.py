"""Several groups of replicas beside each other: a checkpoint lives where its name says.

usage: RAFTCKPT_GROUPS="west=HOST:PORT,... east=HOST:PORT,..." python groups.py put NAME KEY VALUE
                                                                             get NAME KEY
                                                                             where NAME ...
"""

import os
import sys
from hashlib import sha256

import raftckpt
from raftckpt import Attributes


class Groups:
    """Checkpoints over several groups: name of the group -> its endpoints."""

    def __init__(self, endpoints):
        self.endpoints = endpoints
        self.services = {}

    def group(self, name):
        """The same on every host (``hash()`` is not); one more group takes only its share."""
        return max(self.endpoints, key=lambda each: sha256(f"{each}/{name}".encode()).digest())

    def open(self, name, **options):
        """Open a checkpoint in its group; a group that is down is missed by its names alone."""
        group = self.group(name)
        if group not in self.services:
            self.services[group] = raftckpt.connect(self.endpoints[group])
        return self.services[group].open(name, **options)

    def close(self):
        for service in self.services.values():
            service.close()


def main(verb, *words):
    told = os.environ["RAFTCKPT_GROUPS"].split()
    groups = Groups(dict(each.split("=", 1) for each in told))
    try:
        if verb == "put":
            name, key, value = words
            groups.open(name, create=Attributes()).put(key, value.encode())
        elif verb == "get":
            name, key = words
            print(groups.open(name)[key].decode())
        else:
            for name in words:
                print(name, groups.group(name))
    finally:
        groups.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
