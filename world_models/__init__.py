"""World models: perception, prediction and cost learnt from experience, and the memory they learn from."""
