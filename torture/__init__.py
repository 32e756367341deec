"""Attacks on what this package writes and reads: `make torture`.

Read `jobs` (the commands that are attacked) and `children` (how a process is killed at a chosen
write) first. `kills`, `disks`, `flips`, `hostile` and `fuzz` hold one kind of attack each; `table`
writes their results into `docs/reliability.md`.

Nothing here knows how the package works inside: commands run as a user runs them, and what counts
is what lies on the disk afterwards.
"""
