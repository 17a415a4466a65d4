"""The actor: decisions by planning (Mode 2) and by a distilled network (Mode 1)."""
