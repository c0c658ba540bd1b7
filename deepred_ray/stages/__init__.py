"""Ray, torch and I/O: one file a stage, in the order that data flows."""
