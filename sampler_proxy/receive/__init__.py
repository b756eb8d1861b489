"""Receives requests: one file for each protocol and engine, each handing whole requests (bytes) to a handler.

An OK means taken. Refusals are typed, counted, and say whether to try again.
"""
