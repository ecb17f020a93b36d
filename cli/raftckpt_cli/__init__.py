"""Command line of raftckpt."""
