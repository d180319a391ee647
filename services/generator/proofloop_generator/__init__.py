"""The generator: takes a problem, stores a proof with its own evaluation, and requests reviews of
it.
"""

from proofloop.worker.roles import Role, adopt
from proofloop_generator.prove import prove


def role() -> Role:
    """The role as the runtime finds it."""
    return Role("generator", {"ProblemPosed": prove, "ModelPublished.generator": adopt})
