"""Reads doubles, correctly rounded: small ones by one exact operation, others by the C library in its own locale."""

cdef extern from *:
    """
    #include <locale.h>
    #include <stdlib.h>
    static locale_t sampler_proxy_locale;
    static int sampler_proxy_c_locale(void) {
        sampler_proxy_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
        return sampler_proxy_locale != (locale_t)0;
    }
    /* Whatever locale the process has: the decimal point is a point. */
    static double sampler_proxy_strtod(const char* text) { return strtod_l(text, NULL, sampler_proxy_locale); }
    """
    bint _make_locale "sampler_proxy_c_locale"()
    double _strtod "sampler_proxy_strtod"(const char* text) noexcept nogil

if not _make_locale():
    raise MemoryError

cdef double[23] _POWERS = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
]


cdef cbytes read_double(cbytes p, double* value) noexcept nogil:
    """Read a number as a double, which is infinite where the number is too large; return the position behind it, or
    NULL for what is none."""
    cdef Number number
    cdef cbytes stop = read_number(p, &number)
    if stop == NULL:
        return NULL
    # Both are doubles without rounding, so that the operation rounds once.
    if number.mantissa <= <uint64_t>1 << 53 and not number.inexact and -22 <= number.exponent <= 22:
        value[0] = <double>number.mantissa
        if number.exponent < 0:
            value[0] /= _POWERS[-number.exponent]
        else:
            value[0] *= _POWERS[number.exponent]
        if number.negative:
            value[0] = -value[0]
    else:
        value[0] = _strtod(<const char*>p)
    return stop
