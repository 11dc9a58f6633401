"""Features that are computed once: kept on disk under a hash of all that they are made of."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from mmlearn.data.hashing import digest
from mmlearn.files import written_whole
from mmlearn.user_folder import user_folder

FORMAT = "mmlearn features 1"


def cached_features(compute: Callable[[], dict[str, Tensor]], *content: Tensor | str | int) -> dict[str, Tensor]:
    """What ``compute()`` gives, or what it gave before for the same ``content``, read from disk.

    ``content`` is all that the result depends on: the inputs, the weights of a frozen tower, the names of settings.
    Files lie in ``features`` under ``MMLEARN_HOME``, by default ``~/.mmlearn``, and may be deleted at any time. One
    that is damaged is computed anew; where nothing can be written, the result is only handed back.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    path = features_folder() / f"{digest(FORMAT, *content)}.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError):
        result = compute()
    with suppress(OSError, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as unfinished:
            save_file({name: value.contiguous() for name, value in result.items()}, unfinished)
    return result


def features_folder() -> Path:
    """Where features are kept."""
    return user_folder() / "features"
