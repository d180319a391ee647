"""One role at work: takes an event, calls a model, stores the answer; with engines, metrics and
health page.
"""
