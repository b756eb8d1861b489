"""Bytes in and bytes out, against the official protobuf classes: what is accepted, what is read, what leaves."""
