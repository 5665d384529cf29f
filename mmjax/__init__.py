"""Six multimodal systems in JAX/Flax on one set of shared parts."""

__version__ = "0.1.0"
