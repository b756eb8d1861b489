"""Reads members of objects by the brackets and quotes in a text, be it JSON or nearly so."""

from sampler_proxy.redact.texts.members import Member

def members(text: bytes) -> list[Member]:
    """Find every member at any depth of the brackets in a text, in the order in which they begin (an object comes
    before what it holds), and the strings and containers in arrays; duplicate keys are kept. What is open at the end
    reaches to the end. Raises nothing but MemoryError; linear time, without recursion.

    Of JSON these are its members (RFC 8259). Elsewhere a key is what stands before `:`, `=` or `=>` in an object; in
    round and square brackets too, if it is in quotes or its value is. `,` and `;` separate members, as does a key where
    no comma stands before it. Quotes of any kind make strings, `//` and `/*` comments. In round brackets behind the
    name of a type that holds a secret (`Secret("x")`) this is the key.
    """
