"""Speed, measured beside peers or against a stated target; each file is a script."""
