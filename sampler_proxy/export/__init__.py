"""Exports kept traces: one file for each kind of destination over a shared queue, retry policy and shell.

A kept span ends exported, rejected or lost, and is counted as one of these.
"""
