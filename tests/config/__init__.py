"""The configuration file: what is read, and what is refused with which words."""
