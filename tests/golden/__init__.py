"""The bytes that are on wires and disks already, kept in files: see ``books``."""
