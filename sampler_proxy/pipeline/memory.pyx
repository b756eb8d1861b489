"""Accounts for the memory that a pipeline holds, and bounds it. Used under the pipeline's lock."""
from libc.stdlib cimport free, malloc

cdef enum:
    # What the system has to have left whenever the buffer has grown by PROBE_STEP: gRPC's core, which ends the process
    # where it gets no memory, and the exporters need some of it, the more the larger requests are, of which there are
    # so many copies on their way in and out.
    HEADROOM = 32 << 20
    COPIES = 8
    PROBE_STEP = 8 << 20
    LEAST_BOUND = 16 << 20  # as far as the bound may be lowered


cdef class Memory:
    def __cinit__(self, Buffer buffer not None, Outlets outlets not None, uint64_t max_bytes):
        self.buffer = buffer
        self.outlets = outlets
        self.bound = self.configured = max_bytes

    cdef uint64_t in_use(self) noexcept:
        """Return the bytes that the bound is for: of the buffer, of requests that are being filed, of kept traces until
        every destination has taken them, and of the limit's windows."""
        cdef uint64_t window = 0 if self.limit is None else self.limit.nbytes()
        return self.buffer.nbytes_() + self.in_hand + self.leaving + self.outlets.backlog_bytes + window

    cdef bint congested(self) except -1:
        """Return whether finishing more traces would only make memory grow: a finished trace is larger than it was, by
        its attributes, and an object each. They cannot leave, or what lies in the backlog of one destination, which
        others need not wait for, fills the memory."""
        return self.outlets.backlog_spans and (self.in_use() > self.bound or self.outlets.blocked())

    cdef void lower_bound(self) noexcept:
        """Lower the bound to four fifths of what is in use: the system has no memory, and what the traces that are
        decided then leave behind is there for everything else in this process.

        It is not raised again. The limit of the system is still there; to meet it once more may end the process, with
        all that is buffered, where it is gRPC's core that asks. Tables never shrink: there is always room beside them.
        """
        cdef uint64_t bound = max(self.in_use() // 5 * 4, self.buffer.empty_cost() + LEAST_BOUND)
        self.bound = min(self.bound, bound)

    cdef void expect(self, uint64_t need, uint64_t request_size) noexcept:
        """Try, before `need` bytes more are in use, whether there is HEADROOM, as long as there always was; lower the
        bound where there is not. Costs two system calls each PROBE_STEP by which the use grows beyond all that it ever
        was."""
        cdef uint64_t in_use = self.in_use() + need
        cdef void* headroom
        self.peak = max(self.peak, in_use)
        self.largest_request = max(self.largest_request, request_size)
        if in_use <= self.probe_at:
            return
        headroom = malloc(HEADROOM + COPIES * self.largest_request)
        if headroom == NULL:
            self.lower_bound()
            self.probe_at = <uint64_t>-1  # what is freed may not be in one piece, though it is of use
        else:
            self.probe_at = in_use + PROBE_STEP
        free(headroom)
