"""The command tdt-jax, a command a file.

main.py          make_parser, main, exit codes
options.py       options that several commands share, progress bar
transcribe.py    transcribe
job.py           a job of many files: what to read, what to write, what is done already
listen.py        listen, and words on a terminal
evaluate.py      evaluate, warmup
convert.py       convert
prepare.py       prepare
benchmark.py     benchmark
"""
