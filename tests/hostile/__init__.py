"""Attacks on a running proxy, by connections and by content, without credentials: each bounded to seconds, one row each."""
