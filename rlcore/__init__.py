"""Pure, jittable, vmappable solvers for the theory of reinforcement learning."""

__version__ = "0.1.0"
