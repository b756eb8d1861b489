"""OTLP bytes: what is accepted, read and repaired, against the official protobuf classes."""
