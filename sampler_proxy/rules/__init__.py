"""Runs the programs of rules, and says how much a rule keeps.

Span by span while a request is scanned (plan, span_matcher), trace by trace when it is decided (rule_set, trace_fields;
trace_matcher over a span_table); rate and target turn a match into a threshold. Used under the pipeline's lock; time is
an argument; a decision depends on no randomness but the trace's own.
"""
