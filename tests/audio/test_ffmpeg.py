"""What FFmpeg reads: every container and codec gives the same sine, on its time line."""

import io
import os
import struct

import av
import numpy as np
import pytest
import soundfile
from media import bursts, encode, sine

from tdt_jax.audio import ffmpeg
from tdt_jax.audio.errors import AudioError, AudioWarning
from tdt_jax.audio.reading import (
    audio_blocks,
    audio_seconds,
    header_seconds,
    read_audio,
)


def read(path, **options):
    """Samples, and what was warned of."""
    warnings = []
    return read_audio(path, warn=warnings.append, **options), warnings


@pytest.mark.parametrize(
    ("name", "codec", "rate", "format", "more"),
    [
        ("a.m4a", "aac", 44100, None, 0.0),
        ("a.aac", "aac", 48000, "adts", 0.05),
        ("a.mp3", "libmp3lame", 44100, None, 0.0),
        ("a.mp2", "mp2", 48000, None, 0.03),
        ("a.ac3", "ac3", 48000, None, 0.03),
        ("a.eac3", "eac3", 48000, None, 0.03),
        ("a.wma", "wmav2", 44100, "asf", 0.0),
        ("a.amr", "libopencore_amrnb", 8000, None, 0.02),
        ("a.3gp", "libopencore_amrnb", 8000, None, 0.0),
        ("a.caf", "alac", 48000, None, 0.0),
        ("a.oga", "flac", 48000, "ogg", 0.0),
        ("a.mka", "libopus", 48000, "matroska", 0.0),
        ("a.webm", "libopus", 48000, None, 0.0),
        ("a.flv", "aac", 44100, None, 0.05),
        ("a.avi", "mp2", 48000, None, 0.03),
        ("a.mov", "pcm_s16le", 48000, None, 0.0),
        ("a.ts", "aac", 48000, "mpegts", 0.04),
        ("a.mpg", "mp2", 48000, None, 0.03),
        ("a.vob", "ac3", 48000, None, 0.03),
        ("a.nut", "libopus", 48000, None, 0.02),
        ("a.tta", "tta", 48000, None, 0.0),
        ("a.wv", "wavpack", 48000, None, 0.0),
        ("g722.wav", "g722", 16000, "wav", 0.0),
        ("g723.wav", "g723_1", 8000, "wav", 0.03),
        ("g726.wav", "g726", 8000, "wav", 0.0),
        ("ima.wav", "adpcm_ima_wav", 16000, "wav", 0.13),
        ("ms.wav", "adpcm_ms", 16000, "wav", 0.13),
        ("a.au", "pcm_mulaw", 8000, None, 0.0),
        ("a.w64", "pcm_s16le", 16000, None, 0.0),
    ],
)
def test_containers_and_codecs(tmp_path, name, codec, rate, format, more):
    """Lengths are to the sample where a format can say them, else a codec's frame longer."""
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg does not encode {codec}")
    bit_rate = {"g723_1": 6300, "libopencore_amrnb": 12200, "g726": 32000}.get(codec, 96_000)
    encode(tmp_path / name, [[(0, sine(1.2, rate))]], rate, codec, format=format, bit_rate=bit_rate)
    samples, warnings = read(tmp_path / name)
    lost = 0.047 if codec == "wmav2" else 0.003  # FFmpeg's WMA encoder keeps its last frame
    assert -lost < len(samples) / 16000 - 1.2 <= more + 0.003
    middle = samples[4000:12000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(8000), 1 << 16))
    assert np.argmax(spectrum) * 16000 / (1 << 16) == pytest.approx(440, abs=2)
    assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(0.5, abs=0.09)
    assert warnings == []
    assert audio_seconds(tmp_path / name) == pytest.approx(len(samples) / 16000, abs=0.05)


@pytest.mark.parametrize(
    ("name", "codec", "layout"),
    [
        ("a.m4a", "aac", "7.1"), ("a.mkv", "flac", "7.1"), ("a.opus", "libopus", "7.1"),
        ("a.wav", "pcm_s16le", "7.1"), ("a.flac", "flac", "5.1"), ("a.mka", "pcm_s16le", "5.1"),
        ("a.ac3", "ac3", "5.1"), ("b.m4a", "aac", "3.0"), ("a.ogg", "flac", "5.1"),
    ],
)  # fmt: skip
def test_the_centre_weighs_as_in_a_down_mix(tmp_path, name, codec, layout):
    """Words are there, and what comes from all sides at once does not clip."""
    names = [channel.name for channel in av.AudioLayout(layout).channels]
    centre = np.zeros((48000, len(names)))
    centre[:, names.index("FC")] = sine(1, 48000)
    options = dict(layout=layout, bit_rate=64_000 * len(names))
    encode(tmp_path / name, [[(0, centre)]], 48000, codec, **options)
    level = np.sqrt(2 * np.mean(read_audio(tmp_path / name)[4000:12000] ** 2))
    share = {"3.0": 0.4142, "5.1": 0.2929, "7.1": 0.2265}[layout]
    if name == "a.mka":  # which does not say what its channels are
        share = 1 / 6
    assert level == pytest.approx(0.5 * share, rel=0.03)


def test_sound_keeps_its_place(tmp_path):
    """Late, and with a gap: in a film, in sound alone, and in a broadcast."""
    burst = sine(0.8, 48000)
    late, gap = [(1.0, burst)], [(0.5, burst), (3.0, burst)]
    for name, codec, track, starts, picture in (
        ("film.mkv", "aac", late, [1.0], 2.0),
        ("film.mp4", "aac", late, [1.0], 2.0),
        ("film.ts", "mp2", late, [1.0], 2.0),
        ("sound.mka", "libopus", late, [1.0], 0.0),
        ("gap.mkv", "aac", gap, [0.5, 3.0], 4.0),
        ("gap.mp4", "aac", gap, [0.5, 3.0], 4.0),
        ("gap.ts", "mp2", gap, [0.5, 3.0], 4.0),
        ("gap.webm", "libopus", gap, [0.5, 3.0], 0.0),
    ):
        format = "mpegts" if name.endswith("ts") else None
        encode(tmp_path / name, [track], 48000, codec, format=format, picture=picture)
        samples, warnings = read(tmp_path / name)
        found = bursts(samples)
        assert [start for start, _ in found] == pytest.approx(starts, abs=0.04), name
        assert [end - start for start, end in found] == pytest.approx([0.8] * len(starts), abs=0.04)
        assert warnings == [], name


@pytest.mark.parametrize(("name", "jump"), [("a.mkv", 3e7), ("a.mp4", 4e4), ("a.ts", 2e4)])
def test_a_clock_that_jumps_by_hours_is_not_believed(tmp_path, name, jump):
    track = [(0.0, sine(1.0, 48000)), (jump, sine(1.0, 48000))]
    format = "mpegts" if name == "a.ts" else None
    encode(tmp_path / name, [track], 48000, "mp2" if format else "aac", format=format)
    samples, warnings = read(tmp_path / name)
    assert len(samples) / 16000 == pytest.approx(2.0, abs=0.05)
    assert len(warnings) == 1 and f"a{name[1:]} jump by {jump - 1:.0f} s" in warnings[0]


def test_jitter_of_time_stamps_inserts_nothing(tmp_path):
    rng = np.random.default_rng(0)
    samples = sine(2.0, 48000)
    track = [(i / 48000 + rng.uniform(0, 0.02), samples[i : i + 960]) for i in range(0, 96000, 960)]
    encode(tmp_path / "a.mkv", [track], 48000, "pcm_s16le")
    assert len(read_audio(tmp_path / "a.mkv")) == pytest.approx(32000, abs=320)


def test_a_broadcast_that_begins_anew(tmp_path):
    encode(tmp_path / "a.ts", [[(0, sine(1.0, 48000))]], 48000, "mp2", format="mpegts")
    (tmp_path / "b.ts").write_bytes((tmp_path / "a.ts").read_bytes() * 3)
    assert len(read_audio(tmp_path / "b.ts")) / 16000 == pytest.approx(3.0, abs=0.1)


# Several tracks


def test_tracks(tmp_path):
    path = tmp_path / "a.mkv"
    tracks = [[(0, sine(1.0, 48000, hertz))] for hertz in (400, 800)]
    encode(path, tracks, 48000, "flac", picture=1.0)
    first, warnings = read(path)
    assert len(warnings) == 1 and "has 2 audio tracks; read is 1" in warnings[0]
    for track, hertz in ((1, 400), (2, 800)):
        samples, warnings = read(path, track=track)
        assert warnings == [] and np.argmax(np.abs(np.fft.rfft(samples))) == hertz
        assert np.array_equal(samples, first) == (track == 1)
    with pytest.raises(AudioError, match=r"a\.mkv has no audio track 3; it has 2"):
        read(path, track=3)
    soundfile.write(tmp_path / "a.wav", sine(), 16000)
    assert len(read(tmp_path / "a.wav", track=1)[0]) == 16000
    with pytest.raises(AudioError, match=r"a\.wav has no audio track 2; it has 1"):
        read(tmp_path / "a.wav", track=2)
    with pytest.raises(ValueError, match="tracks are counted from 1, got 0"):
        read(path, track=0)


def test_a_film_without_sound(tmp_path):
    encode(tmp_path / "a.mkv", [], 48000, "flac", picture=1.0)
    with pytest.raises(AudioError, match="it holds no sound, only video"):
        read(tmp_path / "a.mkv")


def test_a_playlist_opens_nothing(tmp_path):
    encode(tmp_path / "a.ts", [[(0, sine(1.0, 48000))]], 48000, "mp2", format="mpegts")
    (tmp_path / "a.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:1.0,\n{tmp_path / 'a.ts'}\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "a.ffconcat").write_text("ffconcat version 1.0\nfile a.ts\n")
    for name in ("a.m3u8", "a.ffconcat"):
        with pytest.raises(AudioError, match="is damaged or not audio"):
            read(tmp_path / name)


# Several parts


def sound(path, seconds, rate=16000, channels=1, format=None):
    soundfile.write(path, np.stack([sine(seconds, rate)] * channels, 1), rate, format=format)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", ["ogg", "opus", "mp3"])
def test_parts_are_read_one_after_the_other(tmp_path, suffix):
    """Also of another rate and number of channels; lengths add up to the sample."""
    opus = dict(rate=48000) if suffix == "opus" else dict(rate=44100)
    format = {"opus": "OGG"}.get(suffix)
    parts = [
        sound(tmp_path / f"{i}.{suffix}", 0.5 + i, channels=1 + i, format=format, **options)
        for i, options in enumerate(({}, opus))
    ]
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(parts[0] + parts[1] + parts[0])
    samples, warnings = read(path)
    assert len(samples) / 16000 == pytest.approx(2.5, abs=0.25 if suffix == "mp3" else 0.001)
    for second in (0.25, 1.25, len(samples) / 16000 - 0.3):
        part = samples[round(second * 16000) - 1600 :][:3200]
        assert np.sqrt(2 * np.mean(part**2)) == pytest.approx(0.5, abs=0.05)
    assert warnings == []


def test_ogg_parts_of_different_codecs(tmp_path):
    encode(tmp_path / "f.oga", [[(0, sine(0.5, 48000))]], 48000, "flac", format="ogg")
    encode(tmp_path / "o.opus", [[(0, sine(0.7, 48000))]], 48000, "libopus", format="ogg")
    vorbis = sound(tmp_path / "v.ogg", 0.3)
    data = (tmp_path / "f.oga").read_bytes() + (tmp_path / "o.opus").read_bytes() + vorbis
    (tmp_path / "a.ogg").write_bytes(data)
    assert len(read_audio(tmp_path / "a.ogg")) == 24000
    assert header_seconds(tmp_path / "a.ogg") == pytest.approx(1.5, abs=0.01)
    part = read_audio(tmp_path / "a.ogg", start=0.25, stop=1.25)
    assert len(part) == 16000 and np.abs(part).max() < 0.7


def test_a_tag_may_hold_any_bytes():
    file = io.BytesIO()
    soundfile.write(file, np.zeros(1600), 16000, format="wav")
    title = b"INFOINAM\x02\0\0\0\xe9\xff"
    file.write(b"LIST" + struct.pack("<I", len(title)) + title)
    size = file.tell()
    file.seek(4)
    file.write(struct.pack("<I", size - 8))
    assert ffmpeg.seconds(file, "a.wav") == 0.1


def test_tags_between_joined_mp3s_are_not_sound(tmp_path):
    """A picture in the second file's tag, and an old tag at the end of the first."""
    data = sound(tmp_path / "a.mp3", 1.0)
    picture = b"APIC" + (50_000).to_bytes(4) + b"\0\0" + np.random.default_rng(0).bytes(50_000)
    size = bytes(len(picture) >> shift & 127 for shift in (21, 14, 7, 0))
    tag, old_tag = b"ID3\x03\0\0" + size + picture, b"TAG" + bytes(125)
    (tmp_path / "b.mp3").write_bytes((tag + data + old_tag) * 3)
    samples, warnings = read(tmp_path / "b.mp3")
    assert len(samples) == 48000 and warnings == []


# Nothing is lost without a word


def damage(path, share=0.5, size=200):
    data = bytearray(path.read_bytes())
    middle = round(len(data) * share)
    data[middle : middle + size] = bytes(byte ^ 0x5A for byte in data[middle : middle + size])
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "codec", "format"),
    [
        ("a.flac", "flac", None), ("a.mkv", "flac", None), ("a.oga", "flac", "ogg"),
        ("a.opus", "libopus", "ogg"), ("a.m4a", "aac", None), ("a.ts", "aac", "mpegts"),
        ("a.ac3", "ac3", None), ("a.aac", "aac", "adts"),
    ],
)  # fmt: skip
def test_damage_inside_is_an_error_or_a_gap_that_is_said(tmp_path, name, codec, format):
    """What follows the damage stays at its place."""
    rng = np.random.default_rng(0)
    rate = 48000
    samples = np.concatenate([rng.normal(0, 0.1, 4 * rate), 0 * sine(1, rate), sine(1, rate)])
    encode(tmp_path / name, [[(0, samples)]], rate, codec, format=format, bit_rate=128_000)
    damage(tmp_path / name, 0.3)
    with pytest.raises(AudioError, match=rf"{name} is (truncated or )?damaged"):
        read(tmp_path / name)
    found, warnings = read(tmp_path / name, damaged="skip")
    assert len(found) / 16000 == pytest.approx(6.0, abs=0.06)
    assert bursts(found)[-1][0] == pytest.approx(5.0, abs=0.06)
    assert any("could not be read, from" in each for each in warnings), warnings


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "aac", {"movflags": "faststart"}),
        ("b.mp4", "aac", {"movflags": "frag_keyframe+empty_moov", "frag_duration": "300000"}),
        ("a.mkv", "flac", {}),
        ("a.webm", "libopus", {}),
        ("a.mp3", "libmp3lame", {}),
        ("a.flac", "flac", {}),
        ("a.caf", "pcm_s16le", {}),
        ("a.wav", "g722", {}),
        ("a.avi", "mp2", {}),
        ("a.tta", "tta", {}),
        ("a.aiff", "pcm_s16be", {}),
        ("6.wav", "pcm_s16le", {}),
    ],
)
def test_a_missing_end_is_an_error_or_said(tmp_path, name, codec, options):
    rng = np.random.default_rng(0)
    rate, layout = 16000 if codec == "g722" else 48000, "5.1" if name == "6.wav" else "mono"
    samples = rng.normal(0, 0.1, (4 * rate, 6 if layout == "5.1" else 1))
    picture = 4.0 if name.endswith("mkv") else 0.0
    encode(tmp_path / name, [[(0, samples)]], rate, codec, layout=layout, options=options,
           picture=picture)  # fmt: skip
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: round(len(data) * 0.7)])
    with pytest.raises(AudioError, match=rf"{name} is (truncated|damaged)"):
        read(tmp_path / name)
    found, warnings = read(tmp_path / name, damaged="skip")
    assert 2.0 < len(found) / 16000 < 3.5
    assert warnings and all(
        "is truncated: its header" in each or "could not" in each for each in warnings
    )


def test_formats_made_for_streams_may_end_anywhere(tmp_path):
    """The frame that is cut is said."""
    path = tmp_path / "a.aac"
    encode(path, [[(0, sine(2.0, 48000))]], 48000, "aac", format="adts")
    path.write_bytes(path.read_bytes()[:-100])
    samples, warnings = read(path)
    assert len(samples) / 16000 == pytest.approx(2.0, abs=0.03)
    assert len(warnings) == 1 and "is damaged in its last 0.02 s" in warnings[0]


def test_an_ogg_file_without_its_last_page_is_said(tmp_path):
    path = tmp_path / "a.opus"
    encode(path, [[(0, sine(3.0, 48000))]], 48000, "libopus", format="ogg")
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"OggS")])
    with pytest.warns(AudioWarning, match="has no mark at its end"):
        assert 1.0 < len(read_audio(path)) / 16000 < 3.0


def test_a_page_that_is_missing_is_noticed(tmp_path):
    path = tmp_path / "a.opus"
    encode(path, [[(0, sine(4.0, 48000))]], 48000, "libopus", format="ogg")
    data = path.read_bytes()
    pages = [i for i in range(len(data)) if data[i : i + 4] == b"OggS"]
    path.write_bytes(data[: pages[3]] + data[pages[4] :])
    with pytest.raises(AudioError, match="pages are missing before byte"):
        read_audio(path)
    samples, warnings = read(path, damaged="skip")
    assert len(samples) / 16000 == pytest.approx(4.0, abs=0.01)
    assert any("1.00 s of 4.00 s could not be read, from 1" in each for each in warnings)


@pytest.mark.parametrize("tail", [b"TAG" + bytes(125), bytes(5000)])
def test_what_follows_the_last_page_is_no_damage_but_a_hole_is(tmp_path, tail):
    path = tmp_path / "a.opus"
    encode(path, [[(0, sine(4.0, 48000))]], 48000, "libopus", format="ogg")
    data = bytearray(path.read_bytes())
    path.write_bytes(data + tail)
    samples, warnings = read(path)
    assert len(samples) == 64000 and warnings == []
    page = data.index(b"OggS", len(data) // 2)
    data[page : page + len(tail)] = bytes(len(tail))
    path.write_bytes(data)
    with pytest.raises(AudioError, match="a page is damaged at byte"):
        read(path)


def test_damaged_takes_two_words(tmp_path):
    with pytest.raises(ValueError, match="damaged must be 'error' or 'skip', got 'yes'"):
        read(tmp_path / "a.wav", damaged="yes")


# Parts of a recording


@pytest.mark.parametrize(
    ("name", "codec", "tolerance"),
    [("a.wav", "pcm_s16le", 0), ("a.flac", "flac", 0), ("a.mp3", "libmp3lame", 0),
     ("a.m4a", "alac", 0), ("b.m4a", "aac", 0), ("a.ts", "mp2", 0), ("a.mkv", "flac", 48)],
)  # fmt: skip
def test_what_is_between_two_moments(tmp_path, name, codec, tolerance):
    """To the sample; to a millisecond where the container's clock has no finer step."""
    samples = sine(4, 48000, 200 * (1 + np.arange(4 * 48000) / 48000))
    format = "mpegts" if name == "a.ts" else None
    encode(tmp_path / name, [[(0, samples)]], 48000, codec, format=format)
    whole = read_audio(tmp_path / name, 48000)
    for start, stop in ((0.0, 0.5), (1.2345, 2.5), (3.0, None), (2.5, 2.6)):
        part = read_audio(tmp_path / name, 48000, start=start, stop=stop)
        end = len(whole) if stop is None else round(stop * 48000)
        first = round(start * 48000)
        assert len(part) == pytest.approx(end - first, abs=tolerance)
        near = range(max(first - tolerance, 0), first + tolerance + 1)
        size = len(part) - tolerance
        assert min(np.abs(whole[i : i + size] - part[:size]).max() for i in near) < 1e-3
    with pytest.raises(AudioError, match="holds no samples after 9 s"):
        read_audio(tmp_path / name, start=9.0)


def test_damage_after_what_is_wanted_is_no_matter(tmp_path):
    encode(tmp_path / "a.mp4", [[(0, sine(4.0, 48000))]], 48000, "aac",
           options={"movflags": "faststart"})  # fmt: skip
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[: len(data) * 3 // 4])
    assert len(read_audio(tmp_path / "a.mp4", start=0.5, stop=1.5)) == 16000


# Memory


def resident():
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="Linux only")
@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mov", "pcm_mulaw"), ("a.mkv", "pcm_s16le"), ("a.flac", ""), ("a.ogg", "")],
)
def test_memory_does_not_grow_with_length(tmp_path, name, codec):
    """Eight minutes take no more than the first of them, in every way to read."""
    path, minute = tmp_path / name, np.zeros((60 * 8000, 2), np.float32)
    minute[::80] = 0.1
    if codec:
        encode(path, [[(60 * i, minute) for i in range(8)]], 8000, codec, layout="stereo")
    else:
        parts = 8 if name == "a.ogg" else 1
        with soundfile.SoundFile(path, "w", 8000, 2) as file:
            for _ in range(8 // parts):
                file.write(minute)
        path.write_bytes(path.read_bytes() * parts)
    first, most, seconds = None, 0, 0.0
    for block in audio_blocks(path):
        seconds += len(block) / 16000
        if first is None and seconds > 60:
            first = resident()
        if first is not None:
            most = max(most, resident() - first)
    assert seconds == pytest.approx(480, abs=1)
    assert most < 15e6  # the samples are 31 MB


def test_a_long_gap_is_never_held(tmp_path):
    track = [(0.0, sine(0.5, 8000)), (3600.0, sine(0.5, 8000))]
    encode(tmp_path / "a.mkv", [track], 8000, "pcm_s16le")
    sizes = [len(block) for block in audio_blocks(tmp_path / "a.mkv", 8000)]
    assert sum(sizes) == pytest.approx(3600.5 * 8000, abs=80) and max(sizes) <= ffmpeg.BLOCK
