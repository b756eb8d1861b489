"""Rules against what Tempo documents: a table, and generated expressions, on the reference and on the product."""
