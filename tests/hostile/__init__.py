"""Attacks on a running proxy, by connections and by content, without credentials: bounded to seconds, one row each."""
