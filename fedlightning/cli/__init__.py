"""The command line: `fedlightning-train`, composed by Hydra from the groups in `configs/`.

Nothing is imported here, so that the command can answer `--help` without torch.
"""
