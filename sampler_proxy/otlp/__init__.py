"""Reads and writes the bytes of OTLP, and holds traces as memory.

Reads nothing that has not been bounds-checked, decides nothing, keeps no clock. Start with `protobuf.pxd` (the table of
OTLP's messages, and the readers), then `fragments.pyi` (who owns what). Everything native builds on this room.
"""
