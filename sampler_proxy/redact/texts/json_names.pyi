"""Finds the names in JSON that may announce values."""

def names_in_json(text: bytes, of_names: frozenset[bytes], of_values: frozenset[bytes]) -> set[bytes] | None:
    """Find whatever may announce a value in JSON without escapes: keys, and the strings that are names where they stand
    (of `announced.announced`); None: what they name depends on more. `of_names`, `of_values`: the keys of names, and of
    the values that these name. Each quote is taken for the beginning of a string. Raises nothing but MemoryError;
    linear time."""
