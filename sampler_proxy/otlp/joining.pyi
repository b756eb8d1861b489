"""Tells which requests may be joined to one by writing their bytes one behind the other.

Protobuf reads what is written so as one message whose repeated fields have the elements of all (Protocol Buffers,
"Encoding": last one wins, and merging). It must not be done where one of them is damaged at its outermost level, since
its last field would reach into the next request, nor where it has a field that is there once, such as the dictionary
of profiles, which elements refer to by index.
"""

def joinable(request: bytes) -> bool:
    """Tell whether a request has nothing but elements of field 1, which is the repeated one of every signal.

    The outermost level alone is read, which takes nanoseconds an element; what is inside may still be anything. Raises
    MalformedRequest where that level is no protobuf message.
    """
