"""Exporters: what leaves, how often it is tried, and how it is counted."""
