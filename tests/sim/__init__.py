"""Deterministic simulation: real consensus nodes on a fake clock, network and disk."""
