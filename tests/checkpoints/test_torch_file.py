"""torch files without torch: what comes back, and that nothing hostile is run or believed.

That torch reads what is written here and writes what is read: tests/golden/check_peers.py and
make_nemo.py.
"""

import io
import os
import pickle
import time
import zipfile

import ml_dtypes
import numpy as np
import pytest

from tdt_jax.checkpoints.formats.torch_file import TorchFileError, read_torch_file, write_torch_file

TENSORS = {
    "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.array(7, np.int64),
    "half": np.array([1.5, -2], ml_dtypes.bfloat16),
    "none": np.zeros((0, 3), np.float16),
}


def written(tmp_path, tensors=TENSORS, prefix=b""):
    path = tmp_path / "weights.ckpt"
    buffer = io.BytesIO()
    write_torch_file(buffer, tensors)
    path.write_bytes(prefix + buffer.getvalue())
    return path


def read(path, start=0):
    with path.open("rb") as file:
        return {name: tensor.read() for name, tensor in read_torch_file(file, start).items()}


@pytest.mark.parametrize("prefix", [b"", b"x" * 512])
def test_what_is_written_is_read(tmp_path, prefix):
    tensors = read(written(tmp_path, prefix=prefix), len(prefix))
    assert list(tensors) == list(TENSORS)
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(tensors[name], array, strict=True)


def test_data_are_aligned_and_mapped(tmp_path):
    path = written(tmp_path)
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if "/data/" in info.filename and info.file_size:
                header = path.read_bytes()[info.header_offset :][:30]
                lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(
                    header[28:30], "little"
                )
                assert (info.header_offset + 30 + lengths) % 64 == 0
    array = read(path)["a.weight"]
    base = array
    while base is not None and not isinstance(base, np.memmap):
        base = getattr(base, "base", None)
    assert base is not None and not array.flags.writeable


def repickled(tmp_path, content, extra=()):
    """A torch file with another pickle, and perhaps other members."""
    path = tmp_path / "hostile.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for name, data in extra:
            archive.writestr(name, data)
    return path


class Runs:
    def __reduce__(self):
        return os.system, ("touch hostile_was_here",)


class Evaluates:
    def __reduce__(self):
        return eval, ("1 + 1",)


def test_a_pickle_that_would_run_code_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for payload in (Runs(), Evaluates(), {"a": Runs()}, [Runs()]):
        path = repickled(tmp_path, pickle.dumps(payload))
        with pytest.raises(TorchFileError, match="was not run"):
            read(path)
    assert not (tmp_path / "hostile_was_here").exists()
    # By name: what torch has and a state dict has not, and globals by extension code.
    for module, name in (("torch", "load"), ("builtins", "getattr"), ("torch._utils", "__dict__")):
        content = f"c{module}\n{name}\n.".encode()
        with pytest.raises(TorchFileError, match="was not run"):
            read(repickled(tmp_path, content))
    for content in (b"\x80\x02\x82\x01.", b"\x80\x02N2.", b"\x80\x02(i__main__\nA\n."):
        with pytest.raises(TorchFileError, match="was not run"):
            read(repickled(tmp_path, content))


GLOBALS = {
    "rebuild": b"ctorch._utils\n_rebuild_tensor_v2\n",
    "float": b"ctorch\nFloatStorage\n",
    "dict": b"ccollections\nOrderedDict\n)R",
}


def tensor_pickle(size=b"(I2\nI2\nt", stride=b"(I2\nI1\nt", offset=b"I0\n", numel=b"I4\n"):
    """A dictionary of one tensor, in the opcodes of protocol 0 to 2."""
    storage = b"(Vstorage\n" + GLOBALS["float"] + b"V0\nVcpu\n" + numel + b"tQ"
    arguments = b"(" + storage + offset + size + stride + b"I00\n" + GLOBALS["dict"] + b"t"
    return b"\x80\x02}Vw\n" + GLOBALS["rebuild"] + arguments + b"Rs."


DATA = ("archive/data/0", np.arange(4, dtype="<f4").tobytes())


def test_the_pickle_by_hand_is_a_tensor(tmp_path):
    """So that the hostile ones below differ from a good one in one thing."""
    tensors = read(repickled(tmp_path, tensor_pickle(), [DATA]))
    np.testing.assert_array_equal(tensors["w"], [[0, 1], [2, 3]])
    tensors = read(repickled(tmp_path, tensor_pickle(stride=b"(I1\nI2\nt"), [DATA]))
    np.testing.assert_array_equal(tensors["w"], [[0, 2], [1, 3]])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (tensor_pickle(size=b"(I2\nI3\nt"), "beyond its storage"),
        (tensor_pickle(offset=b"I1\n"), "beyond its storage"),
        (tensor_pickle(stride=b"(I1000000000000\nI1\nt"), "beyond its storage"),
        (tensor_pickle(offset=b"I-1\n"), "has shape"),
        (tensor_pickle(stride=b"(I-2\nI1\nt"), "has shape"),
        (tensor_pickle(size=b"(I2\nt"), "has shape"),
        (tensor_pickle(numel=b"I4000000000000\n"), "are promised"),
        (tensor_pickle(size=b"(V2\nI2\nt"), "in place of int"),
        (tensor_pickle(size=b"I2\n"), "in place of tuple"),
        (b"\x80\x02I3\n.", "not tensors by name"),
        (pickle.dumps({"w": 3.0}), "in place of Tensor"),
        (pickle.dumps({3: 4}), "in place of str"),
        (b"", "damaged"),
        (b"\x80\x02}q\x00", "damaged"),
        (pickle.dumps({"w": 1})[:-3], "damaged"),
        (b"\x80\x02(" * 2000, "damaged"),
    ],
    ids=range(16),
)
def test_what_a_pickle_says_is_not_believed(tmp_path, content, why):
    with pytest.raises(TorchFileError, match=why):
        read(repickled(tmp_path, content, [DATA]))


def test_damaged_files(tmp_path):
    good = written(tmp_path).read_bytes()
    path = tmp_path / "damaged.ckpt"
    for content in (b"", b"PK", good[:100], good[: len(good) // 2], good[:-30], os.urandom(4096)):
        path.write_bytes(content)
        with pytest.raises(TorchFileError):
            read(path)
    with pytest.raises(TorchFileError, match="lacks storage"):
        read(repickled(tmp_path, tensor_pickle()))
    with pytest.raises(TorchFileError, match=r"one data\.pkl"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("other", b"")
        read(path)
    with pytest.raises(TorchFileError, match="endian"):
        read(repickled(tmp_path, tensor_pickle(), [DATA, ("archive/byteorder", b"big")]))


def test_compressed_members_are_refused(tmp_path):
    """A few bytes could otherwise become gigabytes."""
    path = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("archive/data.pkl"), tensor_pickle(numel=b"I1000000\n"))
        archive.writestr("archive/data/0", bytes(4_000_000))
    with pytest.raises(TorchFileError, match="storage '0' is compressed"):
        read(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    with pytest.raises(TorchFileError, match=r"data\.pkl has"):
        read(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/byteorder", bytes(1 << 20))
        archive.writestr(zipfile.ZipInfo("archive/data.pkl"), tensor_pickle())
    with pytest.raises(TorchFileError, match="byteorder has"):
        read(path)


NEST = b"q\x00h\x00h\x00\x86" * 60  # a tuple of twice the last, sixty times


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02N" + NEST + b"Q.",  # shown in an error, it would never end
        b"\x80\x02}N" + NEST + b"Ns.",  # as a key, it would be hashed without end
        b"\x80\x02Nr\xff\xff\xff\x0f.",  # a memo of four gigabytes
        tensor_pickle(stride=b"(I0\nI0\nt", size=b"(I100000\nI100000\nt"),  # four numbers
        b"\x80\x02(" + b"N" * 100_000 + b"t.",
        b"\x80\x02" + b"]" * 1000 + b".",
    ],
    ids=range(6),
)
def test_small_pickles_do_not_become_large(tmp_path, content):
    start = time.perf_counter()
    with pytest.raises(TorchFileError):
        read(repickled(tmp_path, content, [DATA]))
    assert time.perf_counter() - start < 5  # they took minutes, or gigabytes
