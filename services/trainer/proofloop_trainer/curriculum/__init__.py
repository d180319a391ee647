"""The method's curriculum as one workflow: cold start, judges, generator, labels, consolidation,
and again.
"""
