"""The command line tdt-jax: a file for each command, its options above its function.

main.py          make_parser, main, exit codes
options.py       options that several commands share, progress bar
transcribe.py    transcribe
job.py           a job of many recordings: which files it reads, where their transcripts go
listen.py        listen
serve.py         serve
terminal.py      the words of a stream, written as they come
evaluate.py      evaluate, warmup
lm.py            lm
convert.py       convert
export.py        export
prepare.py       prepare
check.py         prepare check
check_page.py    a page to listen to the worst pairs
benchmark.py     benchmark
benchmark_recordings.py  benchmark long, live, boost and serve
benchmark_options.py     options that benchmarks share
"""
