"""Training loops for world models, and diagnostics of what they learn."""
