"""The verb `doctor`: what this machine will use, and whether what a plan needs lies here.

findings.py  one thing looked at: what was found, whether it is well, the way out
machine.py   without any GPU library: cores, memory, limits, disk, Slurm, caches
probe.py     with them, in a process of its own: versions, devices, dtypes, kernels, 4 bit
files.py     every data file and weight of a plan
show.py      for people (80 columns) and for programs (JSON)
"""
