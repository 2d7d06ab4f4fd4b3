"""The versions in requirements/*.lock against the advisories of OSV, by pip-audit: a part of `make check`.

    python requirements/audit.py [--service https://api.osv.dev/v1/query]

Exits with 1 for a finding that is not in accepted-advisories.txt, and with 2 if a lock file can't be audited. Where the
service can't be reached it says so and exits with 0: what it knows changes without us, and must not stop other work.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

FOLDER = Path(__file__).parent
SERVICE = "https://api.osv.dev/v1/query"
TIMEOUT_SECONDS = 900
_UNREACHED = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "ServiceError", "HTTPError", "ProxyError", "SSLError")


class Unreached(Exception):
    """The advisory service gave no answer."""


def accepted(file: Path) -> dict[str, str]:
    """Why a finding is put up with, by its identifier: lines of an identifier and the reason."""
    lines = (line.split(maxsplit=1) for line in file.read_text(encoding="utf-8").splitlines())
    return {line[0]: line[1] for line in lines if len(line) == 2 and not line[0].startswith("#")}


def requirements(folder: Path) -> list[list[str]]:
    """The pinned versions, each once, in lists that hold no package twice: the other sets are part of these three.

    Without their markers, so that every version is audited, also those for other platforms.
    """
    lists: list[dict[str, str]] = []
    for name in ("test", "vllm", "vllm-cpu"):
        for line in (folder / f"{name}.lock").read_text(encoding="utf-8").splitlines():
            pin = line.partition(";")[0].strip()
            package = pin.partition("==")[0]
            if pin not in [known.get(package) for known in lists]:
                free = next((known for known in lists if package not in known), None)
                if free is None:
                    lists.append(free := {})
                free[package] = pin
    return [list(known.values()) for known in lists]


def findings(lines: list[str], service: str) -> list[dict[str, Any]]:
    """What is known against these versions: package, version, ids, fix_versions, description.

    Raises Unreached, and SystemExit with what pip-audit said where it failed otherwise.
    """
    with TemporaryDirectory() as name:
        pinned, report = Path(name) / "pinned.txt", Path(name) / "report.json"
        pinned.write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(pinned), "--no-deps", "--disable-pip"]
        command += ["--vulnerability-service", "osv", "--osv-url", service, "--progress-spinner", "off"]
        command += ["--format", "json", "--output", str(report)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
        if not report.exists():
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            if any(word in done.stderr for word in _UNREACHED):
                raise Unreached(last)
            print(f"pip-audit failed: {last}\nmend the lock files, or run `make env-test`", file=sys.stderr)
            sys.exit(2)
        packages = json.loads(report.read_bytes())["dependencies"]
    return [
        {"package": f"{package['name']} {package['version']}", **found}
        for package in packages
        for found in package.get("vulns", ())
    ]


def main() -> None:
    """Audit, say what was found, exit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", default=SERVICE)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the lock files and accepted-advisories.txt")
    options = parser.parse_args()
    reasons = accepted(options.folder / "accepted-advisories.txt")
    try:
        found = [one for lines in requirements(options.folder) for one in findings(lines, options.service)]
    except (Unreached, subprocess.TimeoutExpired) as error:
        rule = "!" * 100
        print(f"{rule}\nTHE DEPENDENCIES WERE NOT AUDITED: no answer from {options.service}", file=sys.stderr)
        print(f"{str(error)[:300]}\nRun `make check` again where it can be reached.\n{rule}", file=sys.stderr)
        return
    new = 0
    met: set[str] = set()
    for one in found:
        names = [one["id"], *one.get("aliases", ())]
        known = [name for name in names if name in reasons]
        met.update(known)
        fix = f"fixed in {', '.join(one['fix_versions'])}" if one["fix_versions"] else "no version fixes it"
        state = f"accepted: {reasons[known[0]]}" if known else fix
        print(f"{one['package']}: {', '.join(names)}: {one['description'][:120]}; {state}")
        new += not known
    for name in sorted(reasons.keys() - met):
        print(f"{name}: no longer found; remove it from accepted-advisories.txt")
    print(f"dependencies audited: {len(found)} known vulnerabilities, {new} of them not accepted")
    sys.exit(bool(new))


if __name__ == "__main__":
    main()
