"""What detectors find and what they leave alone. In the tables, a secret stands between ⟦ and ⟧."""
