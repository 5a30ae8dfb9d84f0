"""load and save: recognisers from and to the disk, and from the Hugging Face Hub."""

import contextlib
import dataclasses
import glob
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp

from tdt_jax.checkpoints.native import CHECKPOINTS, CONFIG_FILE, load_native, save_native
from tdt_jax.config import Config
from tdt_jax.models.transducer import MismatchError, Placement, abstract_model
from tdt_jax.recogniser import Recogniser, with_attention_context


def load(
    source: str | Path,
    *,
    dtype: str | None = None,
    attention_context: tuple[int, int] | None = None,
    sharding: Placement | None = None,
) -> Recogniser:
    """Load a recogniser.

    Args:
      source: what `save` or a training run wrote (of a run the newest checkpoint, or the best as
        "FOLDER@best", or that of a step as "FOLDER@1000"; of that the average of the parameters
        where it was kept); a .nemo archive, or a folder that holds one; a Hugging Face folder; or
        the name of a repository on the Hugging Face Hub, such as "nvidia/parakeet-tdt-0.6b-v3". Of
        a repository's files those of transformers are taken, else its .nemo archive; a file's name
        behind it chooses an archive: "nvidia/parakeet-tdt-0.6b-v3/parakeet-tdt-0.6b-v3.nemo".
      dtype: "float32" or "bfloat16", of the parameters and the computation; None: parameters in
        float32 and the computation as configured.
      attention_context: frames that attention sees to the (left, right), for audio that is too long
        for full attention, whatever the checkpoint says; see `with_attention_context`.
      sharding: where the parameters go: one `jax.sharding.Sharding` for all, or a function of
        (name, shape). None: the default device.

    Raises:
      ValueError: if there is nothing there, or it is incomplete, damaged, hostile, or of another
        configuration than it says.
    """
    path, which = Path(source), ""
    if not path.exists() and "@" in path.name and Path(str(source).rpartition("@")[0]).is_dir():
        name, _, which = str(source).rpartition("@")
        path = Path(name)
    if not path.exists():
        path = _from_hub(str(source))
    is_native = path.is_dir() and not _is_hugging_face(path)
    has_archives = is_native and not (path / CHECKPOINTS).exists() and any(path.glob("*.nemo"))
    if has_archives:
        path = path / _only_archive(str(path), sorted(file.name for file in path.glob("*.nemo")))
    if is_native and not has_archives:
        found = load_native(path, which, dtype, sharding)
    else:
        found = _load_pretrained(path, dtype, sharding)
    if attention_context is not None:
        found = with_attention_context(found, attention_context)
    return found


def _is_hugging_face(folder: Path) -> bool:
    from tdt_jax.checkpoints.parakeet.hugging_face import is_hugging_face

    return is_hugging_face(folder)


def _load_pretrained(path: Path, dtype: str | None, sharding: Placement | None) -> Recogniser:
    from tdt_jax.checkpoints.parakeet.convert import assemble
    from tdt_jax.checkpoints.parakeet.hugging_face import read_hugging_face
    from tdt_jax.checkpoints.parakeet.nemo import read_nemo

    try:
        opened = read_hugging_face(path) if path.is_dir() else read_nemo(path)
        with contextlib.closing(opened):
            config = dataclasses.replace(opened.config, dtype=dtype or opened.config.dtype)
            if opened.tokenizer.vocab_size != config.vocab_size:
                raise ValueError(
                    f"the tokenizer has {opened.tokenizer.vocab_size} pieces, the model "
                    f"{config.vocab_size}"
                )
            model = assemble(
                config,
                abstract_model(config, dtype),
                opened.stored,
                name=opened.name,
                ignored=opened.ignored,
                dtype=jnp.dtype(dtype or "float32"),
                sharding=sharding,
            )
    except MismatchError as error:
        raise MismatchError(f"{path}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # what no check has foreseen in a damaged file
        raise ValueError(f"{path} is damaged: {error!r:.200}") from error
    return Recogniser(model, opened.tokenizer)


def _only_archive(place: str, names: Sequence[str]) -> str:
    """The one .nemo archive of a folder or repository; of several one must be named."""
    if len(names) > 1:
        choices = ", ".join(f"{place}/{name}" for name in names)
        raise ValueError(f"{place} holds {len(names)} .nemo files; name one of them: {choices}")
    return names[0]


def _from_hub(name: str) -> Path:
    """The local copy of a repository on the Hub: its transformers files, or else its .nemo.

    What follows the repository's name in `name` is a .nemo file of it, which is then taken.
    """
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

    def fetched(*patterns: str, **options):
        try:
            return huggingface_hub.snapshot_download(
                repository, allow_patterns=list(patterns), **options
            )
        except (huggingface_hub.errors.HfHubHTTPError, OSError, ValueError) as error:
            raise ValueError(f"there is no {name!r} here, and the Hub gave none: {error}") from None

    def archives(folder: Path) -> list[str]:
        try:
            return sorted(each.filename for each in fetched("*.nemo", dry_run=True))
        except ValueError:  # the Hub may be out of reach: what it gave before
            if before := sorted(folder.rglob("*.nemo")):
                return [each.relative_to(folder).as_posix() for each in before]
            raise

    if not file:
        folder = Path(fetched("*.json", "*.safetensors"))
        if any(folder.glob("*.safetensors")) and _is_hugging_face(folder):
            return folder
        if not (names := archives(folder)):
            raise ValueError(f"{name} holds neither a Parakeet model of transformers nor a .nemo")
        file = _only_archive(repository, names)
    folder = Path(fetched(glob.escape(file)))
    if not (folder / file).is_file():
        there = ", ".join(archives(folder)) or "none"
        raise ValueError(f"{repository} holds no {file}; its .nemo files: {there}")
    return folder / file


def save(
    recogniser: Recogniser,
    path: str | Path,
    *,
    format: str = "jax",
    config: Config | None = None,
) -> None:
    """Write a recogniser so that `load` reads it.

    Args:
      recogniser: what to write.
      path: a folder, or with format "nemo" a file.
      format: "jax"; "hf" for transformers; "nemo" for NeMo.
      config: the whole configuration of the run that trained it, kept with format "jax".

    Raises:
      ValueError: if there is a recogniser already, or the format has no such model.
    """
    folder = Path(path)
    if (folder / CONFIG_FILE).exists() or folder.is_file():
        raise ValueError(f"{folder} holds a recogniser already")
    if format not in ("jax", "hf", "nemo"):
        raise ValueError(f"format must be 'jax', 'hf' or 'nemo', got {format!r}")
    if format == "jax":
        save_native(recogniser, folder, config)
    elif format == "hf":
        from tdt_jax.checkpoints.parakeet.hugging_face import write_hugging_face

        write_hugging_face(recogniser, folder)
    else:
        from tdt_jax.checkpoints.parakeet.nemo import write_nemo

        write_nemo(recogniser, folder)
