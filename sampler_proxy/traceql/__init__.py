"""Compiles rules from TraceQL text into programs.

parse -> ast -> fields, queries -> compiler -> program. Pure Python, pure functions; `TraceQLError`, with an offset into
the text, is the only exception that escapes. `program.py` is the contract with the room `rules`.
"""
