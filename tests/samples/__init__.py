"""Tiny documents, a tiny tokenizer and a store in memory, all made in code."""
