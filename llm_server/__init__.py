"""Starts a vLLM server, or the embedded llama.cpp one, for an approved model of the registry."""
