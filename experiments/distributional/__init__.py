"""Figures of stock-augmented distributional dynamic programming."""
