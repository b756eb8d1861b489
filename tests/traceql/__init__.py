"""The room traceql: parser, compiler, lint."""
