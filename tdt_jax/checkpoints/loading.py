"""load, save and adapters: recognisers from and to the disk, and from the Hugging Face Hub.

The files that read and write a kind of checkpoint are imported when one is read or written, so that
`import tdt_jax` imports neither orbax nor safetensors nor yaml.
"""

import contextlib
import glob
from collections.abc import Callable, Sequence
from pathlib import Path

from tdt_jax.checkpoints.parakeet.convert import OpenedCheckpoint, assemble
from tdt_jax.config import Config
from tdt_jax.models.transducer import MismatchError, Placement
from tdt_jax.recogniser import Recogniser, with_attention_context, with_precision


def load(
    source: str | Path,
    *,
    adapter: str | Path | None = None,
    dtype: str | None = None,
    attention_context: tuple[int, int] | None = None,
    sharding: Placement | None = None,
    exact: bool = False,
) -> Recogniser:
    """Returns the recogniser that is stored at `source`.

    Args:
      source: one of

        - a folder that `save` or a training run wrote. Of a run it is the newest checkpoint;
          "FOLDER@best" is the best, "FOLDER@1000" that of a step. If the run averaged its
          parameters, it is their average. Of an adapter, or a run that trained one, it is the base
          with the adapter merged; the base is looked for where it was found then;
        - a .nemo archive, or a folder that holds one;
        - a folder of transformers;
        - a repository on the Hugging Face Hub, such as "nvidia/parakeet-tdt-0.6b-v3": its
          transformers files if it has any, or else its .nemo archive. A file's name chooses an
          archive: "nvidia/parakeet-tdt-0.6b-v3/parakeet-tdt-0.6b-v3.nemo".

      adapter: a folder that `save_adapter` or a run wrote, also as "FOLDER@best", whose adapter is
        merged; see `with_adapter`. None: no adapter.
      dtype: "float32" or "bfloat16", of the parameters and the computation; None: parameters in
        float32 and the computation as configured.
      attention_context: frames to the (left, right) that attention is limited to, for audio that is
        too long for full attention; see `with_attention_context`. None: as configured.
      sharding: where the parameters go: one `jax.sharding.Sharding` for all, or a function of
        (name, shape). None: the default device.
      exact: computes in float32 with products as exact as a CPU's on GPUs and TPUs too, where they
        are slower; see `EncoderConfig.precision`. False: as configured.

    Raises:
      ValueError: if there is no checkpoint, or it is incomplete, damaged, hostile, or does not fit
        its own configuration; if the adapter is of another base; or if both `exact` and another
        dtype than float32 are given.
    """
    from tdt_jax.checkpoints.adapter import is_adapter, read_base
    from tdt_jax.checkpoints.native import CHECKPOINTS, load_native
    from tdt_jax.checkpoints.parakeet.hugging_face import is_hugging_face, read_hugging_face
    from tdt_jax.checkpoints.parakeet.nemo import read_nemo

    if exact and dtype not in (None, "float32"):
        raise ValueError(f"exact means float32, and dtype is {dtype!r}: give one of the two")
    if exact:
        dtype = "float32"
    path, which = _find(str(source))
    if path.is_dir() and is_adapter(path):
        base, _ = read_base(path)
        if Path(base).exists() and path.samefile(base):
            raise ValueError(f"{path} is an adapter in the place of its own base")
        try:
            recogniser = load(base, dtype=dtype, sharding=sharding)
        except ValueError as error:
            raise ValueError(
                f"{path} is an adapter, and its base cannot be loaded: {error}. If it lies "
                f"elsewhere: tdt_jax.load(BASE, adapter={str(source)!r})"
            ) from None
        recogniser = with_adapter(recogniser, source)
    elif not path.is_dir():
        recogniser = _load_parakeet(path, read_nemo, dtype, sharding)
    elif is_hugging_face(path):
        recogniser = _load_parakeet(path, read_hugging_face, dtype, sharding)
    elif not (path / CHECKPOINTS).exists() and (archives := sorted(path.glob("*.nemo"))):
        name = _only_archive(str(path), [archive.name for archive in archives])
        recogniser = _load_parakeet(path / name, read_nemo, dtype, sharding)
    else:
        recogniser = load_native(path, which, dtype, sharding)
    if adapter is not None:
        recogniser = with_adapter(recogniser, adapter)
    if attention_context is not None:
        recogniser = with_attention_context(recogniser, attention_context)
    if exact:
        recogniser = with_precision(recogniser, "highest")
    return recogniser


def save(
    recogniser: Recogniser,
    path: str | Path,
    *,
    format: str = "jax",
    config: Config | None = None,
) -> None:
    """Writes a recogniser so that `load` reads it.

    Args:
      recogniser: the recogniser.
      path: a folder, or with format "nemo" a file.
      format: "jax", this package's own; "hf" for transformers; "nemo" for NeMo.
      config: the whole configuration of the run that trained it, which format "jax" keeps.

    Raises:
      ValueError: if `path` holds a recogniser already, or the format has no such model.
    """
    from tdt_jax.checkpoints.native import CONFIG_FILE, save_native
    from tdt_jax.checkpoints.parakeet.hugging_face import write_hugging_face
    from tdt_jax.checkpoints.parakeet.nemo import write_nemo

    path = Path(path)
    if (path / CONFIG_FILE).exists() or path.is_file():
        raise ValueError(f"{path} holds a recogniser already")
    if format == "jax":
        save_native(recogniser, path, config)
    elif format == "hf":
        write_hugging_face(recogniser, path)
    elif format == "nemo":
        write_nemo(recogniser, path)
    else:
        raise ValueError(f"format must be 'jax', 'hf' or 'nemo', got {format!r}")


def with_adapter(recogniser: Recogniser, adapter: str | Path) -> Recogniser:
    """Returns the recogniser with an adapter merged into its parameters.

    The recogniser that is given stays as it is, so that several adapters can be merged into one
    base, each for a recogniser of its own. Parameters without a change are shared.

    Args:
      recogniser: the base that the adapter was trained on.
      adapter: a folder that `save_adapter` or a run wrote, also as "FOLDER@best".

    Raises:
      ValueError: if the folder holds no adapter, or one of another base.
    """
    from tdt_jax.checkpoints.adapter import apply_adapter, read_adapter

    path, which = _find(str(adapter))
    return apply_adapter(recogniser, read_adapter(path, which), str(adapter))


def save_adapter(run: str | Path, folder: str | Path) -> None:
    """Writes the adapter that a run has trained to a folder of its own, without the base.

    Args:
      run: the folder of a run that trains adapters or a part of the parameters; "RUN@best" is its
        best checkpoint.
      folder: to write to: four bytes for each trained parameter.

    Raises:
      ValueError: if the run trains all parameters, or the folder holds something already.
    """
    from tdt_jax.checkpoints.adapter import read_adapter, write_adapter

    path, which = _find(str(run))
    write_adapter(read_adapter(path, which), Path(folder))


def _find(source: str) -> tuple[Path, str]:
    """Returns the file or folder of a source, fetched if need be, and what follows an "@"."""
    path = Path(source)
    if path.exists():
        return path, ""
    folder, _, which = source.rpartition("@")
    if "@" in path.name and Path(folder).is_dir():
        return Path(folder), which
    return _fetch(source), ""


def _load_parakeet(
    path: Path,
    read: Callable[[Path], OpenedCheckpoint],
    dtype: str | None,
    sharding: Placement | None,
) -> Recogniser:
    """Returns the recogniser that `read` opens; errors begin with the path."""
    try:
        with contextlib.closing(read(path)) as opened:
            model = assemble(opened, dtype=dtype, sharding=sharding)
    except MismatchError as error:
        raise MismatchError(f"{path}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged file in a way that no check expects
        raise ValueError(f"{path} is damaged: {error!r:.200}") from error
    return Recogniser(model, opened.tokenizer)


def _only_archive(place: str, names: Sequence[str]) -> str:
    """Returns the name of a folder's or repository's only .nemo archive."""
    if len(names) > 1:
        choices = ", ".join(f"{place}/{name}" for name in names)
        raise ValueError(f"{place} holds {len(names)} .nemo files; name one of them: {choices}")
    return names[0]


def _fetch(name: str) -> Path:
    """Returns the local copy of a repository on the Hub: its transformers files, or its .nemo.

    `name` is a repository's, or that of a .nemo file in it.
    """
    from tdt_jax.checkpoints.parakeet.hugging_face import is_hugging_face

    parts = name.split("/")
    repository, file = "/".join(parts[:2]), "/".join(parts[2:])
    is_name = len(parts) > 1 and not name.startswith((".", "/", "~")) and ".." not in parts
    if not is_name or repository.endswith(".nemo") or (file and not file.endswith(".nemo")):
        raise ValueError(f"there is no file, folder or repository {name!r}")
    try:
        import huggingface_hub
    except ImportError:
        raise ValueError(
            f"there is no {name!r} here; to fetch it from the Hugging Face Hub: "
            "pip install 'tdt-jax[hub]'"
        ) from None

    def fetch(*patterns: str, **options):
        try:
            return huggingface_hub.snapshot_download(
                repository, allow_patterns=list(patterns), **options
            )
        except (huggingface_hub.errors.HfHubHTTPError, OSError, ValueError) as error:
            why = str(error).partition("\n")[0]
            raise ValueError(f"there is no {name!r} here, and the Hub gave none: {why}") from None

    def archives(folder: Path) -> list[str]:
        try:
            return sorted(each.filename for each in fetch("*.nemo", dry_run=True))
        except ValueError:  # the Hub may be out of reach: those fetched before
            if fetched := sorted(folder.rglob("*.nemo")):
                return [each.relative_to(folder).as_posix() for each in fetched]
            raise

    if not file:
        folder = Path(fetch("*.json", "*.safetensors"))
        if any(folder.glob("*.safetensors")) and is_hugging_face(folder):
            return folder
        if not (names := archives(folder)):
            raise ValueError(f"{name} holds neither a Parakeet model of transformers nor a .nemo")
        file = _only_archive(repository, names)
    folder = Path(fetch(glob.escape(file)))
    if not (folder / file).is_file():
        names = ", ".join(archives(folder)) or "none"
        raise ValueError(f"{repository} holds no {file}; its .nemo files: {names}")
    return folder / file
