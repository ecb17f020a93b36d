"""Copies of the state and what is made of them: looking inside, restoring, recovering.

Works on files and data directories that no process uses; the cluster is never asked anything here.
"""
