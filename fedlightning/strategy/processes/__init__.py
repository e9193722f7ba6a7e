"""The processes of a simulation on one machine, among which ``spread`` divides a round's visits.

All of them are the user's own: Python objects travel whole. Other owners' are in ``workers.remote``.
"""
