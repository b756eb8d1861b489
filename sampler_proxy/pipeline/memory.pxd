"""Declares the account of a pipeline's memory."""
from libc.stdint cimport uint64_t

from sampler_proxy.pipeline.buffer cimport Buffer
from sampler_proxy.pipeline.limit cimport Limit
from sampler_proxy.pipeline.outlets cimport Outlets

cdef class Memory:
    cdef Buffer buffer
    cdef Outlets outlets
    cdef Limit limit  # None: there is none
    cdef uint64_t leaving  # bytes of the kept traces that are not finished: the finisher's
    cdef uint64_t in_hand  # bytes that requests which are being filed still need: the intakes'
    cdef readonly uint64_t configured  # the bound
    cdef readonly uint64_t bound  # as configured, or less since the system has no more memory
    cdef uint64_t peak  # bytes in use, with those that a request needed, since somebody has asked last
    cdef uint64_t largest_request  # bytes
    cdef uint64_t probe_at  # bytes in use at which it is tried next whether there is HEADROOM
    cdef uint64_t in_use(self) noexcept
    cdef bint congested(self) except -1
    cdef void lower_bound(self) noexcept
    cdef void expect(self, uint64_t need, uint64_t request_size) noexcept
