"""Experiments on robust offline learning: the figures of R2PVI and studies around them."""
