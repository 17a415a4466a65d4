"""The cost: intrinsic terms, and the exploration bonus."""
