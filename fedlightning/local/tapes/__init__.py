"""A local step as the tensor operations that it comes down to: recorded once, and played without Python.

``tape`` records and plays; ``readings`` says for how long that is the same step. Who records what, and when,
is for ``vectorised`` and ``one_by_one``.
"""
