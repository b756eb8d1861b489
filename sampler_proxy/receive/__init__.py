"""Where requests come in: one file per protocol (and per engine, for gRPC), each handing raw bytes to a handler."""
