"""Reads and rewrites texts inside of values: JSON, key-value pairs, statements, URLs, and encodings of text."""
