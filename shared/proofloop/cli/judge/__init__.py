"""The commands `proofloop judge`, which measures judges, and `proofloop evaluate`, which measures
provers.
"""
