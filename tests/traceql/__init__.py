"""TraceQL: parser, compiler, lint."""
