"""Environment and training code: what runs in the training container."""

__version__ = "0.1.0"
