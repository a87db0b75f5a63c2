"""Figures of last-switch-dependent bandits."""
