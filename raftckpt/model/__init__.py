"""The model: a pure, total, deterministic state machine of checkpoints, sections and sessions.

Nothing is imported here: the client needs the commands' numbers, not the machine.
"""
