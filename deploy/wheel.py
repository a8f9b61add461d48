"""The wheel's build hook: compiles the data plane with mypyc.

Everything that builds a wheel, such as ``pip install .``, runs it (``[tool.hatch.build.targets.wheel.hooks.custom]``). The sources are
compiled in a separate folder, never in the checkout, where a stale extension would take precedence over an edited source. Without a C
compiler the result is a pure wheel, with a warning. An editable installation stays interpreted; ``HATCH_BUILD_NO_HOOKS=true`` skips it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULES = (
    "runtime/clock", "runtime/gcra", "runtime/outbox", "runtime/ticker",
    "admission/accounting", "admission/allowances", "admission/authentication", "admission/brief", "admission/driver",
    "admission/explanations", "admission/failures", "admission/gate", "admission/limit_share", "admission/limits",
    "admission/outcome", "admission/principal", "admission/refusals", "admission/replay", "admission/routes",
    "admission/rules", "admission/services", "admission/unrecorded",
    "admission/dialects/base", "admission/dialects/binance", "admission/dialects/mobee", "admission/dialects/rfc9421",
    "admission/sessions/base", "admission/sessions/binance", "admission/sessions/json_text", "admission/sessions/mobee",
    "admission/sessions/shape",
    "forward/balance", "forward/call", "forward/connection", "forward/fair_queue", "forward/identity", "forward/pool", "forward/ports",
    "forward/tunnel", "forward/upstream_server",
    "keys/cache", "keys/ids", "keys/lookup", "keys/redis_line", "keys/usage",
    "http1/answer", "http1/body", "http1/chunked", "http1/forwarding", "http1/framing", "http1/headers", "http1/memo", "http1/message",
    "http1/reader", "http1/request_head", "http1/request_reader", "http1/response", "http1/response_reader", "http1/shape",
    "net/addresses", "net/client_ip", "net/tally",
    "server/client_lines", "server/connection", "server/exchange", "server/fair_scheduler", "server/input_buffer",
    "server/lingering", "server/phases", "server/plane", "server/ports", "server/queued", "server/serving", "server/session",
    "server/states", "server/upgrade", "server/upstream_request", "server/worker_state",
    "telemetry/histogram",
    "websocket/frames", "websocket/messages",
)  # fmt: skip
"""Compiled modules of ``gateway``. Their classes have slots, inherit only from one another, and have plain constructors."""

REQUIRED = "GERBANG_WHEEL"
"""An environment variable: with ``compiled`` a build without compiler fails, with ``pure`` nothing is compiled."""
TOOLS = ("mypy==2.4.1", "setuptools>=80")
_CHECKER = "[mypy]\nplugins = pydantic.mypy\nignore_missing_imports = true\n"
_SETUP = """
from mypyc.build import mypycify
from setuptools import setup

setup(name="gerbang", packages=[], ext_modules=mypycify({arguments!r}, opt_level="2", debug_level="0"))
"""
_SECONDS = 3_600  # for slow or emulated machines


class CompiledModules(BuildHookInterface):  # type: ignore[type-arg]
    """See the module."""

    PLUGIN_NAME = "custom"
    _work: tempfile.TemporaryDirectory[str] | None = None

    def dependencies(self) -> list[str]:
        """Build requirements: the compiler, and the packages whose types it reads."""
        return [*self.metadata.core.dependencies, *TOOLS]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and add the result to the wheel, unless it is an editable one."""
        wanted = os.environ.get(REQUIRED, "")
        if version == "editable" or wanted == "pure":
            return
        if not any(shutil.which(name) for name in (os.environ.get("CC", "cc"), "gcc", "clang")):
            self._without("there is no C compiler", wanted)
            return
        self._work = tempfile.TemporaryDirectory(prefix="gerbang-wheel-")
        try:
            made = compile_modules(Path(self.root), Path(self._work.name))
        except subprocess.SubprocessError as error:
            self._work.cleanup()
            said = (getattr(error, "output", None) or b"").decode("utf-8", "replace").strip().splitlines()[-20:]
            self._without("\n".join([f"the compiler failed ({error}); end of its output:", *said]), wanted)
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update(made)

    def finalize(self, _version: str, _build_data: dict[str, Any], _artifact_path: str) -> None:
        """Remove the build folder."""
        if self._work is not None:
            self._work.cleanup()

    def _without(self, reason: str, wanted: str) -> None:
        if wanted == "compiled":
            raise RuntimeError(f"{REQUIRED}=compiled, but {reason}")
        self.app.display_warning(f"the gateway is not compiled and will serve fewer requests: {reason}")


def compile_modules(root: Path, work: Path) -> dict[str, str]:
    """Compile :data:`MODULES` of the checkout ``root`` in the empty folder ``work``.

    :return: each extension's path, and its path in the wheel
    :raises subprocess.SubprocessError: the compiler failed, with its output, or took too long
    """
    shutil.copytree(root / "gateway", work / "gateway", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    (work / "mypy.ini").write_text(_CHECKER)
    modules = [f"gateway/{module}.py" for module in MODULES]
    (work / "setup.py").write_text(_SETUP.format(arguments=["--config-file=mypy.ini", *modules]))
    subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_SECONDS, check=True,
    )  # fmt: skip
    return {str(path): str(path.relative_to(work)) for path in work.rglob("*.so") if "build" not in path.relative_to(work).parts}
