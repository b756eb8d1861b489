"""Keeps what outlives the process, in one locked folder.

Writes whole files only; a file that cannot be read is left alone and reported.
"""
