"""Runs one program under limits. This file is copied into the sandbox, and uses the standard library alone.

Called as `python launcher.py PROGRAM SETTINGS`. SETTINGS is a JSON object: `limits` for `setrlimit` by name,
and for a test of a function its name in `function` and a `mark` that precedes its value on standard output.
"""

import json
import resource
import runpy
import sys


def main() -> None:
    """Set the limits, which the program cannot raise again, and run it."""
    program, settings = sys.argv[1], json.loads(sys.argv[2])
    for name, amount in settings["limits"].items():
        resource.setrlimit(getattr(resource, name), (amount, amount))
    sys.argv = [program]
    function = settings.get("function")
    if function is None:
        runpy.run_path(program, run_name="__main__")
        return
    arguments = json.load(sys.stdin)
    names = runpy.run_path(program, run_name="program")
    called = names[function] if function in names else getattr(names["Solution"](), function)
    value = called(*arguments)
    print("\n" + settings["mark"] + json.dumps(value))


if __name__ == "__main__":
    main()
