"""Whether CUDA works on the machine that runs the tests."""

from regraft.errors import ProviderError
from regraft.model.session import open_session
from tests.tiny import tiny_backbone


def _works() -> bool:
    try:
        open_session(tiny_backbone().SerializeToString(), provider="cuda", threads=1)
    except ProviderError:
        return False
    return True


CUDA_WORKS = _works()
