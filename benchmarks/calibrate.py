"""How fast is this machine at this moment? A fixed amount of work, so that times per span compare between machines.

`calibrate()` returns a speed: 1.0 is the reference below, 2.0 twice as fast. A time measured just before or after,
multiplied by the speed, is what the reference machine would have taken. Half of the verdict is interpreter work, half
is native work on bytes (crc32 and SHA-256 over a buffer that stays in cache), combined by their geometric mean. It
takes about a quarter of a second.

The reference is one quiet core of a 2-core VM: AMD EPYC (family 25, model 17) at 2.6 GHz, CPython 3.11. Call it
beside every measurement in process: virtual machines lose up to two thirds of their speed to neighbours, for seconds
or minutes.

usage: python -m benchmarks.calibrate
"""

import hashlib
import math
import time
import zlib

REFERENCE_INTERPRETER_S = 0.0181
REFERENCE_NATIVE_S = 0.0104
_ROUNDS = 7  # the best counts: whatever disturbs a round makes it longer, nothing makes it shorter


def interpreter_s() -> float:
    """Seconds of a fixed loop of arithmetic, dictionary and bytes operations in pure Python."""
    table: dict[int, bytes] = {}
    word = b"0123456789abcdef"
    start = time.perf_counter()
    x = 12345
    for i in range(100_000):
        x = (x * 1103515245 + 12345) & 0x7FFFFFFF
        table[x & 1023] = word[i & 7 : 8]
    return time.perf_counter() - start


def native_s() -> float:
    """Seconds of a fixed amount of native work over bytes: checksums and hashes of 64 KiB."""
    block = bytes(range(256)) * 256
    start = time.perf_counter()
    for _ in range(200):
        zlib.crc32(block)
        hashlib.sha256(block).digest()
    return time.perf_counter() - start


def speeds() -> tuple[float, float]:
    """Speed of the interpreter and of native code, each relative to the reference machine."""
    interpreter = min(interpreter_s() for _ in range(_ROUNDS))
    native = min(native_s() for _ in range(_ROUNDS))
    return REFERENCE_INTERPRETER_S / interpreter, REFERENCE_NATIVE_S / native


def calibrate() -> float:
    """Speed of this machine now, relative to the reference machine."""
    return math.sqrt(math.prod(speeds()))


if __name__ == "__main__":
    interpreter, native = speeds()
    together = math.sqrt(interpreter * native)
    print(f"interpreter {interpreter:.2f}, native {native:.2f}, together {together:.2f}  (1 = reference)")
