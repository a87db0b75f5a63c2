"""Families of problems; every one returns rlcore pytrees."""
