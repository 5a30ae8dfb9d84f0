"""Where a program runs: devices, processes, files. Knows nothing of speech.

backend.py       the kind of device that a program is traced for
process.py       settings of this process: compilation cache, compile seconds, memory allocator
distributed.py   several processes: start, barrier, gather, stop
sharding.py      the mesh, the rule that splits parameters, rows of a batch
pytree.py        arrays by dotted name
files.py         the cache folder; text files that are written atomically
lock.py          a folder that one process uses at a time
streams.py       standard input, output and error of a command
"""
