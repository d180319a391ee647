"""The data formats: records in the store, events on the bus, and the keys of the store."""
