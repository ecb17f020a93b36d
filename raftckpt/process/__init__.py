"""A replica as a process: the one room that knows all others, puts them together, runs, leaves.

It makes everything by constructor: what is needed by two parts is made before both.
"""
