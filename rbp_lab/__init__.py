"""rbp_lab: how often a language model ranks the right token on top, and how that scales."""

__version__ = "0.1.0"
