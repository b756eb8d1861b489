"""The room rules: what TraceQL selects, and how rates adapt."""
