"""Pure logic: values in, values out. No Ray, torch, vLLM, transformers, requests, clock or path in here."""
