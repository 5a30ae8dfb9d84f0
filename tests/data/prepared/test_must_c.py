"""MuST-C: talks cut into a dataset of segments with their translations."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from tdt_jax.cli import main
from tdt_jax.data.prepared import must_c
from tdt_jax.data.sources import read_source


def run(*arguments):
    return main.main(["prepare", *map(str, arguments)])


@pytest.fixture
def talks(tmp_path):
    """MuST-C's layout: two talks of 3 s, the second segment of the second beyond its end."""
    folder = tmp_path / "en-de" / "data" / "dev"
    (folder / "wav").mkdir(parents=True)
    (folder / "txt").mkdir()
    segments = []
    for talk in (1, 2):
        samples = np.arange(48000, dtype=np.int16) % (1000 * talk)
        soundfile.write(folder / "wav" / f"ted_{talk}.wav", samples, 16000)
        for offset, seconds in ((0.5, 1.25), (2.0, 0.75 * talk)):
            wav = f"ted_{talk}.wav"
            segments.append(dict(duration=seconds, offset=offset, speaker_id="spk.1", wav=wav))
    (folder / "txt" / "dev.yaml").write_text(yaml.safe_dump(segments))
    (folder / "txt" / "dev.en").write_text("Yes.\nNo.\u2028No.\nGood.\nBad.\n")
    (folder / "txt" / "dev.de").write_text("Ja.\nNein. Nein.\nGut!\nSchlecht.\n")
    return tmp_path / "en-de"


def test_must_c(talks, tmp_path, capsys):
    assert run("must_c", talks, tmp_path) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("dev: 3 utterances") and "ted_2.wav ends before" in captured.err
    records = read_source(f"{tmp_path / 'must_c' / '1.0.0'}:dev")
    assert [(each.text, each.seconds) for each in records] == [
        ("Ja.", 1.25), ("Nein. Nein.", 0.75), ("Gut!", 1.25)
    ]  # fmt: skip
    samples = np.arange(48000) % 2000 / 32768
    np.testing.assert_array_equal(records[2].audio(16000), samples[8000:28000].astype(np.float32))
    transcript = records[1].dataset[1]["source_text"].bytes_list.value[0].decode()
    assert transcript == "No.\u2028No."


def test_must_c_that_does_not_add_up(talks):
    base = talks / "data" / "dev" / "txt"
    (base / "dev.de").write_text("Ja.\n")
    with pytest.raises(ValueError, match="4 segments, 4 lines of en and 1 of de"):
        must_c.scan("dev", talks / "data" / "dev")
    (base / "dev.yaml").write_text("- {duration: 1, wav: a.wav}")
    with pytest.raises(ValueError, match=r"dev\.yaml is no list of segments: KeyError\('offset'\)"):
        must_c.scan("dev", Path(talks / "data" / "dev"))
