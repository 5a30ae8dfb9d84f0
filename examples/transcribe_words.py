"""Lists the words of recordings with their times and confidence, as tab-separated text.

    python examples/transcribe_words.py runs/quickstart talk.mp3 interview.wav > words.tsv

With --below only uncertain words are listed, for someone to check:

    python examples/transcribe_words.py runs/quickstart talk.mp3 --below 0.6
"""

import argparse
import sys

import tdt_jax as tdt


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="a run, a .nemo archive, a Hugging Face folder or repository")
    parser.add_argument("recordings", nargs="+", help="files of any format")
    parser.add_argument("--below", type=float, default=1.1, help="list words of less confidence")
    options = parser.parse_args(arguments)

    recogniser = tdt.load(options.model)
    failed = {}  # position -> reason
    transcripts = tdt.transcribe(recogniser, options.recordings, failed=failed)
    print("recording", "start", "end", "confidence", "word", sep="\t")
    for path, transcript in zip(options.recordings, transcripts, strict=True):
        for word in transcript.words if transcript else ():
            if word.confidence < options.below:
                times = f"{word.start:.2f}\t{word.end:.2f}"
                print(path, times, f"{word.confidence:.3f}", word.text, sep="\t")
    for reason in failed.values():
        print(f"left out: {reason}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:  # a bad argument or file, which it names
        sys.exit(f"error: {error}")
