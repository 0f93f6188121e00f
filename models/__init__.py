"""Turns published weights into the files that both tiers load: set-up, which neither tier imports."""
