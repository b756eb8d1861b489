"""Tests of the whole flow, in process: what is decided, when, and what leaves."""
