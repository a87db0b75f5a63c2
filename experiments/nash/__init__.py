"""Preference games: rates of convergence and the published simulations."""
