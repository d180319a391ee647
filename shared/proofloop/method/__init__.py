"""The paper's method as pure functions: rewards, the label rule, the search rule, prompts and
domains.
"""
