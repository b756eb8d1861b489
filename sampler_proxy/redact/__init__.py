"""Removes from kept spans what must not leave.

section (what may be written) -> policy (which rule for which value) -> values (what becomes of a text); walker finds
every string of a span and asks value_cache, edits writes the result. Fails closed: what cannot be judged is masked.
"""
