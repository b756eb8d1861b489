"""Texts inside of values: JSON, keyed text, statements, URLs."""
