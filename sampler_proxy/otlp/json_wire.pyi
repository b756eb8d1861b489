"""Transcodes OTLP/JSON to protobuf: one pass from text to wire format, without an object per span or value.

The rules are those of the OTLP specification ("JSON Protobuf Encoding") and of protobuf ("ProtoJSON Format"), as the
official parser applies them when it ignores unknown fields:

- keys in lowerCamelCase or as in the .proto; null is as if the key were not there, and no element of an array;
- trace and span ids are hexadecimal digits in either case, of any number of bytes; other bytes are Base64, of the
  standard or the URL-safe alphabet, with or without padding;
- numbers may be strings; integers may have a fraction of zeros or an exponent, and are exact to their last digit;
  "NaN", "Infinity" and "-Infinity" are doubles;
- enumerations are integers or names, and a name that is not known is as if the key were not there;
- a field of a oneof beside another of it is an error, and so are messages in each other on more than 100 levels.

Where the official parsers differ, this one is strict: a field given twice is an error, by its other name too, and so
are characters that do not belong to Base64, a number in a string that JSON would not write so, true for a number, and
half of a surrogate pair anywhere. Keys that are not known are not compared with each other; their values may be 512
levels deep, and have to be valid.
"""

def to_wire(text: bytes, message: str, most_bytes: int = 67108864) -> bytes:
    """Transcode one JSON document to a message, by its full protobuf name; the module of its class has been imported.

    The GIL is released meanwhile. The time is linear in the text. The memory is the result's; while that is written,
    half of the text or up to 1.5 times what has been written.

    Raises MalformedRequest with the path in the document, what is wrong and the index of the byte where it is: names of
    known fields, never a value or an unknown key. Raises RequestTooLarge if the message has more than `most_bytes`,
    KeyError for a message that nobody has imported.
    """
