"""An order that a command has left is on the disk, whatever becomes of the power."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.strace import calls, check_order, first, then, tracing

LEAVE = """
import sys
from pathlib import Path
from batch_api.store.orders import Orders, Revocation
Orders(Path(sys.argv[1])).leave(Revocation("key_1", 0))
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_an_order_is_synced_then_named_then_its_folder_is_synced(tmp_path: Path) -> None:
    data, trace = tmp_path / "data", tmp_path / "trace"
    command = [*tracing(trace), sys.executable, "-c", LEAVE, str(data)]
    subprocess.run(command, check=True, timeout=60)

    check_order(
        calls(trace),
        first("mkdir", f'"{data}"'),
        then("fsync", f"<{tmp_path}>"),
        then("mkdir", f'"{data}/orders"'),
        then("fsync", f"<{data}>"),
        then("fsync", ".json.unfinished>"),
        then("rename", ".json.unfinished"),
        then("fsync", f"<{data}/orders>"),
    )
