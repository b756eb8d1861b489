"""Benchmarks of any OTLP/gRPC endpoint that samples traces; see README.md in this folder."""
