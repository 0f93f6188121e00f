"""Answers questions from passages, on CPUs.

Reading order: `answering` (the story of a request), `exchange` (its words), `app` (what is wired to what).
"""
