"""Nothing: the distribution around this module is what counts, see pyproject.toml."""
