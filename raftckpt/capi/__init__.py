"""The SA Forum Checkpoint Service for C programs: builds ``libSaCkpt.so`` and is its Python half.

Owns the C headers, the C half of the library (``src/``), the build and the translation between C
structs and :mod:`raftckpt.saf`, which decides what every call does.
"""
