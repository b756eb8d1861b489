"""Attacks on a running proxy, by raw connections without credentials: each bounded to seconds, one row each."""
