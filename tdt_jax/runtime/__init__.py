"""Where a program runs: devices, processes, files. Knows no speech.

backend.py       which kind of device a program is traced for
process.py       compilation cache, compile seconds, memory allocator
distributed.py   several processes: start, barrier, gather, stop
sharding.py      the mesh, the rule that splits parameters, rows of a batch
pytree.py        arrays by dotted name
files.py         the cache folder, files written whole or not at all
lock.py          one process at a time in a folder
streams.py       standard input and output of a command
"""
