"""Real LLM servers for tests, started through the command line that users have."""
