"""The generator: a problem comes in, a proof with its own evaluation goes to the store, its reviews
are asked for.
"""

from proofloop.worker.roles import Role, adopt
from proofloop_generator.prove import prove


def role() -> Role:
    """The role as the runtime finds it."""
    return Role("generator", {"ProblemPosed": prove, "ModelPublished.generator": adopt})
