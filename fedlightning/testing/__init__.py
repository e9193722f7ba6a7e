"""For users' own tests: does a module federate faithfully?"""

from fedlightning.testing.federation import Check, check_federation

__all__ = ["Check", "check_federation"]
