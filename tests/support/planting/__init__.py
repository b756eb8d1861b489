"""Synthetic secrets as telemetry carries them, and innocents beside them: what redaction is measured by.

    forms.py        random texts of a given length and alphabet, and checksums
    providers.py    keys in the form that a provider gives them
    personal.py     numbers and addresses: cards, accounts, social security numbers
    credentials.py  tokens of standards, and secrets that a name announces
    texts.py        texts with a secret in them: command lines, connection URLs, headers, statements
    carriers.py     what stands around: prose, JSON and what is nearly JSON, forms, dumps, logs
    innocents.py    what must leave byte for byte
    samples.py      kinds x carriers x positions, seeded
    judge.py        sends samples through redaction, and looks for what must not leave

The forms are those of the vendors' pages and of public rule sets; the values are random. None is in the source, so
scanners of this repository find none.
"""
