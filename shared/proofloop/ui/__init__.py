"""The web application: runs and curricula of a store in a browser, while they run and afterwards.

Pages are HTML from the server; the scripts only add what a page can do without.
"""
