"""Tests. `python -m pytest` from the top folder; `tests.support` holds what they share."""
