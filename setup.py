"""The packages to install: `rlt_data`, and the folders `cli` and `recipes` under names of their own."""

from setuptools import find_packages, setup

cli = ["rlt_data_cli", *(f"rlt_data_cli.{name}" for name in find_packages("cli"))]
setup(packages=[*find_packages(include=["rlt_data", "rlt_data.*"]), *cli, "rlt_data_recipes"])
