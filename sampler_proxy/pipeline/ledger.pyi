"""The counters of a pipeline. Native, and the pipeline's own, which shows all of them as `Pipeline.snapshot`."""

REASONS: tuple[str, ...]
"""What triggered a decision, in the order of the ledger's numbers: root, wait, size, early, memory, shutdown, late."""
