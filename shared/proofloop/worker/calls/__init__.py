"""Model calls of a worker: from request to reply, shared between messages, with failures and
usage.
"""
