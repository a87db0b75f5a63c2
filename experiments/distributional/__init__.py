"""Figures of distributional dynamic programming with stocks."""
