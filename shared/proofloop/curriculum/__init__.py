"""A curriculum: the controller that composes the runs of each stage, and its progress in the
store.
"""
