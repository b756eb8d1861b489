"""Counts for a pipeline. Native, and the pipeline's own, which shows all counters as `Pipeline.snapshot`."""

REASONS: tuple[str, ...]
"""What triggered a decision, in the order of the ledger's numbers: root, wait, size, early, memory, shutdown, late."""
