"""Figures of the effective horizon."""
