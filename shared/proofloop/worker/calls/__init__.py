"""Model calls: one call from request to reply, calls that messages share, failures and usage."""
