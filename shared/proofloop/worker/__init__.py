"""One role at work: takes an event, calls a model, stores the answer, publishes the next events."""
