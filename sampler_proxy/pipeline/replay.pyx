"""Decides and redacts whole files of traces, outside of any buffer. `replay.pyi` is the manual."""
cimport cython
from libc.stdint cimport uint8_t, uint32_t

from sampler_proxy.otlp.fragments cimport Envelopes, Fragment, KeptTrace, Scanned, absorb
from sampler_proxy.pipeline.scanner cimport Scanner
from sampler_proxy.pipeline.stamp cimport Stamper
from sampler_proxy.redact.walker cimport Redactor
from sampler_proxy.rules.plan cimport Plan
from sampler_proxy.rules.roots cimport LOCAL, NO_ROOT, span_id_of
from sampler_proxy.rules.rule_set cimport RuleSet, TraceAnswers, randomness_of

from dataclasses import replace
from typing import NamedTuple

from sampler_proxy.rules.rate import Fixed
from sampler_proxy.traceql.program import FALSE, TRUE


class Decided(NamedTuple):
    trace_id: bytes
    rule: int
    threshold: int | None
    randomness: int
    keep: bool | None
    spans: int
    root: bytes | None
    local_root: bool


class RedactedTrace(NamedTuple):
    trace: KeptTrace
    redactions: dict
    effort: int


@cython.no_gc_clear  # __dealloc__ needs both
cdef class _Traces:
    """The traces of some requests as chains of fragments, in the order of their first spans; owns the fragments."""
    cdef Envelopes envelopes
    cdef dict chains  # trace id -> [address of the first fragment, of the last]

    def __cinit__(self, Plan plan not None, requests, bint local_roots=True):
        cdef Scanner scanner = Scanner(plan, local_roots=local_roots)
        cdef Scanned scanned
        cdef Fragment* fragment
        cdef Fragment* last
        cdef uint32_t i
        self.envelopes = Envelopes()
        self.chains = {}
        for request in requests:
            scanned = scanner.scan(request)
            self.envelopes.adopt(scanned)
            for i in range(scanned.count):
                fragment = scanned.fragments[i]
                scanned.fragments[i] = NULL
                trace_id = (<const uint8_t*>fragment.trace_id)[:16]
                chain = self.chains.get(trace_id)
                if chain is None:
                    self.chains[trace_id] = [<size_t>fragment, <size_t>fragment]
                else:
                    last = <Fragment*><size_t>chain[1]
                    last.next = fragment
                    absorb(<Fragment*><size_t>chain[0], fragment)
                    chain[1] = <size_t>fragment

    def __dealloc__(self):
        if self.chains is not None:
            for chain in self.chains.values():
                self.envelopes.free_fragments(<Fragment*><size_t>chain[0])


def decide(names, keeps, compiled, requests, *, local_roots=True):
    cdef RuleSet rules = RuleSet(names=names, keeps=keeps, compiled=compiled, ledger_id=lambda name: 0)
    cdef _Traces traces = _Traces(rules.plan, requests, local_roots)
    cdef Fragment* trace
    cdef Fragment* fragment
    cdef uint32_t rule
    decided = []
    for trace_id, chain in traces.chains.items():
        trace = fragment = <Fragment*><size_t>chain[0]
        spans = 0
        while fragment != NULL:
            spans += fragment.spans
            fragment = fragment.next
        rule = rules.first_match(trace)
        rules.find_root(trace)
        local = rules.root.kind == LOCAL
        root = None if rules.root.kind == NO_ROOT else span_id_of(&rules.root)
        randomness = randomness_of(trace)
        if isinstance(rules.controllers[rule], Fixed):
            threshold = rules.threshold(rule, trace, spans, randomness, 0)
            decided.append(Decided(trace_id, rule, threshold, randomness, randomness >= threshold, spans, root, local))
        else:
            decided.append(Decided(trace_id, rule, None, randomness, None, spans, root, local))
    return decided


def type_mismatches(compiled, requests):
    rules = RuleSet(
        names=range(len(compiled.programs)), keeps=[1.0] * len(compiled.programs), compiled=compiled,
        ledger_id=lambda name: 0,
    )
    _Traces(rules.plan, requests)  # scanned, and left
    return {rule: mismatches for rule, mismatches in rules.type_mismatches() if mismatches}


def select(compiled, requests, *, local_roots=True):
    compiled = replace(compiled, programs=((TRUE,),), monotone=(False,), late=(False,), exclusions=((FALSE,),))
    cdef RuleSet rules = RuleSet(names=("all",), keeps=(1.0,), compiled=compiled, ledger_id=lambda name: 0)
    cdef _Traces traces = _Traces(rules.plan, requests, local_roots)
    cdef TraceAnswers answers
    cdef uint32_t row, filter
    selected = {}
    for trace_id, chain in traces.chains.items():
        rules.begin_trace(<Fragment*><size_t>chain[0], &answers)
        rules.read_table(&answers)
        selected[trace_id] = [
            [
                (<const uint8_t*>&rules.table.rows[row].span_id)[:8]
                for row in range(rules.table.count) if rules.table.matches(row, filter)
            ]
            for filter in range(rules.plan.filters.count)
        ]
    return selected


def redact(requests, policy, observer=None):
    cdef _Traces traces = _Traces(Plan((), ()), requests)
    cdef Stamper stamper = Stamper(traces.envelopes, decision=False, adjusted_count=False)
    cdef Fragment* trace
    cdef KeptTrace kept
    cdef dict counts = {}
    if policy is not None:
        stamper.redactor = Redactor(policy, traces.envelopes, counts, observer)
    for chain in traces.chains.values():
        trace = <Fragment*><size_t>chain[0]
        kept = stamper.finish(trace, 0, randomness_of(trace), b"", 0, False)
        yield RedactedTrace(kept, dict(counts), 0 if policy is None else stamper.redactor.spent())
        counts.clear()
