"""The folder of compiled programs: whose it is, what is kept, and what turns it off."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mpc import _compilation_cache

PROGRAM = """
import jax, mpc
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("/cache_hits") else None)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.jit(lambda x: x * 3.0 + 1.0)(1.0)
print(mpc.compiled_programs, len(hits), sep="|")
"""


def told(**variables: str) -> list[str]:
    """Returns the folder in use and the number of programs found there, from a process with these variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_COMPILATION", "CRAIK_"))}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=kept | variables, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.strip().split("|")


def test_a_second_process_finds_what_the_first_compiled(tmp_path):
    first, second = told(XDG_CACHE_HOME=str(tmp_path)), told(XDG_CACHE_HOME=str(tmp_path))
    folder = Path(first[0])
    assert folder.parent == tmp_path / "craik" and folder.stat().st_mode & 0o777 == 0o700
    assert first[1] == "0" and int(second[1]) > 0 and second[0] == first[0]


def test_the_users_own_settings_win_and_impossible_ones_are_told(tmp_path):
    (tmp_path / "file").touch()
    assert told(CRAIK_CACHE="off")[0] == "off (CRAIK_CACHE is off)"
    assert told(CRAIK_CACHE=str(tmp_path / "file" / "inside"))[0].startswith("off (")
    assert told(JAX_COMPILATION_CACHE_DIR=str(tmp_path))[0] == f"yours ({tmp_path})"


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path):
    own, link = tmp_path / "own", tmp_path / "link"
    own.mkdir(mode=0o700)
    link.symlink_to(own)
    assert _compilation_cache.refusal(own) is None
    assert "not a folder of this user's" in str(_compilation_cache.refusal(link))
    own.chmod(0o770)
    assert "others may write" in str(_compilation_cache.refusal(own))


def test_a_folder_that_others_may_replace_or_have_written_to_is_not_used(tmp_path):
    above = tmp_path / "above"
    own = above / "own"
    own.mkdir(parents=True, mode=0o755)
    above.chmod(0o777)
    assert "others may replace" in str(_compilation_cache.refusal(own))
    above.chmod(0o1777)  # as /tmp, where nobody renames the folders of others
    assert _compilation_cache.refusal(own) is None
    assert told(CRAIK_CACHE=str(own))[0] == str(own) and own.stat().st_mode & 0o777 == 0o700
    if os.getuid() == 0:  # only root gives files away
        (own / "program").touch()
        os.chown(own / "program", 1, 1)
        assert "files of others" in str(_compilation_cache.refusal(own))


@pytest.mark.parametrize(("most", "left"), [(100, 10), (99, 4), (9, 0)])
def test_the_oldest_programs_go_first(tmp_path, most, left):
    for i in range(10):
        (tmp_path / f"{i}").write_bytes(bytes(10))
        os.utime(tmp_path / f"{i}", (i, i))
    _compilation_cache.prune(tmp_path, most)
    assert {path.name for path in tmp_path.iterdir()} == {f"{i}" for i in range(10 - left, 10)}
