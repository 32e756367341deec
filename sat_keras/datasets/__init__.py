"""Data sets, each as one table with a row for every caption."""
