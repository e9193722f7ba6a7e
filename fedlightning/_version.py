"""The version, where the build and every layer find it without importing the others."""

__version__ = "0.1.0.dev0"
