"""The version of proofloop. All packages, images and the chart have the same one."""

__version__ = "0.1.0"
