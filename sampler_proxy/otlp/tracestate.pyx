"""Reads `th` and `rv` in the `ot` member of a W3C tracestate, on bytes. `sampling.py` rewrites tracestates.

Source: OpenTelemetry specification, "TraceState: Probability Sampling" and "TraceState Handling"; W3C Trace Context,
section 3.3. Read are the members that end within the first 512 bytes, at most 32 of them, empty ones left aside: as
much as section 3.3 has everybody pass on. What is behind is as if it were not there.
"""
from libc.stdint cimport uint8_t


cdef enum:
    MAX_MEMBERS = 32
    MAX_BYTES = 512


cdef inline int _digit(uint8_t c) noexcept nogil:
    """Return the value of a lower-case hexadecimal digit; -1 for any other character."""
    if 48 <= c <= 57:
        return c - 48
    if 97 <= c <= 102:
        return c - 87
    return -1


cdef bint _is_value(cbytes p, cbytes end) noexcept nogil:
    """Return whether bytes are the value of a member: 1 to 256 printable ones without `=`."""
    if end == p or end - p > 256:
        return False
    while p < end:
        if p[0] < 0x20 or p[0] > 0x7E or p[0] == 61:  # =
            return False
        p += 1
    return True


cdef cbytes _find_ot(cbytes p, uint32_t size, cbytes* value_end) noexcept nogil:
    """Return the value of the first valid `ot` member; NULL where there is none."""
    cdef cbytes stop
    cdef cbytes last
    cdef cbytes end = p + min(size, MAX_BYTES)
    cdef uint32_t members = 0
    if size > MAX_BYTES and end[0] != 44:  # in the middle of a member, which is left out
        while end > p and (end - 1)[0] != 44:
            end -= 1
    while p < end and members < MAX_MEMBERS:
        while p < end and (p[0] == 32 or p[0] == 9):
            p += 1
        stop = p
        while stop < end and stop[0] != 44:  # ,
            stop += 1
        members += stop > p
        if stop - p > 3 and p[0] == 111 and p[1] == 116 and p[2] == 61:  # ot=
            last = stop
            while last > p and ((last - 1)[0] == 32 or (last - 1)[0] == 9):
                last -= 1
            if _is_value(p + 3, last):
                value_end[0] = last
                return p + 3
        p = stop + 1
    return NULL


cdef int read_tracestate(cbytes p, uint32_t size, uint64_t* threshold, uint64_t* randomness) noexcept nogil:
    """Read the first valid `th` and `rv`. Returns HAS_TH and HAS_RV for those that are there; only then is the number
    set."""
    cdef cbytes end
    cdef cbytes stop
    cdef cbytes q
    cdef uint64_t number
    cdef uint32_t digits
    cdef int found = 0
    p = _find_ot(p, size, &end)
    if p == NULL:
        return 0
    while p < end:
        stop = p
        while stop < end and stop[0] != 59:  # ;
            stop += 1
        if stop - p > 3 and p[2] == 58 and ((p[0] == 116 and p[1] == 104) or (p[0] == 114 and p[1] == 118)):
            digits = <uint32_t>(stop - p - 3)
            number = 0
            q = p + 3
            while q < stop and _digit(q[0]) >= 0 and digits <= 14:
                number = (number << 4) | <uint64_t>_digit(q[0])
                q += 1
            if q == stop:
                if p[0] == 116 and not found & HAS_TH:
                    threshold[0] = number << (4 * (14 - digits))
                    found |= HAS_TH
                elif p[0] == 114 and digits == 14 and not found & HAS_RV:
                    randomness[0] = number
                    found |= HAS_RV
        p = stop + 1
    return found
