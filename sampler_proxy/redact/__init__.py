"""Removes from kept spans what must not leave.

section (what may be written) -> policy (a view of the rules for each combination of filters) -> key_rules (which lane
for which key), sieve (where to look), values (what becomes of a text, with detectors/ and texts/); natively, walker
finds every string of a trace and asks value_cache, and edits writes the result. Fails closed: what cannot be judged is
masked.
"""
