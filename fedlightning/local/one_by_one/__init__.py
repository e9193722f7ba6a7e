"""The visits of a cohort one after the other on one module, with next to nothing made for each.

What `local.training` does at one worker is the reference: a test compares bits.
"""
