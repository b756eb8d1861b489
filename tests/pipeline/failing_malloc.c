/* Makes the n-th allocation of a thread fail, once: preloaded by tests/pipeline/failing_allocations.py. */
#include <errno.h>
#include <stddef.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

static __thread long left = -1; /* allocations until the one that fails; -1: none does */

static int fails(void) {
    if (left < 0)
        return 0;
    if (left-- > 0)
        return 0;
    errno = ENOMEM;
    return 1;
}

void fail_at(long n) { left = n; }
int has_failed(void) {
    int failed = left < 0;
    left = -1;
    return failed;
}

void *malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return fails() ? NULL : __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { return fails() ? NULL : __libc_realloc(old, size); }
