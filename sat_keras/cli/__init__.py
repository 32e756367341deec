"""The command line `sat-keras`, one file a command.

`main` parses and dispatches.
"""
