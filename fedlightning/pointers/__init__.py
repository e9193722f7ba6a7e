"""pointers."""
